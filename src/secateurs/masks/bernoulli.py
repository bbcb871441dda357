"""Bernoulli draws: which candidates are pruned this time."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch

from secateurs._tensors.blocks import Array, blocks_of, in_threads, ranges
from secateurs._tensors.memory_order import BLOCK, flattened, joined
from secateurs._tensors.philox import Stream
from secateurs.distributed.shard import Shard

# The values of the first random byte: about one draw in 256 needs further bits.
_LEVELS = 256
# Where this rank's units are not adjacent, at most so many numbers are made for each that is used.
_WASTE = 32


class Coins:
    """Independent Bernoulli(p) variables, one for each unit, by the unit's number.

    One random byte is compared with the first eight bits of p, which decides almost every draw. If
    they are equal, 53 further random bits are compared. So the probability is exact to 2**-61, for
    an eighth of the random bits that floats would take.

    Args:
        p: the probability of heads, strictly between 0 and 1.
        generator: the source; its state advances by the same amount for any number of units.
    """

    def __init__(self, p: float, generator: torch.Generator):
        scaled = p * _LEVELS
        self._whole = int(scaled)
        self._rest = scaled - self._whole
        self._stream = Stream(generator)

    def tails(self, start: int, stop: int) -> Array:
        """Whether the coins of the units from ``start`` to ``stop`` show tails, bool."""
        values = self._stream.bytes(start, stop)
        tails = values >= self._whole
        if self._rest:
            undecided = np.flatnonzero(values == self._whole)
            tails[undecided] = self._stream.finer(undecided + start) >= self._rest
        return tails


def draw_into(
    keep: Sequence[torch.Tensor],
    chosen: Sequence[torch.Tensor],
    p: float,
    generator: torch.Generator | None,
    placements: Sequence[Shard | None] | None = None,
    *,
    block: int = BLOCK,
    threads: int | None = None,
) -> None:
    """Keep every unit that is no candidate, and each candidate with probability ``1 - p``.

    With a generator on the CPU the result depends on the order of the tensors and on the flat
    index, not on devices, memory layouts, threads or ranks. With one on another device the draw is
    made there, in a few kernel launches and without waiting for the host.

    Args:
        keep: bool, overwritten; one tensor for each of ``chosen``, with its shape, device and
            memory layout. Tensors that are adjacent in memory are drawn together.
        chosen: bool, True is a candidate.
        p: the probability with which a candidate is pruned.
        generator: the source; not needed for p = 0 or 1.
        placements: for each tensor its shard; None for a whole tensor. By default all are whole.
        block: how many units a CPU draws at a time.
        threads: the most threads that draw on a CPU; None chooses by the number of units.
    """
    shards = placements or [None] * len(chosen)
    # A tensor that was made in inference mode can be written only there.
    with torch.inference_mode(any(k.is_inference() for k in keep)):
        flats = [(flattened(c), flattened(k)) for c, k in zip(chosen, keep, strict=True)]
        if p in (0.0, 1.0) or generator is None:
            for candidates, kept in joined(flats):
                torch.logical_not(candidates, out=kept) if p else kept.fill_(True)
        elif generator.device.type == "cpu" or any(shard is not None for shard in shards):
            rows = list(zip(chosen, keep, shards, strict=True))
            _draw_by_index(rows, flats, Coins(p, generator), block, threads)
            # numpy wrote them, which does not raise torch's version counter.
            torch.autograd.graph.increment_version([k for k in keep if not k.is_inference()])
        else:
            for candidates, kept in joined(flats):
                heads = heads_on_device(candidates.numel(), p, generator).to(candidates.device)
                torch.logical_and(candidates, heads, out=kept).logical_not_()


_Row = tuple[torch.Tensor, torch.Tensor, Shard | None]


def _draw_by_index(
    rows: list[_Row],
    flats: list[tuple[torch.Tensor, torch.Tensor]],
    coins: Coins,
    block: int,
    threads: int | None,
) -> None:
    begin = 0
    for contiguous, run in groupby(range(len(rows)), lambda index: _is_contiguous(rows[index])):
        if contiguous:
            for candidates, kept in joined([flats[index] for index in run]):
                tails = partial(_tails, coins, begin, None)
                _draw_blocks(tails, candidates.numpy(), kept.numpy(), block, threads)
                begin += candidates.numel()
            continue
        for chosen, keep, shard in (rows[index] for index in run):
            drawn = np.empty(chosen.numel(), bool)
            tails = partial(_tails, coins, begin, shard)
            _draw_blocks(tails, np.broadcast_to(True, drawn.shape), drawn, block, threads)
            torch.ge(torch.from_numpy(drawn).view(chosen.shape).to(chosen.device), chosen, out=keep)
            begin += chosen.numel() if shard is None else torch.Size(shard.shape).numel()


def _is_contiguous(row: _Row) -> bool:
    """Whether a whole tensor is on the CPU, with its memory in the order of the flat index."""
    chosen, _, shard = row
    return shard is None and chosen.device.type == "cpu" and chosen.is_contiguous()


def _draw_blocks(
    tails: Callable[[int, int], Array],
    candidates: Array,
    kept: Array,
    block: int,
    threads: int | None,
) -> None:
    """Keep the units that are no candidates, or whose coins show tails."""

    def draw(units: range) -> None:
        for piece in blocks_of(units, block):
            # Of two booleans, >= means: tails, or no candidate.
            np.greater_equal(tails(piece.start, piece.stop), candidates[piece], out=kept[piece])

    in_threads(draw, ranges(len(candidates), block, threads))


def _tails(coins: Coins, begin: int, shard: Shard | None, start: int, stop: int) -> Array:
    """Whether the coins of the units from ``start`` to ``stop`` of a tensor show tails.

    Args:
        coins: of the units of all tensors.
        begin: how many units the earlier tensors have.
        shard: this rank's units of the tensor, which ``start`` and ``stop`` count; None for all.
        start: the first unit.
        stop: the unit after the last.
    """
    offset = 0 if shard is None else shard.first
    if shard is None or offset is not None:
        offset = begin + (offset or 0)
        return coins.tails(offset + start, offset + stop)
    indices = shard.indices_of(np.arange(start, stop))
    first, last = int(indices[0]), int(indices[-1]) + 1
    if last - first <= _WASTE * len(indices):
        return coins.tails(begin + first, begin + last)[indices - first]
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return np.concatenate(
        [coins.tails(begin + int(run[0]), begin + int(run[-1]) + 1) for run in runs]
    )


def heads_on_device(count: int, p: float, generator: torch.Generator) -> torch.Tensor:
    """Flags that are true with probability ``p`` to 32 bits, made without waiting for the device.

    Args:
        count: how many.
        p: the probability, strictly between 0 and 1.
        generator: the source, on the device where the flags are made.
    """
    words = torch.empty(count, dtype=torch.int32, device=generator.device)
    words.random_(-(2**31), None, generator=generator)
    last = round(p * 2**32) - 1 - 2**31  # the largest word that shows heads; p * 2**32 may not fit
    if last < -(2**31):
        return torch.zeros_like(words, dtype=torch.bool)
    return words <= last
