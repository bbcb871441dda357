"""Running models: inputs' device and dtype, logits, evaluation mode, the memory format."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InvalidArgumentError


def logits_of(output: Any, *, of_tokens: bool = False) -> Tensor:
    """The logits in a model's output: a tensor, its ``.logits``, or the first item of a tuple.

    Args:
        output: what the model returned.
        of_tokens: whether there may be dimensions between, as of the tokens of a text.

    Raises:
        InvalidArgumentError: this is no tensor of shape (batch, classes).
    """
    found = getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, Tensor) and (found.dim() == 2 or (of_tokens and found.dim() > 2)):
        return found
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
    raise InvalidArgumentError(
        f"the model must return logits of shape (batch, {'..., ' * of_tokens}classes), got "
        f"{shape}: wrap it in a module that does"
    )


def plain_logits(output: Any) -> Any:
    """Replace an output of transformers that holds logits alone by its ``logits``.

    It may also hold logits of other heads. Any other output, such as one with a loss or hidden
    states, is returned unchanged.
    """
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or isinstance(output, Tensor):
        return output
    fields = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    more = any(v is not None and not str(n).endswith("logits") for n, v in fields.items())
    return output if more else logits


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has none."""
    tensors = chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """The dtype of the model's first floating-point parameter; None if it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def moved(images: Tensor, device: torch.device, dtype: torch.dtype | None) -> Tensor:
    """Move images to a device, and to the dtype of the weights unless they are integers."""
    wanted = dtype if images.is_floating_point() else None
    # The CPU would not wait for a copy to it, and could read the images too early.
    return images.to(device, wanted, non_blocking=device.type == "cuda")


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` returned the module, or ``compile()`` of the module was called."""
    returned = type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")
    return returned or module._compiled_call_impl is not None


@contextmanager
def evaluation_mode(model: nn.Module) -> Generator[None]:
    """The model in evaluation mode for a ``with`` block; each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def use_channels_last(model: nn.Module, images: Tensor) -> None:
    """Store weights of convolutions with the channels last, with which CPUs compute fastest.

    Values stay the same, and outputs change by rounding alone. Nothing changes where the model is
    not on a CPU, has no 2-D convolution, or does not run in this memory format: ``view`` after a
    convolution needs the usual one.

    Args:
        model: on its device.
        images: a batch that the model takes.
    """
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    # Of these alone: torch refuses the format for tensors of five dimensions, as of a Conv3d.
    convolutions = [module for module in model.modules() if isinstance(module, kinds)]
    if not convolutions or device_of(model).type != "cpu":
        return
    _store_as(convolutions, torch.channels_last)
    try:
        with evaluation_mode(model):
            model(moved(images, device_of(model), dtype_of(model)))
    except RuntimeError:
        _store_as(convolutions, torch.contiguous_format)


def _store_as(modules: Iterable[nn.Module], memory_format: torch.memory_format) -> None:
    for module in modules:
        module.to(memory_format=memory_format)  # type: ignore[call-overload]  # torch's stub
