"""What models take and return: where they are, images brought there, and logits out of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InvalidArgumentError


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: a tensor, ``.logits``, or the first of a tuple.

    Raises:
        InvalidArgumentError: there is no tensor of shape (batch, classes) in it.
    """
    found = getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, Tensor) and found.dim() == 2:
        return found
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
    raise InvalidArgumentError(
        f"the model must return logits of shape (batch, classes), got {shape}: "
        "wrap it in a module that does"
    )


def plain_logits(output: Any) -> Any:
    """The ``logits`` of an object that holds nothing else, as transformers' models return it.

    Logits of several heads count as nothing else: those called ``logits`` are the model's. An
    object with a loss, hidden states or anything more is given as it is, and so is what has no
    ``logits``.
    """
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or isinstance(output, Tensor):
        return output
    fields = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    more = any(v is not None and not str(n).endswith("logits") for n, v in fields.items())
    return output if more else logits


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer is; the CPU if it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The dtype of the model's first floating-point parameter, None if it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def moved(images: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """Bring images to a device, and to the dtype of the weights unless they are integers."""
    wanted = dtype if images.is_floating_point() else None
    # Not towards the CPU, which would not wait for the copy.
    return images.to(device, wanted, non_blocking=device.type == "cuda")
