"""Refuses parameters whose elements cannot be pruned one by one, and says what to do instead."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from secateurs._io.text import listed
from secateurs.distributed.dtensor import stored_of
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.patterns import excluding
from secateurs.parameters.target import Target

# Formats without a zero (scales), or with two numbers packed into an element.
_WITHOUT_ZERO = frozenset(
    getattr(torch, name) for name in ("float8_e8m0fnu", "float4_e2m1fn_x2") if hasattr(torch, name)
)
_SPARSE = {f"torch.sparse_{kind}" for kind in ("coo", "csr", "csc", "bsr", "bsc")}


def refuse_unprunable(targets: Sequence[Target]) -> None:
    """Refuse parameters that cannot be pruned.

    Args:
        targets: all that compete.

    Raises:
        InvalidArgumentError: there are such parameters; it names all that share the first reason.
    """
    reasons: dict[tuple[str, str], list[str]] = {}
    for target in targets:
        reason = why_not(target)
        if reason is not None:
            reasons.setdefault(reason, []).append(target.name)
    refused = {name for several in reasons.values() for name in several}
    others = {target.name for target in targets} - refused if refused else set[str]()
    for (what, remedy), names in reasons.items():
        said = names[0] if len(names) == 1 else f"each of {len(names)} parameters ({listed(names)})"
        exclusion = excluding(names, others)
        before, named_there, after = remedy.partition("{exclude}")
        raise InvalidArgumentError(
            f"{said} {what}: {before}", exclusion if named_there else "", after
        )


def refuse_scripted(model: nn.Module) -> None:
    """Refuse a model that is scripted or traced as a whole.

    Raises:
        InvalidArgumentError: it is one.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InvalidArgumentError(
            "the model is scripted or traced, so its weights cannot be replaced: prune the network "
            "before torch.jit.script or torch.jit.trace"
        )


def why_not(target: Target) -> tuple[str, str] | None:
    """Why a parameter cannot be pruned, and the remedy; None if it can be pruned."""
    parameter = target.parameter
    if issubclass(type(parameter), UninitializedParameter):  # `isinstance` is slow for Parameters
        return "is not initialised yet", "run one forward pass of the lazy model first"
    if isinstance(target.module, torch.jit.ScriptModule):
        return (
            "is inside a scripted or traced module, whose weights cannot be replaced",
            "prune the network before torch.jit.script or torch.jit.trace, or write {exclude}",
        )
    return _why_not_dense(parameter) or _why_no_values(parameter)


def _why_not_dense(parameter: torch.Tensor) -> tuple[str, str] | None:
    subclass = _foreign(parameter)
    if subclass is not None:
        return (
            f"is a {subclass.__name__}, a tensor subclass that may hold its values packed or "
            "elsewhere, so its elements cannot be set to zero one by one",
            "prune before it is quantised or wrapped, replace it by an ordinary nn.Parameter "
            "(such as nn.Parameter(weight.dequantize()) where it is quantised), or write {exclude}",
        )
    layout = str(parameter.layout)
    if layout in _SPARSE:
        return (
            f"has the sparse layout {layout}, which holds no zeros to set",
            "replace it by nn.Parameter(weight.detach().to_dense()), or write {exclude}",
        )
    if parameter.layout != torch.strided or parameter.is_nested:
        layout = "nested" if parameter.is_nested else layout.removeprefix("torch.").lstrip("_")
        return (
            f"has the layout {layout}, whose elements cannot be set one by one",
            "replace it by nn.Parameter(weight.detach().to_dense()), or write {exclude}",
        )
    return None


def _why_no_values(parameter: torch.Tensor) -> tuple[str, str] | None:
    if parameter.is_meta:
        return (
            "is on the meta device and has no values",
            "load the weights first (model.to_empty(device='cpu') and load_state_dict)",
        )
    if not parameter.is_floating_point() or parameter.dtype in _WITHOUT_ZERO:
        return (
            f"has dtype {parameter.dtype}, which cannot be pruned",
            "only floating-point weights with a zero can (of a quantised network, the weights from "
            "before it was quantised); write {exclude}",
        )
    return None


def _foreign(parameter: torch.Tensor) -> type[torch.Tensor] | None:
    """The class of a tensor that overrides torch's operations; None for ordinary tensors."""
    if type(parameter) is nn.Parameter:  # the usual case, decided quickly
        return None
    cls = type(stored_of(parameter))
    # A subclass that overrides neither of these methods behaves as an ordinary tensor.
    function: object = getattr(cls.__torch_function__, "__func__", cls.__torch_function__)
    plain: object = getattr(torch.Tensor.__torch_function__, "__func__", None)
    usual = function in (plain, getattr(torch._C, "_disabled_torch_function_impl", None))
    dispatch: object = getattr(cls, "__torch_dispatch__", None)
    return None if usual and dispatch is getattr(torch.Tensor, "__torch_dispatch__", None) else cls
