"""What a run of `secateurs.training.retrain` prunes, when, and how it trains."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from secateurs._validation import as_integer, check_choice, check_ratio
from secateurs.errors import InvalidArgumentError
from secateurs.training.settings import TrainingSettings

SCHEDULES = ("one-shot", "iterative", "cubic")
REGROWTHS = ("none", "magnitude", "gradient")


@dataclass(frozen=True, kw_only=True)
class RetrainPlan:
    """The settings of a run; checked once, when it is made.

    Attributes:
        ratio: of units that are pruned in the end, from 0 to 1.
        dense: how the network is trained before it is pruned; with 0 epochs it is taken as it is.
        retraining: how it is trained while it is pruned.
        schedule: one of `SCHEDULES`.
        rounds: of the iterative schedule; each has as many epochs as the others, give or take one.
        rewind: whether the kept weights go back to what they were before the retraining at each
            round (Frankle and Carbin 2019).
        ramp: of the cubic schedule: the part of the epochs over which the ratio grows.
        every: steps between two prunings of the cubic schedule, or two regrowths.
        regrowth: one of `REGROWTHS`.
        options: keyword arguments of `secateurs.select`: granularity, scope, score, layers ...
        seed: of order, augmentation and draws.

    Raises:
        InvalidArgumentError: a value is unknown or out of range.
    """

    ratio: float
    dense: TrainingSettings
    retraining: TrainingSettings
    schedule: str = "cubic"
    rounds: int = 5
    rewind: bool = False
    ramp: float = 0.5
    every: int = 100
    regrowth: str = "none"
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int = 0

    def __post_init__(self) -> None:
        check_ratio("ratio", self.ratio)
        check_ratio("ramp", self.ramp)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("regrowth", self.regrowth, REGROWTHS)
        for name in ("rounds", "every"):
            whole = as_integer(getattr(self, name))
            if whole is None or whole < 1:
                raise InvalidArgumentError(
                    f"{name} must be a whole number from 1 on, got {getattr(self, name)!r}"
                )
        if self.schedule == "iterative" and self.retraining.epochs < self.rounds:
            raise InvalidArgumentError(
                f"{self.rounds} rounds need at least as many epochs of retraining, got "
                f"{self.retraining.epochs}: more epochs, or fewer rounds"
            )
