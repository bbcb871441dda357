"""One network, whole and divided over ranks in many ways."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

Build = Callable[[], nn.Module]


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 5, 12))
        self.down_proj = nn.Parameter(torch.randn(3, 6, 5))


def stacks() -> nn.Module:
    """Stacked experts whose outputs lie in the last dimension, and a recurrent layer."""
    torch.manual_seed(0)
    return nn.ModuleDict({"experts": _Experts(), "core": nn.LSTM(5, 3), "head": nn.Linear(3, 7)})


def whole() -> nn.Module:
    """Every kind of layer; the sizes of some do not divide by the number of ranks."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ConvTranspose2d(6, 4, 2, groups=2),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 9),
        nn.ReLU(),
        nn.Linear(9, 7, bias=False),
    )


def inputs() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def stepped(model: nn.Module, levels: float = 8) -> nn.Module:
    """The same network with few different weights, so that most of them tie."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * levels).round() / levels)
    return model


def feed_forward() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 12))


def placed(model: nn.Module, mesh: DeviceMesh, *placements: Any) -> nn.Module:
    """Divide every parameter in the same way, as far as it has the dimensions."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            fitting = [
                p if p.is_replicate() or p.dim < parameter.dim() else Replicate()
                for p in placements
            ]
            divided = distribute_tensor(parameter.detach(), mesh, fitting)
            setattr(module, name, nn.Parameter(divided))
    return model


def fsdp(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    for child in model.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def ways(ranks: int, only: Collection[str] = ()) -> dict[str, tuple[Build, Build]]:
    """For each way to divide, or for some: the network divided, and the same network whole."""
    line = init_device_mesh("cpu", (ranks,))
    found: dict[str, tuple[Build, Build]] = {
        "fsdp": (lambda: fsdp(whole(), line), whole),
        "rows": (lambda: placed(whole(), line, Shard(0)), whole),
        "columns": (lambda: placed(whole(), line, Shard(1)), whole),
        "kernel rows": (lambda: placed(whole(), line, Shard(2)), whole),
        "replicas": (lambda: placed(whole(), line, Replicate()), whole),
        "tensor parallel": (lambda: tensor_parallel(feed_forward(), line), feed_forward),
    }
    if ranks == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        found |= {
            "replicated shards": (lambda: placed(whole(), grid, Replicate(), Shard(0)), whole),
            "sharded replicas": (lambda: placed(whole(), grid, Shard(1), Replicate()), whole),
            "blocks": (lambda: placed(whole(), grid, Shard(0), Shard(1)), whole),
            "blocks turned": (lambda: placed(whole(), grid, Shard(1), Shard(0)), whole),
            "twice the rows": (lambda: placed(whole(), grid, Shard(0), Shard(0)), whole),
            "hybrid fsdp": (lambda: fsdp(whole(), grid), whole),
            "fsdp of tensor parallel": (
                lambda: fsdp(tensor_parallel(feed_forward(), grid["tensor"]), grid["data"]),
                feed_forward,
            ),
        }
    return {name: way for name, way in found.items() if not only or name in only}


def gathered(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore


def assert_equal(divided: nn.Module, single: nn.Module, message: str = "") -> None:
    pairs = zip(divided.named_parameters(), single.named_parameters(), strict=True)
    for (name, part), (other, reference) in pairs:
        assert name.removeprefix("module.") == other
        found = gathered(part.detach())
        assert torch.equal(found.view(torch.int32), reference.detach().view(torch.int32)), (
            f"{message} {name}: {int((found != reference).sum())} differ"
        )
