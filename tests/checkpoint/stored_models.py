"""Models as files, in the order of their parameters."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateurs.checkpoint import (
    Summary,
    decide_pruning,
    plan_pruning,
    prune_checkpoint,
    write_pruned,
)
from secateurs.checkpoint.contents import NAMES
from secateurs.checkpoint.header import write_header
from secateurs.selection.histogram import Sizes

FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, *FLOAT8)


class Net(nn.Module):
    """Targets of every shape, and what is none."""

    def __init__(self, dtypes: Iterable[torch.dtype] = (torch.float32,)):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.conv = nn.Conv2d(5, 7, 3)
        self.norm = nn.BatchNorm2d(7)
        self.linear = nn.Linear(33, 40)
        self.line = nn.Conv1d(8, 4, 5)
        layers = (self.conv, self.linear, self.line)
        for layer, dtype in zip(layers, itertools.cycle(dtypes), strict=False):
            values = layer.weight.detach().to(dtype)
            layer.weight = nn.Parameter(values, requires_grad=False)


TARGETS = ("conv.weight", "linear.weight", "line.weight")


def raw(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def to_file(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write safetensors in the order given; the library's own writer sorts."""
    parts = {name: raw(tensor) for name, tensor in tensors.items()}
    ends = list(itertools.accumulate(map(len, parts.values())))
    described = [
        (name, NAMES[tensors[name].dtype], tuple(tensors[name].shape), end - len(data), end)
        for (name, data), end in zip(parts.items(), ends, strict=True)
    ]
    path.write_bytes(write_header(described, metadata) + b"".join(parts.values()))
    return path


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare dtypes, shapes and bytes."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert raw(found[name]) == raw(tensor), name


SMALL = Sizes(block=32, sample=256, kept=8, crowd=4, fine=1 << 10)
"""Sizes with which even small tensors take many blocks."""


def prune_in_small_blocks(
    source: Path,
    output: Path,
    p_prune: float,
    p_bern: float = 1.0,
    *,
    compress: bool = False,
    **options: Any,
) -> Summary:
    """`prune_checkpoint`, with blocks so small that units are larger than one."""
    plan = plan_pruning(source, p_prune, p_bern, **options)
    small = tuple(replace(weight, block=SMALL.block) for weight in plan.weights)
    plan = replace(plan, weights=small)
    decision = decide_pruning(plan, sizes=SMALL)
    return write_pruned(plan, decision, output, compress=compress)


PRUNES = pytest.mark.parametrize(
    "prune", [prune_checkpoint, prune_in_small_blocks], ids=["blocks", "small-blocks"]
)
"""For tests of both."""
