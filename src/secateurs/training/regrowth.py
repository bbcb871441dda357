"""The ways in which pruned weights come back, with the formulas of their papers."""

import math
from dataclasses import dataclass

from secateurs._validation import check_choice, check_count, check_not_negative, check_ratio

STARTS = ("erk", "uniform", "score")


@dataclass(frozen=True)
class MagnitudeRegrowth:
    """Pruned weights go on learning behind the mask, and come back when they are large enough.

    Dynamic network surgery (Guo, Yao and Chen 2016). The forward pass uses W * T, where T is the
    mask. The gradient of W * T changes all of W, also what T sets to zero (equation 3,
    "straight-through"):

        W <- W - beta * dL / d(W * T)

    and T is computed again from time to time (equation 4): 0 where |W| < a, 1 where |W| >= b, and
    unchanged where |W| is between a and b. The paper takes a and b from each layer's mean and
    deviation. Here b = (1 + margin) * a, and a is such that each layer keeps as many units as
    before: the units of a layer are ranked by their scores, those of kept units times 1 + margin.
    The number of pruned units of each layer changes only when the schedule prunes. Then the scores
    of kept units decide, since pruned weights grow faster in some layers than in others.

    The optimizer's state of pruned weights is kept and updated too, since they learn. While a
    weight is pruned, ``weight_orig`` is W: it has what was learned behind the mask, and `restore`
    brings it back.

    Attributes:
        every: steps between two changes of the mask. Many weights that come back at once change the
            network too much, so 1 is best where the time of a step allows it.
        until: the last step with a change; None for no limit.
        margin: by which share a pruned weight must exceed the smallest kept one to come back.
        gamma: at step t the mask changes with probability (1 + gamma * t)^-power; always with 0.
        power: see ``gamma``.
    """

    every: int = 1
    until: int | None = None
    margin: float = 0.1
    gamma: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        _check_steps(self.every, self.until)
        for name in ("margin", "gamma", "power"):
            object.__setattr__(self, name, check_not_negative(name, getattr(self, name)))

    def due(self, step: int) -> bool:
        """Whether the mask may change at a step."""
        return _is_due(step, self.every, self.until)

    def probability(self, step: int) -> float:
        """The probability of a change at a step."""
        return (1 + self.gamma * step) ** -self.power


@dataclass(frozen=True)
class GradientRegrowth:
    """Drop the smallest weights, and grow as many where the gradient is largest.

    RigL (Evci, Gale, Menick, Castro and Elsen 2020, section 3). Every dt steps, each layer l of N_l
    units drops the k kept units with the smallest scores,

        k = f(t) * (1 - s_l) * N_l,    f(t) = fraction / 2 * (1 + cos(t * pi / t_end)).

    Then, of all its units that are not kept, the k with the largest |dL/dw| grow, from zero. So
    each layer keeps its sparsity s_l. A weight that is dropped and grown at once keeps its value.
    Under a `Cubic` schedule the sparsity rises meanwhile, as in GraNet (Liu et al. 2021, arXiv
    2106.10404).

    Call `Pruner.step` before ``zero_grad``, since it reads the gradients. If they are not finite (a
    step that a `GradScaler` skips), the masks change at the next step with finite ones.

    Attributes:
        every: dt.
        until: t_end, from which step masks no longer change (in the paper after 3/4 of all steps).
        fraction: the share of kept units that is dropped at first (the paper's alpha, 0.3).
        start: how the first pruning chooses units: "erk" and "uniform" at random, of each layer a
            share by `erk_ratios` or the same share; "score" by the scores and the scope of the
            `Pruner`.
    """

    every: int
    until: int
    fraction: float = 0.3
    start: str = "erk"

    def __post_init__(self) -> None:
        _check_steps(self.every, self.until)
        object.__setattr__(self, "fraction", check_ratio("fraction", self.fraction))
        check_choice("start", self.start, STARTS)

    def due(self, step: int) -> bool:
        """Whether the mask changes at a step."""
        return step < self.until and _is_due(step, self.every, self.until)

    def share(self, step: int) -> float:
        """f(t), the share of a layer's kept units that is dropped and grown."""
        return self.fraction / 2 * (1 + math.cos(min(step / self.until, 1) * math.pi))


Regrowth = MagnitudeRegrowth | GradientRegrowth


def _check_steps(every: int, until: int | None) -> None:
    check_count("every", every)
    if until is not None:
        check_count("until", until)


def _is_due(step: int, every: int, until: int | None) -> bool:
    return step > 0 and step % every == 0 and (until is None or step <= until)
