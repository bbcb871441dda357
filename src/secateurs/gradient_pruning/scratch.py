"""Memory that the masked weights of one backward pass are written into, one after the other."""

import threading

import torch
from torch import Tensor


class Scratch(threading.local):
    """Memory for one masked weight, which each thread has for itself.

    New memory of some megabytes comes from the operating system page by page, which takes longer
    than the product that is written into it. Torch has done with a masked weight when it asks for
    the next one, since one thread computes one node of the graph at a time.

    Args:
        largest: how many elements it has at most.
    """

    def __init__(self, largest: int = 1 << 22):
        self._largest = largest
        self._memory: Tensor | None = None

    def __reduce__(self) -> tuple[type["Scratch"], tuple[int]]:
        return Scratch, (self._largest,)

    def like(self, tensor: Tensor) -> Tensor | None:
        """Memory in the shape and order of a tensor, whatever is in it; None where it has none."""
        usable = tensor.device.type == "cpu" and tensor.is_contiguous()
        # Memory that is made in inference mode could not be written to outside of it.
        if not usable or tensor.numel() > self._largest or torch.is_inference_mode_enabled():
            return None
        memory = self._memory
        if memory is None or memory.dtype != tensor.dtype or memory.numel() < tensor.numel():
            self._memory = memory = torch.empty(tensor.numel(), dtype=tensor.dtype)
        return memory[: tensor.numel()].view(tensor.shape)
