"""A model while it is measured: its device, its mode, and its calibration images."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._io.text import one_line
from secateurs.criteria import Criterion
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.outputs import device_of, evaluation_mode
from secateurs.pruning import restore
from secateurs.repair.input_moments import observed_inputs
from secateurs.repair.repaired_values import calibration_tensor


def moved_to(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Move the model to a device and return it; None leaves it, even on several devices."""
    if device is None:
        return device_of(model)
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidArgumentError(
            f"no device {str(device)!r} here ({one_line(error)}): write ",
            Argument("device", "cpu"), " or another one",
        ) from error  # fmt: skip
    model.to(found)
    return found


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Put the model in ``eval()`` mode; afterwards restore its weights and each module's mode."""
    grad = torch.is_grad_enabled()
    with evaluation_mode(model):
        try:
            yield
        finally:
            try:
                restore(model)
            finally:
                restore(model)  # once more, since Ctrl-C may have cut it short
                torch.set_grad_enabled(grad)  # Ctrl-C while no_grad exits leaves it off


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
