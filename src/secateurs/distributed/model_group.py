"""Finds the ranks that hold a model."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from secateurs.distributed.collectives import DistributedGroup, digest
from secateurs.distributed.dtensor import is_dtensor
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import InvalidArgumentError


def group_of(modules: Iterable[nn.Module], parameters: Iterable[torch.Tensor]) -> ProcessGroup:
    """The ranks that hold a model of these modules and parameters.

    Raises:
        InvalidArgumentError: the model is distributed in a way that cannot be pruned.
    """
    if not dist.is_available() or not dist.is_initialized():
        return ProcessGroup()
    group = group_of_tensors(parameters)
    if group.is_distributed:
        return group
    for module in modules:
        if isinstance(module, nn.parallel.DistributedDataParallel):
            return DistributedGroup(module.process_group, sharded=False)
        if type(module).__name__ == "FullyShardedDataParallel":
            raise InvalidArgumentError(
                "FullyShardedDataParallel hides its weights in flat buffers, so they cannot be "
                "pruned: write torch.distributed.fsdp.fully_shard(model) instead"
            )
    return group


def group_of_tensors(tensors: Iterable[torch.Tensor]) -> ProcessGroup:
    """The ranks over which tensors are divided; this process alone if none is a DTensor."""
    dtensors: list[Any] = [tensor for tensor in tensors if is_dtensor(tensor)]
    meshes = dict.fromkeys(dtensor.device_mesh for dtensor in dtensors)
    if not meshes:
        return ProcessGroup()
    roots = {_root(mesh): None for mesh in meshes}
    ranks = sorted({rank for root in roots for rank in root.mesh.flatten().tolist()})
    if ranks == list(range(dist.get_world_size())):
        return DistributedGroup(dist.group.WORLD, sharded=True)
    widest = max(roots, key=lambda root: root.size())
    if sorted(widest.mesh.flatten().tolist()) != ranks or widest.ndim > 1:
        raise InvalidArgumentError(
            "the model is on some of the ranks, which no process group of one dimension covers: "
            "build its meshes from one init_device_mesh over all ranks"
        )
    return DistributedGroup(widest.get_group(), sharded=True)


def description_of(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Names, shapes, dtypes and placements of parameters as text, to compare them over ranks."""
    every = list(named)
    text = ";".join(
        f"{n}:{tuple(p.shape)}:{p.dtype}:{getattr(p, 'placements', '')}" for n, p in every
    )
    elements = sum(p.numel() for _, p in every)
    return f"a model of {len(every)} parameters, {elements} elements ({digest(text):x})"


def _root(mesh: Any) -> Any:
    """The mesh that a mesh was sliced from; the mesh itself if it is no slice."""
    find = getattr(mesh, "_get_root_mesh", None)
    return mesh if find is None else find()
