"""Functions that are called with other tensors instead of a model's own."""

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.repair.layer_calls import LayerCall

Parts = Mapping[int, tuple[Tensor, ...]]
"""By the id of the packed weight of an attention: its rows for queries, keys and values."""


def _no(tensors: object) -> bool:
    del tensors
    return False


# A copy of the function that hands itself to no mode as a whole, but calls the functions inside.
_ATTENTION = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": _no},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
_ARGUMENTS = tuple(inspect.signature(F.multi_head_attention_forward).parameters)


def packed_parts(model: nn.Module) -> dict[int, tuple[Tensor, ...]]:
    """The parts of each packed attention weight of a model."""
    weights = (getattr(module, "in_proj_weight", None) for module in model.modules())
    return {id(one): _thirds(one) for one in weights if isinstance(one, Tensor)}


class Replaced(TorchFunctionMode):
    """For a ``with`` block, calls functions with other tensors instead of some.

    Where the queries of an attention are not its keys and values, its packed weight is used in
    three parts. With ``parts`` each of them is a layer, identified by its tensor there.

    Args:
        values: by the id of a tensor the tensor that is used instead.
        arrive: called before each function of a layer, with the id of the tensor that identifies
            the layer, and the call with the tensors that are used.
        parts: of packed weights.
    """

    def __init__(
        self,
        values: Mapping[int, Tensor],
        arrive: Callable[[int, LayerCall], None] | None = None,
        parts: Parts = MappingProxyType({}),
    ):
        super().__init__()
        self.arrive, self.parts = arrive, parts
        self.values = dict(values)
        for key in parts.keys() & values.keys():
            pairs = zip(parts[key], _thirds(values[key]), strict=True)
            self.values |= {id(part): value for part, value in pairs}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._attention(dict(zip(_ARGUMENTS, args, strict=False)) | named)
        replaced = args, named
        if self.values:
            replaced = tuple(map(self._value, args)), {k: self._value(v) for k, v in named.items()}
        if self.arrive is not None and LayerCall.is_known(func):
            key = id(LayerCall(func, args, named).weight)
            self.arrive(key, LayerCall(func, *replaced))
        return func(*replaced[0], **replaced[1])

    def _attention(self, given: dict[str, Any]) -> Any:
        query, key, value = (given[name] for name in _ARGUMENTS[:3])
        parts = self.parts.get(id(given["in_proj_weight"]))
        if parts is not None and (query is not key or key is not value or query.dim() < 3):
            names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
            given |= dict(zip(names, parts, strict=True))
            given["use_separate_proj_weight"] = True
        # The linear layers inside get parts of the bias, which are not known by identity.
        given["in_proj_bias"] = self._value(given["in_proj_bias"])
        with self:  # for these layers
            return _ATTENTION(**given)

    def _value(self, value: Any) -> Any:
        if type(value) in (list, tuple):  # of tensors, as torch.cat takes them
            return type(value)(map(self._value, value))
        return self.values.get(id(value), value) if isinstance(value, Tensor) else value


def _thirds(packed: Tensor) -> tuple[Tensor, ...]:
    return packed.detach().chunk(3)
