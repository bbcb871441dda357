"""An example of a model's input: the layers that it calls, their inputs, and the model's output."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from itertools import zip_longest
from typing import Any, cast

import torch
from torch import Tensor, nn

from secateurs.acceleration.layer_swap import install, uninstall
from secateurs.errors import InvalidArgumentError

NamedLayers = Sequence[tuple[str, nn.Module]]
SeenInputs = dict[tuple[int, ...], "SeenInput"]
"""The inputs that a layer is called with, by shape."""


@dataclass(frozen=True)
class Example:
    """The arguments that a model is called with.

    Attributes:
        args: the positional ones.
        kwargs: the others.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def run(self, model: nn.Module) -> Any:
        """Call the model on copies: it may change its input in place."""
        return model(*copied(self.args), **copied(dict(self.kwargs or {})))

    def __str__(self) -> str:
        return ", ".join("x".join(map(str, t.shape)) for t in tensors_in((self.args, self.kwargs)))


@dataclass(frozen=True)
class SeenInput:
    """The input of a layer's calls: what is needed to make one like it.

    Attributes:
        shape: its shape.
        strides: its strides.
        dtype: its dtype.
        device: its device.
        calls: how often the layer is called with this shape.
    """

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    calls: int

    def random(self) -> Tensor:
        """An input of this kind, of standard normal values, the same at each call."""
        source = torch.Generator().manual_seed(0)
        # On the CPU as the generator is, whatever torch.set_default_device says.
        values = torch.randn(self.shape, generator=source, dtype=torch.float32, device="cpu")
        empty = torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=self.device)
        return empty.copy_(values)


class _Calls:
    """The calls of a layer for one example, noted when it is installed in the layer."""

    def __init__(self) -> None:
        self.inputs: SeenInputs = {}

    def __call__(self, module: nn.Module, forward: Callable[..., Tensor], values: Any) -> Tensor:
        """Note the input, and run the layer's own forward."""
        if type(values) is Tensor and values.layout == torch.strided:
            shape, before = values.shape, self.inputs.get(values.shape)
            strides = values.stride() if min(values.stride(), default=1) > 0 else ()
            strides = strides or torch.empty(shape, device="meta").stride()  # of expanded inputs
            calls = 1 if before is None else before.calls + 1
            self.inputs[shape] = SeenInput(shape, strides, values.dtype, values.device, calls)
        return forward(module, values)


def observe(model: nn.Module, layers: NamedLayers, example: Example) -> dict[str, SeenInputs]:
    """Run a model once, and see which of some layers it calls, by name, with which inputs.

    Args:
        model: the network, in evaluation mode.
        layers: the layers to watch, with their names.
        example: what the model is called with.

    Raises:
        InvalidArgumentError: the model does not take the example.
    """
    calls = {name: _Calls() for name, _ in layers}
    with ExitStack() as stack:
        for name, module in layers:
            stack.callback(uninstall, module)
            install(module, calls[name])
        try:
            example.run(model)
        except Exception as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InvalidArgumentError(
                f"the model does not take the example input ({example}): {why}; give what it is "
                "called with: a tensor, a tuple of arguments, or a dict of keyword arguments"
            ) from error
    return {name: seen.inputs for name, seen in calls.items() if seen.inputs}


def examples_of(given: Any) -> list[Example]:
    """Read ``example_input``: one example, or a list of several.

    Raises:
        InvalidArgumentError: there is none, or one holds no tensor.
    """
    several = cast(list[Any], given) if isinstance(given, list) else [given]
    found = [_example_of(one) for one in several]
    if not found or not all(any(True for _ in tensors_in((e.args, e.kwargs))) for e in found):
        raise InvalidArgumentError(
            "example_input must be what the model is called with: a tensor, a tuple of arguments, "
            "a dict of keyword arguments, or a list of such examples of several shapes; got "
            f"{type(given).__name__} without a tensor"
        )
    return found


def _example_of(given: Any) -> Example:
    if isinstance(given, tuple) and not hasattr(given, "_fields"):  # a named tuple is one argument
        return Example(cast(tuple[Any, ...], given))
    if isinstance(given, Mapping):
        return Example((), dict(cast(Mapping[str, Any], given)))
    return Example((given,))


def tensors_in(value: Any) -> Iterable[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in cast(Mapping[Any, Any], value).values():
            yield from tensors_in(inner)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for inner in cast(Sequence[Any], value):
            yield from tensors_in(inner)


def copied(value: Any) -> Any:
    """The same with its tensors copied, in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) is dict:
        return {key: copied(inner) for key, inner in cast(dict[Any, Any], value).items()}
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    return value


def is_close(expected: Any, output: Any, tolerance: float) -> bool:
    """Whether all tensors in an output are as expected, relative to the largest value of each.

    Half precision may differ by two units in the last place, whatever the tolerance.
    """
    pairs = zip_longest(tensors_in(expected), tensors_in(output))
    return all(_is_close(*pair, tolerance) for pair in pairs)


def _is_close(expected: Tensor | None, output: Tensor | None, tolerance: float) -> bool:
    if expected is None or output is None or not (_is_dense(expected) and _is_dense(output)):
        return False
    if expected.shape != output.shape or expected.dtype != output.dtype:
        return False
    if expected.numel() == 0 or torch.equal(expected, output):
        return True
    if expected.is_floating_point():
        tolerance = max(tolerance, 2 * torch.finfo(expected.dtype).eps)
    wide = torch.promote_types(expected.dtype, torch.float64)  # complex numbers stay complex
    difference = (output.to(wide) - expected.to(wide)).abs().max()
    largest = expected.to(wide).abs().max()
    return bool(largest > 0) and float(difference / largest) <= tolerance


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested
