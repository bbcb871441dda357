"""Bernoulli draws: which candidates are pruned this time."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from secateurs._tensors.blocks import Array, blocks_of, in_threads, ranges
from secateurs._tensors.memory_order import BLOCK, flattened, joined, storage_order
from secateurs._tensors.philox import Stream

# With this many levels in the first comparison, one draw in 256 needs a second look.
_LEVELS = 256


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
    *,
    block: int = BLOCK,
    threads: int | None = None,
) -> None:
    """Keep every unit that is no candidate, and each candidate with probability ``1 - p``.

    With a generator on the CPU the outcome depends on the order of the tensors and on the flat
    index, not on devices, memory layouts or threads. With one on another device the draw is made
    there, in a few launches and without waiting for the host.

    Args:
        keep: bool, overwritten, one tensor for each of ``chosen``, in its shape, on its device and
            in its order of memory. Those that lie side by side are gone through together.
        chosen: bool, True is a candidate.
        p: the probability with which a candidate is pruned.
        generator: the source; not needed for p = 0 or 1.
        block: units drawn together on a CPU.
        threads: how many threads draw at most on a CPU; None chooses by the number of units.
    """
    flats = [(flattened(c), flattened(k)) for c, k in zip(chosen, keep, strict=True)]
    if p in (0.0, 1.0) or generator is None:
        for candidates, kept in joined(flats):
            torch.logical_not(candidates, out=kept) if p else kept.fill_(True)
    elif generator.device.type == "cpu":
        _draw_by_place(chosen, flats, Coins(p, generator), block, threads)
    else:
        for candidates, kept in joined(flats):
            heads = _heads_on_device(candidates.numel(), p, generator).to(candidates.device)
            torch.logical_and(candidates, heads, out=kept).logical_not_()


def _draw_by_place(
    chosen: Sequence[torch.Tensor],
    flats: list[tuple[torch.Tensor, torch.Tensor]],
    coins: Coins,
    block: int,
    threads: int | None,
) -> None:
    begin = 0
    for run, by_flat_index in _runs(chosen):
        if by_flat_index:
            for candidates, kept in joined([flats[i] for i in run]):
                _draw_here(candidates.numpy(), kept.numpy(), begin, coins, block, threads)
                begin += candidates.numel()
            continue
        for tensor, (candidates, kept) in ((chosen[i], flats[i]) for i in run):
            tails = torch.from_numpy(coins.tails(begin, begin + tensor.numel()))
            tails = tails.view(tensor.shape).permute(storage_order(tensor)).reshape(-1)
            torch.ge(tails.to(candidates.device), candidates, out=kept)
            begin += tensor.numel()


def _runs(chosen: Sequence[torch.Tensor]) -> Iterator[tuple[list[int], bool]]:
    """Runs of tensors on the CPU whose order of memory is that of the flat index, and of others."""
    run: list[int] = []
    kind = True
    for index, tensor in enumerate(chosen):
        plain = tensor.device.type == "cpu" and tensor.is_contiguous()
        if run and plain != kind:
            yield run, kind
            run = []
        run.append(index)
        kind = plain
    if run:
        yield run, kind


def _draw_here(
    candidates: Array, kept: Array, begin: int, coins: Coins, block: int, threads: int | None
) -> None:
    def draw(units: range) -> None:
        for piece in blocks_of(units, block):
            tails = coins.tails(begin + piece.start, begin + piece.stop)
            # Of booleans, "at least" says: tails, or no candidate.
            np.greater_equal(tails, candidates[piece], out=kept[piece])

    in_threads(draw, ranges(len(candidates), block, threads))


def _heads_on_device(count: int, p: float, generator: torch.Generator) -> torch.Tensor:
    """Bernoulli(p) to 32 bits, without a choice that would have to wait for the device."""
    words = torch.empty(count, dtype=torch.int32, device=generator.device)
    words.random_(-(2**31), None, generator=generator)
    last = round(p * 2**32) - 1 - 2**31  # at most 2**31 - 1, so it fits where the bound may not
    if last < -(2**31):
        return torch.zeros_like(words, dtype=torch.bool)
    return words <= last
