"""Memory that the masked weights of one backward pass are written into, one after the other."""

import threading

import torch
from torch import Tensor


class Scratch(threading.local):
    """Memory for one masked weight, which each thread has for itself.

    New memory of some megabytes comes from the operating system page by page, which takes longer
    than the product that is written into it. When torch asks for the next masked weight, it no
    longer needs the one before, since one thread computes one node of the graph at a time.

    Args:
        largest: how many elements it has at most.
    """

    def __init__(self, largest: int = 1 << 22):
        self._largest = largest
        self._memory: Tensor | None = None

    def __reduce__(self) -> tuple[type["Scratch"], tuple[int]]:
        return Scratch, (self._largest,)

    def like(self, tensor: Tensor) -> Tensor | None:
        """Memory of a tensor's shape, with any values; None if it is too large, or not on a CPU."""
        usable = tensor.device.type == "cpu" and tensor.is_contiguous()
        # Memory that is made in inference mode could not be written to outside of it.
        if not usable or tensor.numel() > self._largest or torch.is_inference_mode_enabled():
            return None
        memory = self._memory
        if memory is None or memory.dtype != tensor.dtype or memory.numel() < tensor.numel():
            self._memory = memory = tensor.new_empty(tensor.numel())
        return memory[: tensor.numel()].view(tensor.shape)
