"""Forward passes in parts of a batch that fit into memory; smaller parts where it runs out."""

from collections.abc import Callable
from itertools import count

import torch
from torch import Tensor, nn

from secateurs.errors import Argument, FailureError
from secateurs.outputs import dtype_of, logits_of, moved

# Messages of allocators and GPU libraries for which torch has no exception type.
_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "_ALLOC_FAILED")

# Input elements for each core: 3 or 4 images of 224 x 224 pixels. With more, the activations of a
# usual network do not fit into the caches, and the C library asks the system for fresh pages for
# every layer: one and a half times slower on two cores (results/speed).
_NUMBERS_A_CORE = 2**19


class Forward:
    """Runs a model on a batch in parts that fit into memory.

    Starts with whole batches on an accelerator, and on a CPU with parts that fit into its caches.
    A network whose batch normalisation uses the statistics of the batch gets whole batches; any
    other is taken to score each image by itself. When memory runs out, the size of a part is
    halved, for this and all later batches.

    Args:
        model: the network.
        device: where it is.
        amp: whether to run under autocast (float16 on CUDA, bfloat16 elsewhere).
        warn: called with a sentence each time the size is halved.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, amp: bool, warn: Callable[[str], None]
    ):
        self.model, self.device, self.warn = model, device, warn
        self.largest: int | None = None
        dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
        # Without its cache: where the caller is under autocast already, it would reuse the cast
        # weights of the variant before.
        self._autocast = torch.autocast(device.type, dtype=dtype, enabled=amp, cache_enabled=False)
        self._dtype = dtype_of(model)
        self._whole = device.type != "cpu" or any(map(_uses_batch_statistics, model.modules()))

    def to_device(self, images: Tensor) -> Tensor:
        """Move a batch to the device, once for all variants; unchanged if it does not fit."""
        try:
            return moved(images, self.device, self._dtype)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        return images

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (batch, classes) of ``images`` (batch, ...).

        Raises:
            FailureError: not even one image fits.
        """
        while True:
            size = min(self.largest or self._usual_size(images), len(images))
            try:
                return torch.cat([self._logits(*each) for each in zip(images.split(size), count())])
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # Outside the handler: the exception holds the frames, and with them the activations.
            self._halve(size)

    def _usual_size(self, images: Tensor) -> int:
        """How many images to run at once, before memory has run out."""
        if self._whole:
            return len(images)
        fitting = _NUMBERS_A_CORE * torch.get_num_threads() * len(images) / max(1, images.numel())
        return 4 * max(1, round(fitting / 4))  # kernels work on four or eight images at a time

    # Not inference_mode: a tensor that a module caches could not be differentiated later.
    @torch.no_grad()
    def _logits(self, images: Tensor, part: int) -> Tensor:  # noqa: ARG002 - for a subclass
        images = moved(images, self.device, self._dtype)
        with self._autocast:
            return logits_of(self.model(images))

    def _halve(self, size: int) -> None:
        if size == 1:
            raise FailureError(
                f"out of memory on {self.device} with a single image: use a smaller ",
                Argument("img_size"), ", ", Argument("amp", True),
                ", or another ", Argument("device"),
            )  # fmt: skip
        self.largest = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.warn(f"out of memory with {size} images at once; going on with {self.largest}")


def _uses_batch_statistics(module: nn.Module) -> bool:
    """Whether it normalises by the statistics of the batch, also in ``eval()`` mode."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _NO_MEMORY)
