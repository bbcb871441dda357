"""Whether a tensor or a model is distributed, at no cost where nothing is."""

import sys
from typing import Any, cast

import torch
from torch import nn

_DTENSOR = "torch.distributed.tensor"
_FSDP = "torch.distributed.fsdp"


def is_part(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor: one part of it lies here, others lie on other ranks."""
    module: Any = sys.modules.get(_DTENSOR)  # who has a DTensor has imported it
    return module is not None and isinstance(tensor, module.DTensor)


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a detached tensor that lies here: all of it, unless it is a DTensor."""
    return cast(Any, tensor).to_local() if is_part(tensor) else tensor


def whole_of(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a detached tensor, gathered from all ranks if it is a DTensor."""
    return cast(Any, tensor).full_tensor() if is_part(tensor) else tensor


def part_like(local: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """See a local tensor as a part of a whole, in the way that ``like`` is one."""
    if not is_part(like):
        return local
    tensor: Any = like
    module: Any = sys.modules[_DTENSOR]
    return module.DTensor.from_local(
        local,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=_strides(tensor.shape),
    )


def replicated(whole: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """See a tensor that every rank has whole as a DTensor, if ``beside`` is one."""
    if not is_part(beside):
        return whole
    module: Any = sys.modules[_DTENSOR]
    mesh: Any = cast(Any, beside).device_mesh
    placements = [module.Replicate()] * mesh.ndim
    return module.DTensor.from_local(whole, mesh, placements, run_check=False)


def settle(model: nn.Module) -> None:
    """Bring the parameters of FSDP modules back to shards: after a forward pass some are whole."""
    module: Any = sys.modules.get(_FSDP)
    if module is None or not torch.distributed.is_initialized():
        return
    for child in model.modules():
        if isinstance(child, module.FSDPModule):
            cast(Any, child).reshard()


def _strides(shape: torch.Size) -> tuple[int, ...]:
    strides, step = [0] * len(shape), 1
    for dimension in range(len(shape) - 1, -1, -1):
        strides[dimension] = step
        step *= max(shape[dimension], 1)
    return tuple(strides)
