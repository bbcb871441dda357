"""How pruned weights come back: as values, with the formulas of their papers."""

import math
from dataclasses import dataclass

from secateurs._validation import check_choice, check_count, check_ratio
from secateurs.errors import InvalidArgumentError

STARTS = ("erk", "uniform", "score")


@dataclass(frozen=True)
class MagnitudeRegrowth:
    """Pruned weights go on learning behind the mask, and come back when they are large enough.

    Dynamic network surgery (Guo, Yao and Chen 2016). The forward pass uses W * T. The gradient
    that reaches W * T moves all of W, also what T hides (equation 3, "straight-through"):

        W <- W - beta * dL / d(W * T)

    and from time to time T is set anew (equation 4): T = 0 where |W| < a, 1 where |W| >= b, and as
    before in between. The paper takes a and b from each layer's mean and deviation. Here
    b = (1 + margin) * a, and a is such that each layer keeps as many units as before: those of one
    layer are ranked by their score, times 1 + margin if they are kept now. How many units of each
    layer are pruned changes only when the schedule prunes, and is decided by the scores of those
    that are kept, since weights behind the mask grow faster in some layers than in others.

    The optimizer's state of pruned weights goes on too, since it is what they learn with. While a
    weight is pruned, ``weight_orig`` is W: what is learned behind the mask is there, and `restore`
    brings it back.

    Attributes:
        every: steps between two changes of the mask. Many weights that come back at once change the
            network too much, so 1 is best where steps are long enough.
        until: the last step with one; None goes on for ever.
        margin: how much larger than the smallest kept weight a pruned one must be to come back.
        gamma: the mask is changed with probability (1 + gamma * t)^-power at step t; 0 is always.
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
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InvalidArgumentError(f"{name} must be at least 0, got {value!r}")

    def due(self, step: int) -> bool:
        """Whether the mask may change at a step."""
        return _is_due(step, self.every, self.until)

    def probability(self, step: int) -> float:
        """With which probability it does."""
        return (1 + self.gamma * step) ** -self.power


@dataclass(frozen=True)
class GradientRegrowth:
    """Drop the smallest weights, and grow as many where the gradient is largest.

    RigL (Evci, Gale, Menick, Castro and Elsen 2020, section 3). Every dt steps, in each layer l of
    N_l units, k of those that are kept are dropped,

        k = f(t) * (1 - s_l) * N_l,    f(t) = fraction / 2 * (1 + cos(t * pi / t_end))

    those with the smallest score, and of all that are then not kept the k with the largest |dL/dw|
    are grown, from zero. So each layer keeps its sparsity s_l. A weight that is dropped and grown
    at once keeps its value.

    Call `Pruner.step` while the gradients are there: before ``zero_grad``. Steps with gradients
    that are not finite (skipped by a `GradScaler`) put the change off to the next step.

    Attributes:
        every: dt.
        until: t_end, the step from which masks stay as they are (the paper: 3/4 of all).
        fraction: the share of kept units that is dropped at first (the paper's alpha, 0.3).
        start: which units the first pruning takes: "erk" and "uniform" take random ones, in each
            layer a share by `erk_ratios` or the same share; "score" takes those that the scores and
            the scope of the `Pruner` say.
    """

    every: int
    until: int
    fraction: float = 0.3
    start: str = "erk"

    def __post_init__(self) -> None:
        _check_steps(self.every, self.until)
        check_ratio("fraction", self.fraction)
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
