"""Forward passes that survive running out of memory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateurs.errors import FailureError
from secateurs.evaluate.accuracy import logits_of


class Forward:
    """Runs a model on a batch in parts that fit into memory.

    Starts with whole batches. When memory runs out, the size of a part is halved and kept halved.

    Args:
        model: the network.
        device: where it is; images are moved there part by part.
        amp: whether to run under autocast (float16 on CUDA, bfloat16 elsewhere).
        warn: called with a sentence each time the size is halved.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, amp: bool, warn: Callable[[str], None]
    ):
        self.model, self.device, self.warn = model, device, warn
        self.largest: int | None = None
        dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
        self._autocast = torch.autocast(device.type, dtype=dtype, enabled=amp)
        self._dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the class scores (batch, classes) of ``images`` (batch, ...).

        Raises:
            FailureError: not even one image fits.
        """
        while True:
            size = min(self.largest or len(images), len(images))
            try:
                return torch.cat([self._part(part) for part in images.split(size)])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler: the exception holds the frames, and with them the activations.
            self._halve(size)

    @torch.inference_mode()
    def _part(self, images: Tensor) -> Tensor:
        images = images.to(self.device, self._dtype, non_blocking=True)
        with self._autocast:
            return logits_of(self.model(images))

    def _halve(self, size: int) -> None:
        if size == 1:
            raise FailureError(
                f"out of memory on {self.device} with a single image: use a smaller --img-size, "
                "--amp, or another --device"
            )
        self.largest = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.warn(f"out of memory with {size} images at once; going on with {self.largest}")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is torch's way to say that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
