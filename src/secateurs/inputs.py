"""Where a model is, and bringing images there."""

import torch
from torch import Tensor, nn


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
