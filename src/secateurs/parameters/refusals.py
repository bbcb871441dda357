"""Whether a tensor can be pruned element by element, and what to write where it cannot."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from secateurs.distributed.dtensor import is_dtensor
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.patterns import excluding, listed
from secateurs.parameters.target import Target

# Formats that hold scales or packed pairs: no zero, or more than one number an element.
_WITHOUT_ZERO = frozenset(
    getattr(torch, name) for name in ("float8_e8m0fnu", "float4_e2m1fn_x2") if hasattr(torch, name)
)
_SPARSE = {
    torch.sparse_coo: "sparse_coo",
    torch.sparse_csr: "sparse_csr",
    torch.sparse_csc: "sparse_csc",
    torch.sparse_bsr: "sparse_bsr",
    torch.sparse_bsc: "sparse_bsc",
}


def refuse_unprunable(targets: Sequence[Target]) -> None:
    """Refuse parameters that cannot be pruned, all that share a reason in one error.

    Args:
        targets: all that compete.

    Raises:
        InvalidArgumentError: there are some.
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


def why_not(target: Target) -> tuple[str, str] | None:
    """What a parameter is that cannot be pruned, and what to do about it; None if it can be."""
    parameter = target.parameter
    if issubclass(type(parameter), UninitializedParameter):  # `isinstance` is slow for Parameters
        return "is not initialised yet", "run one forward pass of the lazy model first"
    if isinstance(target.module, torch.jit.ScriptModule):
        return (
            "is inside a scripted or traced module, whose weights cannot be replaced",
            "prune the network before torch.jit.script or torch.jit.trace, or write {exclude}",
        )
    return _of_kind(parameter) or _of_values(parameter)


def _of_kind(parameter: torch.Tensor) -> tuple[str, str] | None:
    """What kind of tensor it is: dense numbers in memory, or something that stands for them."""
    subclass = _foreign(parameter)
    if subclass is not None:
        return (
            f"is a {subclass.__name__}, a tensor subclass that may hold its values packed or "
            "elsewhere, so its elements cannot be set to zero one by one",
            "prune before it is quantised or wrapped, replace it by an ordinary nn.Parameter "
            "(such as nn.Parameter(weight.dequantize()) where it is quantised), or write {exclude}",
        )
    if parameter.layout in _SPARSE:
        return (
            f"has the sparse layout torch.{_SPARSE[parameter.layout]}, which holds no zeros to set",
            "replace it by nn.Parameter(weight.detach().to_dense()), or write {exclude}",
        )
    if parameter.layout != torch.strided or parameter.is_nested:
        layout = str(parameter.layout).removeprefix("torch.").lstrip("_")
        return (
            f"has the layout {'nested' if parameter.is_nested else layout}, whose elements cannot "
            "be set one by one",
            "replace it by nn.Parameter(weight.detach().to_dense()), or write {exclude}",
        )
    return None


def _of_values(parameter: torch.Tensor) -> tuple[str, str] | None:
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
    """The class of a tensor whose operations are not torch's own; None for ordinary ones."""
    cls = type(parameter)
    if cls is nn.Parameter:  # the usual case, which is asked often
        return None
    if is_dtensor(parameter):
        local: torch.Tensor = getattr(parameter, "_local_tensor")  # noqa: B009
        return _foreign(local)
    # A class that does not override these two, such as a marker, behaves as its base does.
    function: object = getattr(cls.__torch_function__, "__func__", cls.__torch_function__)
    plain: object = getattr(torch.Tensor.__torch_function__, "__func__", None)
    usual = function in (plain, getattr(torch._C, "_disabled_torch_function_impl", None))
    return None if usual and not _dispatches(cls) else cls


def _dispatches(cls: type[torch.Tensor]) -> bool:
    return getattr(cls, "__torch_dispatch__", None) is not _NO_DISPATCH


_NO_DISPATCH: object = getattr(torch.Tensor, "__torch_dispatch__", None)
