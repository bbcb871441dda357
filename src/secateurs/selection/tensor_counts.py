"""Counts of keys of tensors in memory, about as fast as reading the tensors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from secateurs._tensors.blocks import (
    Array,
    Chunk,
    TensorKeys,
    block_length,
    in_threads,
    key_blocks,
    share_out,
)
from secateurs._tensors.device_keys import device_blocks, fetched
from secateurs._tensors.float_keys import Scores, key_dtype, key_of
from secateurs._tensors.memory_order import flattened, pieces
from secateurs.selection.histogram import KeyPass, Sizes
from secateurs.selection.key_counts import KeyCounts, likely_range

# From _MANY scores on, the sample is larger, so that the range is narrower and has few keys in it.
_MANY, _LARGER = 1 << 25, 4


class TensorCounts(KeyCounts):
    """Counts of keys of tensors in memory.

    Args:
        scores: the tensors, in the order in which ties are broken.
        marks: a flat bool tensor on the CPU, one element for each score on the CPU in the order of
            memory. Each pass sets the elements whose keys are below its range.
        sizes: how many keys are read and kept at a time.

    Attributes:
        chunks: the scores on the CPU, one chunk for each thread.
    """

    def __init__(
        self,
        scores: Sequence[Scores],
        marks: torch.Tensor | None = None,
        sizes: Sizes | None = None,
    ):
        dtype, sizes = key_dtype(scores), sizes or Sizes()
        total = sum(s.values.numel() for s in scores)
        super().__init__(dtype, total, signed=any(not s.absolute for s in scores), sizes=sizes)
        self._scores = scores
        self._on_device = [one for one in scores if one.values.device.type != "cpu"]
        self._on_cpu = [TensorKeys(one, dtype) for one in scores if one.values.device.type == "cpu"]
        self.chunks = share_out(self._on_cpu, sizes.threads)
        self.threads = len(self.chunks)
        self._marks = None if marks is None else marks.numpy()

    def blocks(self, chunk: Chunk) -> Iterator[Array]:
        """The keys of a chunk, block by block; the next block overwrites the last."""
        return key_blocks(chunk, self.dtype, block_length(self.dtype, self.sizes.block))

    def add_keys_to(self, counting: KeyPass) -> None:
        """Add all keys to a pass."""
        in_threads(
            lambda chunk: counting.add(self.blocks(chunk), chunk.begin, self._marks), self.chunks
        )
        for keys in device_blocks(self._on_device, self.dtype):
            counting.add_on_device(keys)

    def guess(self, k: int) -> tuple[int, int]:
        """A range from every n-th key of all tensors together; see `KeyCounts.guess`."""
        return likely_range(self.every(self.sample_step(self.total)), k, self.total)

    def sample_step(self, total: int) -> int:
        """The n of a sample of every n-th key, if there are ``total`` keys."""
        return max(total // (self.sizes.sample * (1 if total < _MANY else _LARGER)), 1)

    def every(self, step: int) -> Array:
        """Every ``step``-th key of all tensors together."""
        offset = 0
        found: list[Array] = []
        on_device: list[torch.Tensor] = []
        for keys in self._on_cpu:
            first = -offset % step
            if first < keys.size:
                found.append(keys.keys(slice(first, None, step)))
            offset += keys.size
        for scores in self._on_device:
            flat, first = flattened(scores.values), -offset % step
            if first < flat.numel():
                on_device.append(key_of(flat[first::step], self.dtype, absolute=scores.absolute))
            offset += flat.numel()
        found += [tensor.numpy() for tensor in fetched(on_device)]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def name_of_nan(self) -> str:
        """The name of the first tensor with a score that is NaN."""
        for scores in self._scores:
            flat = flattened(scores.values)
            if any(bool(flat[piece].to(self.dtype).isnan().any()) for piece in pieces(flat)):
                return scores.name
        raise RuntimeError("no score is NaN any more: something else changes the weights")
