"""How `secateurs.repair` works: its options, checked."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from secateurs._validation import check_choice, check_count, check_ratio, check_seed
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.repair.distillation import Distillation
from secateurs.repair.layerwise import LAYERWISE
from secateurs.training.augmentation import AUGMENTATIONS

STEPS = (*LAYERWISE, "distill")


@dataclass(frozen=True)
class RepairOptions:
    """How `repair` works, checked.

    Attributes:
        steps: names in `STEPS`.
        damping: see `secateurs.repair.least_squares.masked_least_squares`.
        batch_size: how many images run at once.
        most_values: how many values of each output channel reconstruction looks at.
        memory: see `secateurs.repair.lockstep.Lockstep`.
        distillation: how to distill.
    """

    steps: tuple[str, ...]
    damping: float
    batch_size: int
    most_values: int
    memory: int
    distillation: Distillation

    def groups(self) -> Iterator[tuple[str, ...]]:
        """The steps, those together that one pass through the layers takes."""
        group: tuple[str, ...] = ()
        for step in self.steps:
            if step in LAYERWISE and step not in group:
                group = (*group, step)
                continue
            if group:
                yield group
            group = (step,) if step in LAYERWISE else ()
            if step not in LAYERWISE:
                yield (step,)
        if group:
            yield group


def read_repair_options(
    steps: Sequence[str],
    *,
    damping: float,
    batch_size: int,
    most_values: int,
    memory: int,
    iterations: int,
    learning_rate: float,
    seed: int,
    distill_batch_size: int,
    features: float,
    augment: str,
    tighten: float,
    state: str | os.PathLike[str] | None,
) -> RepairOptions:
    """The arguments of `secateurs.repair`, which describes them.

    Raises:
        InvalidArgumentError: a step is unknown, or a number out of range.
    """
    names = (steps,) if isinstance(steps, str) else tuple(steps)
    for name in names:
        check_choice("steps", name, STEPS)
    if not names:
        raise InvalidArgumentError(
            Argument("steps"), f" names none: write some of {', '.join(STEPS)}"
        )
    if state is not None and names.count("distill") > 1:
        raise InvalidArgumentError(
            Argument("state"),
            " is the file of one 'distill', and steps names several: leave it out",
        )
    distillation = Distillation(
        iterations=check_count("iterations", iterations),
        learning_rate=_positive("learning_rate", learning_rate, 1e-3),
        seed=check_seed("seed", seed),
        batch_size=check_count("distill_batch_size", distill_batch_size),
        features=_positive("features", features, 1.0) if features else 0.0,
        augment=check_choice("augment", augment, ("auto", *AUGMENTATIONS)),
        tighten=check_ratio("tighten", tighten),
        state=None if state is None else Path(state),
    )
    return RepairOptions(
        names,
        _positive("damping", damping, 0.01),
        check_count("batch_size", batch_size),
        check_count("most_values", most_values),
        check_count("memory", memory),
        distillation,
    )


def _positive(name: str, value: float, example: float) -> float:
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InvalidArgumentError(
            Argument(name), f" must be a number above 0, got {value!r}; write ",
            Argument(name, example),
        )  # fmt: skip
    return float(value)
