"""What torch says of one tensor or module: whether it is a DTensor, or sharded by FSDP.

At no cost where nothing is distributed.
"""

import sys
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

_DTENSOR = "torch.distributed.tensor"
_FSDP = "torch.distributed.fsdp"


def is_dtensor(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor: a part of it lies here, others lie on other ranks."""
    module: Any = sys.modules.get(_DTENSOR)  # who has a DTensor has imported it
    return module is not None and isinstance(tensor, module.DTensor)


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """What lies here of a detached tensor: all of it, unless it is a DTensor."""
    return cast(Any, tensor).to_local() if is_dtensor(tensor) else tensor


def full_of(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a detached tensor, gathered from all ranks if it is a DTensor."""
    return cast(Any, tensor).full_tensor() if is_dtensor(tensor) else tensor


def dtensor_of(
    local: torch.Tensor, mesh: Any, placements: tuple[Any, ...], shape: Iterable[int]
) -> torch.Tensor:
    """Make a DTensor of what lies here of it.

    Args:
        local: what lies here.
        mesh: the device mesh of a DTensor beside it.
        placements: how each dimension of the mesh divides the tensor.
        shape: the shape of the whole.
    """
    module: Any = sys.modules[_DTENSOR]
    whole = torch.empty(tuple(shape), device="meta")
    return module.DTensor.from_local(
        local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def as_replica(tensor: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """A tensor that every rank has whole as a DTensor, if ``beside`` is one and it is none."""
    if not is_dtensor(beside) or is_dtensor(tensor):
        return tensor
    module: Any = sys.modules[_DTENSOR]
    mesh: Any = cast(Any, beside).device_mesh
    placements = [module.Replicate()] * mesh.ndim
    return module.DTensor.from_local(tensor, mesh, placements, run_check=False)


def as_gathered(tensor: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor where ``beside`` is whole: FSDP gathers weights for a forward pass."""
    return full_of(tensor) if is_dtensor(tensor) and not is_dtensor(beside) else tensor


def reshard(modules: Iterable[nn.Module]) -> None:
    """Bring the parameters of FSDP modules back to shards: after a forward pass some are whole."""
    module: Any = sys.modules.get(_FSDP)
    if module is None or not torch.distributed.is_initialized():
        return
    for one in modules:
        if isinstance(one, module.FSDPModule):
            cast(Any, one).reshard()
