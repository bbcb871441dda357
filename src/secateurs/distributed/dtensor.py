"""Conversions between DTensors and ordinary tensors, which cost nothing for ordinary models.

Whether a model is divided over ranks is asked in `secateurs.parameters.model_contents` alone. What
has a tensor and no model, such as an original value or the state of an optimizer, converts it here.
"""

import sys
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

_DTENSOR = "torch.distributed.tensor"
_FSDP = "torch.distributed.fsdp"


def is_dtensor(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a DTensor, of which each rank holds a part."""
    module: Any = sys.modules.get(_DTENSOR)  # without this module there is no DTensor
    return module is not None and isinstance(tensor, module.DTensor)


def local_of(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a detached tensor: all of it, unless it is a DTensor."""
    return cast(Any, tensor).to_local() if is_dtensor(tensor) else tensor


def stored_of(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in which this rank holds its part, of whatever class; not detached."""
    return cast(Any, tensor)._local_tensor if is_dtensor(tensor) else tensor


def full_of(tensor: torch.Tensor) -> torch.Tensor:
    """A detached tensor as a whole, gathered from all ranks if it is a DTensor."""
    return cast(Any, tensor).full_tensor() if is_dtensor(tensor) else tensor


def dtensor_of(
    local: torch.Tensor, mesh: Any, placements: tuple[Any, ...], shape: Iterable[int]
) -> torch.Tensor:
    """Make a DTensor from this rank's part of it.

    Args:
        local: this rank's part.
        mesh: the device mesh.
        placements: how each dimension of the mesh divides the tensor.
        shape: the shape of the whole tensor.
    """
    module: Any = sys.modules[_DTENSOR]
    whole = torch.empty(tuple(shape), device="meta")
    return module.DTensor.from_local(
        local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def as_replica(tensor: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """Make a tensor that all ranks hold a replicated DTensor, if ``beside`` is a DTensor."""
    if not is_dtensor(beside) or is_dtensor(tensor):
        return tensor
    module: Any = sys.modules[_DTENSOR]
    mesh: Any = cast(Any, beside).device_mesh
    placements = [module.Replicate()] * mesh.ndim
    return module.DTensor.from_local(tensor, mesh, placements, run_check=False)


def as_gathered(tensor: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """Gather a DTensor if ``beside`` is no DTensor, as FSDP gathers weights for a forward pass."""
    return full_of(tensor) if is_dtensor(tensor) and not is_dtensor(beside) else tensor


def reshard(modules: Iterable[nn.Module]) -> None:
    """Turn parameters that FSDP modules gathered for a forward pass back into shards."""
    module: Any = sys.modules.get(_FSDP)
    if module is None or not torch.distributed.is_initialized():
        return
    for one in modules:
        if isinstance(one, module.FSDPModule):
            cast(Any, one).reshard()
