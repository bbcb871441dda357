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


def float_elements(contents: ModelContents) -> tuple[int, bool]:
    """How many elements all floating-point parameters have, and whether other weights may exist."""
    total, special = 0, False
    for target in contents.targets.values():
        parameter = target.parameter
        if issubclass(type(parameter), UninitializedParameter):  # faster than `isinstance`
            special = True
        elif parameter.is_floating_point():
            total += parameter.numel()
        else:
            special = special or parameter.dtype in _INTEGERS
    return total, special or _has_other_weights(contents)


def _has_other_weights(contents: ModelContents) -> bool:
    """Whether some weights may be no parameters."""
    types: set[type[nn.Module]] = set()
    for _, module in contents.modules:
        types.add(type(module))
        for buffer in module._buffers.values():
            if buffer is not None and buffer.dtype in _INTEGERS:
                return True
    return any(one.__module__.startswith(_QUANTISED) or issubclass(one, _SCRIPTED) for one in types)


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
    return 0 if isinstance(parameter, UninitializedParameter) else parameter.numel()


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
        elif any(isinstance(p, UninitializedParameter) for p in module._parameters.values()):
            yield name, module, f"a {kind} that has not run yet"
