"""Calibration images in measurements: for repairs, and for scores that read the layers' inputs."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from secateurs.criteria import Criterion
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.repair.input_moments import observed_inputs
from secateurs.repair.repaired_values import calibration_tensor


def used_calibration(
    given: Tensor | Iterable[Any] | None, repair: Sequence[str], criteria: Iterable[Criterion]
) -> Tensor | None:
    """The calibration images as one tensor; None if none were given.

    Args:
        given: images without labels, as for `secateurs.repair`.
        repair: the steps of the repair.
        criteria: the criteria of the measurement.

    Raises:
        InvalidArgumentError: a repair has no images, or images are given that nothing uses.
    """
    if given is None:
        if repair:
            raise InvalidArgumentError(
                "a repair needs images, without labels: write ", Argument("calibration"),
                Advice("=images", " DIR"),
            )  # fmt: skip
        return None
    if not repair and not any(each.needs_inputs for each in criteria):
        raise InvalidArgumentError(
            Argument("calibration"), " belongs to a repair, or to a score that reads inputs: "
            "write ", Argument("repair", ["batchnorm", "reconstruct"]), ", too, or leave it out",
        )  # fmt: skip
    return calibration_tensor(given)


def inputs_for(
    model: nn.Module, images: Tensor | None, criteria: Iterable[Criterion]
) -> AbstractContextManager[None]:
    """For a ``with`` block, the scores that read inputs get those of the calibration images.

    Without images they read what the caller has observed (`secateurs.repair.observed_inputs`).
    """
    if images is None or not any(each.needs_inputs for each in criteria):
        return nullcontext()
    return observed_inputs(model, images)
