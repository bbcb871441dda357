"""How many weights a model holds, as parameters and in quantised or scripted modules."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from secateurs.parameters.model_contents import ModelContents

_QUANTISED = "torch.ao.nn."
# torch's quantised recurrent layers keep their weights in script objects.
_SEALED = ("LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell")
_SCRIPTED = torch.jit.ScriptModule
_INTEGERS = (torch.int8, torch.uint8, torch.int32)


def elements_in(contents: ModelContents) -> int:
    """How many weights a model has: elements of floating-point parameters, and integer weights."""
    parameters = (target.parameter for target in contents.targets.values())
    floats = sum(elements_of(p) for p in parameters if p.is_floating_point())
    return floats + sum(count for *_, count in integer_weights(contents))


def integer_weights(contents: ModelContents) -> Iterator[tuple[str, nn.Module, str, int]]:
    """Yield weights stored as integers: name, module, what the module is, number of elements."""
    for name, module in contents.modules:
        kind = type(module).__name__
        if _is_quantised(module) and _has_packed_weight(module):
            weight: Any = module.weight
            yield name, module, f"quantised {kind}", weight().numel()
        if isinstance(module, _SCRIPTED):
            continue
        for attribute, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or tensor.dtype not in _INTEGERS or tensor.dim() < 2:
                continue
            if tensor.dtype != torch.uint8 or attribute in module._parameters:  # bytes may be masks
                full = f"{name}.{attribute}" if name else attribute
                yield full, module, kind, tensor.numel()


def quantised_layers(contents: ModelContents) -> Iterator[tuple[str, nn.Module]]:
    """Yield torch's quantised layers, whose weights are no parameters, with their names."""
    for name, module in contents.modules:
        if _is_quantised(module) and (_has_packed_weight(module) or _is_sealed(module)):
            yield name, module


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_QUANTISED) and not module._parameters


def _has_packed_weight(module: nn.Module) -> bool:
    return callable(getattr(module, "weight", None))


def _is_sealed(module: nn.Module) -> bool:
    return type(module).__name__ in _SEALED


def elements_of(parameter: torch.Tensor) -> int:
    """How many elements a parameter has; 0 for a lazy layer that has not run yet."""
    return 0 if is_lazy(parameter) else parameter.numel()


def is_lazy(parameter: torch.Tensor | None) -> bool:
    """Whether a parameter belongs to a lazy layer that has not run yet."""
    return issubclass(type(parameter), UninitializedParameter)  # faster than `isinstance`


def unseen_modules(contents: ModelContents) -> Iterator[tuple[str, nn.Module, str]]:
    """Yield modules whose weights cannot be counted: name, module, what it is."""
    for name, module in contents.modules:
        kind = type(module).__name__
        if isinstance(module, _SCRIPTED):
            if not any(True for _ in module.state_dict()):
                yield name, module, "a frozen scripted module"
            elif any(str(buffer.layout) == "torch._mkldnn" for buffer in module.buffers(False)):
                yield name, module, "a module of torch.utils.mkldnn"
        elif _is_quantised(module) and _is_sealed(module):
            yield name, module, f"a quantised {kind}"
        elif any(map(is_lazy, module._parameters.values())):
            yield name, module, f"a {kind} that has not run yet"
