"""The sources of counts that one search works with, each as a function that prunes."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs._tensors.float_keys import Scores
from secateurs._tensors.memory_order import as_integers
from secateurs.checkpoint.block_masks import BlockPruner, decide
from secateurs.checkpoint.contents import NAMES
from secateurs.checkpoint.file_blocks import Buffers, Weight
from secateurs.checkpoint.file_histogram import SIZES
from secateurs.checkpoint.file_scores import MagnitudeKeys, magnitude_dtype
from secateurs.checkpoint.header import Described, read_header, write_header
from secateurs.distributed.shard import Shard
from secateurs.errors import InvalidArgumentError
from secateurs.selection.histogram import Sizes
from secateurs.selection.sharded_threshold import choose_sharded
from secateurs.selection.threshold import candidate_masks
from secateurs.selection.unit_scores import ShardScores

# So small that a search takes many blocks, threads and bad guesses; so that what is inside a range
# is too much to keep; and so that its keys are not counted one by one either.
TINY = Sizes(block=3, sample=4, bins_log2=3, threads=3)
SPILLING = Sizes(block=3, sample=4, kept=1, crowd=0, bins_log2=3, threads=3)
COARSE = Sizes(block=3, sample=4, kept=1, crowd=0, fine=1, bins_log2=3, threads=3)
SMALL = Sizes(block=8, sample=64, kept=4, crowd=2, fine=1 << 10)
RANKS = 3


@dataclass(frozen=True)
class CountSource:
    """One way to find candidates.

    Attributes:
        pruned: takes scores and the ratio of candidates, and returns their values with zeros where
            the candidates are.
        signed: whether scores may be below zero.
    """

    pruned: Callable[[Sequence[Scores], float], list[Tensor]]
    signed: bool = True


def marked(values: Tensor, candidates: Sequence[bool] | Tensor) -> Tensor:
    """Values, with zeros where the candidates are."""
    flags = torch.as_tensor(candidates, dtype=torch.bool).reshape(values.shape)
    return (as_integers(values.contiguous()) * ~flags).view(values.dtype)


def in_memory(sizes: Sizes) -> CountSource:
    def pruned(scores: Sequence[Scores], ratio: float) -> list[Tensor]:
        k = round(ratio * sum(one.values.numel() for one in scores))
        masks, threshold = candidate_masks(scores, k, sizes=sizes)
        assert (threshold is None) == (k == 0)
        return [marked(one.values, mask) for one, mask in zip(scores, masks, strict=True)]

    return CountSource(pruned)


class Threads:
    """Ranks that are threads: the sums and errors of a `ProcessGroup`, over shared memory."""

    size = RANKS

    def __init__(self) -> None:
        self._barrier = threading.Barrier(RANKS, timeout=60)
        self._given: dict[int, Any] = {}

    def of(self, rank: int) -> Any:
        return _Rank(self, rank)

    def gather(self, rank: int, value: Any) -> list[Any]:
        self._given[rank] = value
        self._barrier.wait()
        found = [self._given[i] for i in range(RANKS)]
        self._barrier.wait()
        return found


@dataclass(frozen=True)
class _Rank:
    threads: Threads
    rank: int
    size: int = RANKS

    def sum(self, values: np.ndarray) -> np.ndarray:
        return np.sum(self.threads.gather(self.rank, values), axis=0)

    def fail(self, error: Exception | None) -> None:
        found = [one for one in self.threads.gather(self.rank, error) if one is not None]
        if found:
            raise InvalidArgumentError(str(found[0]))


def over_ranks(sizes: Sizes) -> CountSource:
    """Every third element on each of three ranks; every third tensor whole on all of them."""

    def shard(number: int, values: Tensor, rank: int) -> Shard:
        rows = np.arange(values.numel())
        if number % 3 == 2:
            return Shard((values.numel(),), (rows,), counted=rank == 0)
        return Shard((values.numel(),), (rows[rank::RANKS],))

    def chosen(scores: Sequence[Scores], ratio: float, ranks: Any) -> list[Tensor]:
        parts: list[Scores] = []
        for number, one in enumerate(scores):
            here = shard(number, one.values, ranks.rank)
            local = here.of(one.values.reshape(-1))
            parts.append(ShardScores(one.name, local, one.absolute, here))
        return choose_sharded([parts], ratio, ranks, sizes)

    def pruned(scores: Sequence[Scores], ratio: float) -> list[Tensor]:
        threads = Threads()
        with ThreadPoolExecutor(RANKS) as pool:
            ran = [pool.submit(chosen, scores, ratio, threads.of(rank)) for rank in range(RANKS)]
            masks = [one.result() for one in ran]
        found: list[Tensor] = []
        for number, one in enumerate(scores):
            whole = torch.zeros(one.values.numel(), dtype=torch.bool)
            for rank in range(RANKS):
                whole[shard(number, one.values, rank).rows[0]] = masks[rank][number]
            found.append(marked(one.values, whole))
        return found

    return CountSource(pruned)


def written(path: Path, scores: Sequence[Scores]) -> Path:
    """A file with the values in the order given."""
    described: list[Described] = []
    values = b""
    for one in scores:
        begin, shape = len(values), tuple(one.values.shape)
        values += as_integers(one.values.reshape(-1).clone()).numpy().tobytes()
        described.append((one.name, NAMES[one.values.dtype], shape, begin, len(values)))
    path.write_bytes(write_header(described, None) + values)
    return path


def in_files(sizes: Sizes, block: int) -> CountSource:
    """Magnitudes of a file of tensors."""

    def pruned(scores: Sequence[Scores], ratio: float) -> list[Tensor]:
        with TemporaryDirectory() as folder:
            path = written(Path(folder) / "in.safetensors", scores)
            stored = read_header(path)
            entries = [entry for entry in stored.entries if entry.count]
            weights = [Weight(path, entry, 1, block=block) for entry in entries]
            found = {one.name: one.values.contiguous().clone() for one in scores}
            if not weights:
                return list(found.values())
            buffers = Buffers()
            keys = MagnitudeKeys(magnitude_dtype(weights))
            pruner = BlockPruner([decide(weights, keys, ratio, buffers, sizes)], None)
            with buffers.reader(path) as reader:
                for weight in weights:
                    flat = as_integers(found[weight.entry.name].view(-1))
                    blocks = [values.copy() for values in pruner.blocks(weight, reader)]
                    flat.copy_(torch.from_numpy(np.concatenate(blocks)))
            assert sum(pruner.pruned.values()) == round(ratio * sum(w.units for w in weights))
            return list(found.values())

    return CountSource(pruned, signed=False)


SOURCES = {
    "memory": in_memory(Sizes()),
    "memory, tiny": in_memory(TINY),
    "memory, spilling": in_memory(SPILLING),
    "memory, coarse": in_memory(COARSE),
    "ranks": over_ranks(TINY),
    "ranks, coarse": over_ranks(COARSE),
    "files": in_files(SIZES, SIZES.block),
    "files, small": in_files(SMALL, 8),
}
