"""What a repair did, step by step; a notebook shows it as a table."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from secateurs.errors import require

_SHOWS = "secateurs.report.notebook"
"""The module that shows reports; it is imported when one is shown."""


@dataclass(frozen=True)
class StepReport:
    """What a step did, or several steps in one pass over the layers.

    Attributes:
        steps: their names.
        seconds: how long they took.
        loss: the divergence from the dense network's outputs, before and after; like
            ``agreement`` measured on the first 64 images or somewhat more.
        agreement: the share of images with the dense network's first class, before and after.
        layers: for each weight that was solved for, the squared error of its outputs divided by
            the variance of the dense network's, before and after.
        left: the weights that were left as they are.
        iterations: how many steps of distillation were taken.
        accuracy: the share of ``labelled`` images that were classified as labelled, before and
            after; None without such images.
    """

    steps: tuple[str, ...]
    seconds: float
    loss: tuple[float, float]
    agreement: tuple[float, float]
    layers: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    left: tuple[str, ...] = ()
    iterations: int = 0
    accuracy: tuple[float, float] | None = None


class RepairReport(tuple[StepReport, ...]):
    """What each step of a repair did, in order: a tuple of `StepReport` that shows itself."""

    __slots__ = ()

    def plot(self, *, title: str | None = None) -> Any:
        """Draw agreement and accuracy before the repair and after each step.

        Args:
            title: the text above the figure; default none.

        Returns:
            A matplotlib figure.

        Raises:
            InvalidArgumentError: there are no steps.
            FailureError: matplotlib is not installed.
        """
        return import_module(_SHOWS).stages_drawn(self._stages, title=title)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for the pruned network and one for each step.

        Raises:
            FailureError: pandas is not installed.
        """
        require("pandas", "a DataFrame")
        columns = ["stage", "loss", "agreement", "top1", "seconds"]
        return import_module("pandas").DataFrame(self._stages, columns=columns)

    def _repr_html_(self) -> str:
        return import_module(_SHOWS).stages_html(self._stages)

    @property
    def _stages(self) -> list[tuple[str, float, float, float | None, float | None]]:
        """Name, loss, agreement and accuracy in percent, and seconds, the pruned network first."""
        before = [("pruned", None, step, 0) for step in self[:1]]
        after = [(", ".join(step.steps), step.seconds, step, 1) for step in self]
        return [
            (
                name,
                step.loss[end],
                100 * step.agreement[end],
                None if step.accuracy is None else 100 * step.accuracy[end],
                seconds,
            )
            for name, seconds, step, end in (*before, *after)
        ]
