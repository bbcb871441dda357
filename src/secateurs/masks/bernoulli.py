"""Bernoulli draws: which candidates are pruned this time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from secateurs._tensors.blocks import Array, blocks_of, in_threads, ranges
from secateurs._tensors.memory_order import BLOCK, flattened, joined
from secateurs._tensors.philox import Stream
from secateurs.distributed.shard import Shard

# With this many levels in the first comparison, one draw in 256 needs a second look.
_LEVELS = 256
# Where the units here lie scattered, up to so many numbers are made for one that is used.
_WASTE = 32


class Coins:
    """Independent Bernoulli(p) variables, one for each unit, by the unit's number.

    A uniform number is compared with p eight bits at a time: almost every draw is decided by one
    random byte, and the few that tie with p's first byte are decided by 53 further bits, so the
    probability is exact to 2**-61 at an eighth of the random numbers that floats would take.

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

    With a generator on the CPU the outcome depends on the order of the tensors and on the flat
    index, not on devices, memory layouts, threads or ranks. With one on another device the draw is
    made there, in a few launches and without waiting for the host.

    Args:
        keep: bool, overwritten, one tensor for each of ``chosen``, in its shape, on its device and
            in its order of memory. Those that lie side by side are gone through together.
        chosen: bool, True is a candidate.
        p: the probability with which a candidate is pruned.
        generator: the source; not needed for p = 0 or 1.
        placements: for each tensor, which part of the whole it is; None for a whole one. By default
            all are whole.
        block: units drawn together on a CPU.
        threads: how many threads draw at most on a CPU; None chooses by the number of units.
    """
    flats = [(flattened(c), flattened(k)) for c, k in zip(chosen, keep, strict=True)]
    parts = placements or [None] * len(chosen)
    if p in (0.0, 1.0) or generator is None:
        for candidates, kept in joined(flats):
            torch.logical_not(candidates, out=kept) if p else kept.fill_(True)
    elif generator.device.type == "cpu" or any(part is not None for part in parts):
        rows = list(zip(chosen, keep, parts, strict=True))
        _draw_by_index(rows, flats, Coins(p, generator), block, threads)
        # Written by numpy, which torch does not count: who knows these masks must find out.
        torch.autograd.graph.increment_version([k for k in keep if not k.is_inference()])
    else:
        for candidates, kept in joined(flats):
            heads = _heads_on_device(candidates.numel(), p, generator).to(candidates.device)
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
    for run, by_flat_index in _runs(rows):
        if by_flat_index:
            for candidates, kept in joined([flats[i] for i in run]):
                tails = partial(_tails, coins, begin, None)
                _draw_blocks(tails, candidates.numpy(), kept.numpy(), block, threads)
                begin += candidates.numel()
            continue
        for chosen, keep, part in (rows[index] for index in run):
            shown = np.empty(chosen.numel(), bool)
            tails = partial(_tails, coins, begin, part)
            _draw_blocks(tails, np.broadcast_to(True, shown.shape), shown, block, threads)
            torch.ge(torch.from_numpy(shown).view(chosen.shape).to(chosen.device), chosen, out=keep)
            begin += chosen.numel() if part is None else torch.Size(part.shape).numel()


def _runs(rows: Sequence[_Row]) -> Iterator[tuple[list[int], bool]]:
    """Runs of whole tensors on the CPU in memory in the order of the flat index, and of others."""
    run: list[int] = []
    kind = True
    for index, (chosen, _, part) in enumerate(rows):
        plain = part is None and chosen.device.type == "cpu" and chosen.is_contiguous()
        if run and plain != kind:
            yield run, kind
            run = []
        run.append(index)
        kind = plain
    if run:
        yield run, kind


def _draw_blocks(
    tails: Callable[[int, int], Array],
    candidates: Array,
    kept: Array,
    block: int,
    threads: int | None,
) -> None:
    """Keep what is no candidate, or whose coin shows tails."""

    def draw(units: range) -> None:
        for piece in blocks_of(units, block):
            # Of booleans, "at least" says: tails, or no candidate.
            shown = tails(piece.start, piece.stop)
            np.greater_equal(shown, candidates[piece], out=kept[piece])

    in_threads(draw, ranges(len(candidates), block, threads))


def _tails(coins: Coins, begin: int, part: Shard | None, start: int, stop: int) -> Array:
    """Whether the coins of the units from ``start`` to ``stop`` of a tensor show tails.

    Args:
        coins: of the units of all tensors.
        begin: how many units the tensors before have.
        part: which units of the tensor are numbered here from 0; None for all.
        start: the first unit.
        stop: the one behind the last.
    """
    first = 0 if part is None else part.first
    if part is None or first is not None:
        first = begin + (first or 0)
        return coins.tails(first + start, first + stop)
    indices = part.indices_of(np.arange(start, stop))
    first, last = int(indices[0]), int(indices[-1]) + 1
    if last - first <= _WASTE * len(indices):
        return coins.tails(begin + first, begin + last)[indices - first]
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return np.concatenate(
        [coins.tails(begin + int(run[0]), begin + int(run[-1]) + 1) for run in runs]
    )


def _heads_on_device(count: int, p: float, generator: torch.Generator) -> torch.Tensor:
    """Bernoulli(p) to 32 bits, without a choice that would have to wait for the device."""
    words = torch.empty(count, dtype=torch.int32, device=generator.device)
    words.random_(-(2**31), None, generator=generator)
    last = round(p * 2**32) - 1 - 2**31  # at most 2**31 - 1, so it fits where the bound may not
    if last < -(2**31):
        return torch.zeros_like(words, dtype=torch.bool)
    return words <= last
