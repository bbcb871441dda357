"""How `secateurs.repair` works: its options, checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secateurs._validation import check_choice, check_count, check_seed
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.repair.distillation import Distillation
from secateurs.repair.layerwise import LAYERWISE

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
    damping: float,
    batch_size: int,
    most_values: int,
    memory: int,
    iterations: int,
    learning_rate: float,
    seed: int,
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
    for name, value in (("damping", damping), ("learning_rate", learning_rate)):
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise InvalidArgumentError(
                Argument(name), f" must be a number above 0, got {value!r}; write ",
                Argument(name, 0.01 if name == "damping" else 1e-3),
            )  # fmt: skip
    distillation = Distillation(
        iterations=check_count("iterations", iterations),
        learning_rate=float(learning_rate),
        seed=check_seed("seed", seed),
    )
    return RepairOptions(
        names,
        float(damping),
        check_count("batch_size", batch_size),
        check_count("most_values", most_values),
        check_count("memory", memory),
        distillation,
    )
