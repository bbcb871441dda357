"""The model while it is measured: on its device, in ``eval()`` mode, and afterwards restored."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from secateurs.errors import Argument, InvalidArgumentError
from secateurs.outputs import device_of, evaluation_mode
from secateurs.pruning import restore


def moved_to(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Move the model to a device and return it; None leaves it, even on several devices."""
    if device is None:
        return device_of(model)
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgumentError(
            f"no device {str(device)!r} here ({reason}): write ",
            Argument("device", "cpu"),
            " or another one",
        ) from error
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
