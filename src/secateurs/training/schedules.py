"""Schedules: at which steps to prune, and to which ratio; and the ratio of each layer by its shape.

A schedule counts calls of `Pruner.step`: steps of the optimizer, or epochs where it is called once
an epoch. Step 0 is before the first of them.
"""

import math
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from secateurs._validation import check_count, check_ratio
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.parameters.prunable_parameters import find_targets
from secateurs.selection.layer_counts import counts_by_shares, erk_shares

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 12  # of a printed schedule


class Schedule(ABC):
    """The steps of prunings with their ratios. A subclass defines `ratio_at` and `last`.

    Attributes:
        rewind: the step whose values the kept weights get back at each pruning; None leaves them
            as they are.
    """

    rewind: int | None = None

    @abstractmethod
    def ratio_at(self, step: int) -> float | None:
        """The ratio of units to prune at a step; None if nothing is pruned at this step."""

    @property
    @abstractmethod
    def last(self) -> int:
        """The last step at which anything is pruned."""

    @property
    def prunings(self) -> list[tuple[int, float]]:
        """Each (step, ratio) at which something is pruned, in order."""
        found = ((step, self.ratio_at(step)) for step in range(self.last + 1))
        return [(step, ratio) for step, ratio in found if ratio is not None]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"

    def __str__(self) -> str:
        rows = [f"  step {step:>8,}: {ratio:7.2%}" for step, ratio in self.prunings]
        if len(rows) > _ROWS:
            rows = [*rows[: _ROWS - 2], f"  ... {len(rows) - _ROWS + 1} more", rows[-1]]
        return "\n".join([repr(self), *rows])

    def plot(self, path_stem: str | os.PathLike[str]) -> list[Path]:
        """Draw the ratio against the steps, as PNG and as SVG.

        Args:
            path_stem: the path without ".png" and ".svg".

        Returns:
            The paths of the two files.
        """
        from secateurs.report.figure import write_figure

        return write_figure(self._figure, path_stem)

    def _figure(self) -> "Figure":
        from matplotlib.figure import Figure

        from secateurs.report.figure import add_axes, head, style_axes

        figure = Figure(figsize=(4.6, 2.9))
        head(figure, type(self).__name__, [repr(self)])
        axes = add_axes(figure, 42, 32, 275, 125)
        style_axes(axes)
        prunings = self.prunings
        after = max(self.last + 1, round(self.last * 1.1))
        steps = [0, *(step for step, _ in prunings), after]
        ratios = [0.0, *(ratio for _, ratio in prunings), prunings[-1][1] if prunings else 0.0]
        axes.step(steps, ratios, where="post", linewidth=1.4)
        axes.set(xlabel="step", ylabel="ratio pruned", ylim=(0, 1), xlim=(0, after))
        return figure


def _set(schedule: Schedule, **values: float) -> None:
    """Replace values by the checked ones, which are numbers of Python also where NumPy's came."""
    for name, value in values.items():
        object.__setattr__(schedule, name, value)


@dataclass(frozen=True)
class OneShot(Schedule):
    """Prune once: s_t = ratio from step ``at`` on (Han et al. 2015, one round of it).

    Attributes:
        ratio: the ratio of units to prune.
        at: the step; 0 is before training.

    Example:
        >>> OneShot(0.9).prunings
        [(0, 0.9)]
    """

    ratio: float
    at: int = 0

    def __post_init__(self) -> None:
        _set(self, ratio=check_ratio("ratio", self.ratio), at=check_count("at", self.at, 0))

    def ratio_at(self, step: int) -> float | None:
        """As `Schedule.ratio_at`."""
        return self.ratio if step == self.at else None

    @property
    def last(self) -> int:
        """As `Schedule.last`."""
        return self.at


@dataclass(frozen=True)
class Constant(OneShot):
    """The same ratio from the first step on, s_t = ratio: sparse training with regrowth.

    Attributes:
        ratio: the ratio of units to prune.
    """

    at: int = field(default=0, init=False, repr=False)


@dataclass(frozen=True)
class Iterative(Schedule):
    """Prune, train, and prune further, in rounds; each prunes the same share of what is left.

    After round i of n, s_i = 1 - (1 - ratio)^(i / n) (Frankle and Carbin 2019, section 2; Han et
    al. 2015 with several rounds).

    Attributes:
        ratio: the ratio after the last round.
        rounds: n.
        every: steps between two rounds.
        begin: the step of the first round; by default ``every``.
        rewind: the step whose values the kept weights get back at each round: 0 for the first
            values (Frankle and Carbin 2019), a later step for late rewinding (Frankle et al. 2020).
            The whole state dict gets its values back, and the optimizer's state is emptied. None
            goes on with the trained weights.

    Example:
        >>> print(Iterative(0.875, rounds=3, every=100))
        Iterative(ratio=0.875, rounds=3, every=100, begin=None, rewind=None)
          step      100:  50.00%
          step      200:  75.00%
          step      300:  87.50%
    """

    ratio: float
    rounds: int
    every: int
    begin: int | None = None
    rewind: int | None = None

    def __post_init__(self) -> None:
        _set(self, ratio=check_ratio("ratio", self.ratio))
        _set(self, rounds=check_count("rounds", self.rounds))
        _set(self, every=check_count("every", self.every))
        if self.begin is not None:
            _set(self, begin=check_count("begin", self.begin, 0))
        if self.rewind is not None:
            _set(self, rewind=check_count("rewind", self.rewind, 0))
        if self.rewind is not None and self.rewind > self._first:
            raise InvalidArgumentError(
                f"rewind={self.rewind} is after the first round, at step {self._first}, which has "
                f"to return to it: write a step up to {self._first}"
            )

    @property
    def _first(self) -> int:
        return self.every if self.begin is None else self.begin

    def ratio_at(self, step: int) -> float | None:
        """As `Schedule.ratio_at`."""
        past, rest = divmod(step - self._first, self.every)
        if rest or not 0 <= past < self.rounds:
            return None
        return self.ratio if past + 1 == self.rounds else (
            1 - (1 - self.ratio) ** ((past + 1) / self.rounds)
        )  # fmt: skip

    @property
    def last(self) -> int:
        """As `Schedule.last`."""
        return self._first + (self.rounds - 1) * self.every


@dataclass(frozen=True)
class Cubic(Schedule):
    """Prune fast at first and slowly at the end (Zhu and Gupta 2017, equation 1).

    s_t = s_f + (s_i - s_f) * (1 - (t - t_0) / (n * dt))^3 for t = t_0, t_0 + dt, ..., t_0 + n * dt.

    Attributes:
        ratio: s_f, the last ratio.
        end: the step of the last pruning, t_0 + n * dt.
        every: dt, steps between two prunings; the last interval may be shorter.
        begin: t_0, the step of the first.
        initial: s_i, the ratio at the first.
    """

    ratio: float
    end: int
    every: int = 100
    begin: int = 0
    initial: float = 0.0

    def __post_init__(self) -> None:
        for name in ("ratio", "initial"):
            _set(self, **{name: check_ratio(name, getattr(self, name))})
        _set(self, every=check_count("every", self.every))
        _set(self, begin=check_count("begin", self.begin, 0))
        _set(self, end=check_count("end", self.end, self.begin + 1))
        if self.initial > self.ratio:
            raise InvalidArgumentError(
                f"the schedule goes down, from initial={self.initial:g} to ratio={self.ratio:g}, "
                "and pruned weights do not come back: write a ratio that is at least as large"
            )

    def ratio_at(self, step: int) -> float | None:
        """As `Schedule.ratio_at`."""
        if step == self.end:
            return self.ratio
        if not self.begin <= step < self.end or (step - self.begin) % self.every:
            return None
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.ratio + (self.initial - self.ratio) * left**3

    @property
    def last(self) -> int:
        """As `Schedule.last`."""
        return self.end


def erk_ratios(
    model: nn.Module,
    ratio: float,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> dict[str, float]:
    """How much of each parameter to prune, by the Erdős-Rényi-Kernel rule.

    See `secateurs.selection.layer_counts.erk_shares`. What a small layer cannot keep, since it has
    no more weights, the others keep.

    Args:
        model: the network; it is not changed.
        ratio: the ratio of all weights together, met exactly.
        layers: see `secateurs.find_targets`, as for ``include`` and ``exclude``.
        include: see ``layers``.
        exclude: see ``layers``.

    Returns:
        The ratio to prune of each parameter.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 8))
        >>> erk_ratios(model, 0.75)  # the small layer stays dense
        {'0.weight': 0.84375, '1.weight': 0.0}
    """
    targets = find_targets(model, layers=layers, include=include, exclude=exclude)
    shapes = {target.name: tuple(target.parameter.shape) for target in targets}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round(check_ratio("ratio", ratio) * sum(sizes.values()))
    counts = counts_by_shares(sizes, total, sizes, erk_shares(shapes))
    return {name: count / sizes[name] if sizes[name] else 0.0 for name, count in counts.items()}
