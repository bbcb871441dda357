"""Draws over ranks: each draws for the units that lie with it, by their numbers in the whole."""

from collections.abc import Sequence

import numpy as np
import torch

from secateurs._tensors.blocks import in_threads, ranges
from secateurs.distributed.dtensor import local_of
from secateurs.distributed.shard import Array, Shard, shard_of
from secateurs.masks.bernoulli import Coins

_BLOCK = 1 << 18
# Where the units here lie scattered, up to so many numbers are made for one that is used.
_WASTE = 32


def draw_parts(
    keep: Sequence[torch.Tensor],
    chosen: Sequence[torch.Tensor],
    p: float,
    generator: torch.Generator,
) -> None:
    """Keep what is no candidate, and each candidate with probability ``1 - p``.

    The outcome is that of `secateurs.masks.bernoulli.draw_into` with a generator on the CPU, over
    the whole tensors in one process.

    Args:
        keep: bool, overwritten; lies as ``chosen`` does.
        chosen: bool, True is a candidate; DTensors, or tensors that every rank has whole.
        p: strictly between 0 and 1.
        generator: gives every rank the same numbers.
    """
    coins, begin = Coins(p, generator), 0
    for candidates, kept in zip(chosen, keep, strict=True):
        _draw_part(local_of(candidates), local_of(kept), shard_of(candidates), begin, coins)
        begin += candidates.numel()


def _draw_part(
    candidates: torch.Tensor, kept: torch.Tensor, shard: Shard, begin: int, coins: Coins
) -> None:
    here = kept.device.type == "cpu" and kept.is_contiguous() and candidates.is_contiguous()
    drawn = kept.view(-1).numpy() if here else np.empty(candidates.numel(), bool)
    among = candidates.view(-1).numpy() if here else np.zeros(1, bool)

    def draw(part: range) -> None:
        for start in range(part.start, part.stop, _BLOCK):
            stop = min(start + _BLOCK, part.stop)
            tails = _tails(shard, start, stop, begin, coins)
            # Of booleans, "at least" says: tails, or no candidate.
            np.greater_equal(tails, among[start:stop] if here else among, out=drawn[start:stop])

    in_threads(draw, ranges(len(drawn)))
    if not here:
        shown = torch.from_numpy(drawn).view(candidates.shape).to(candidates.device)
        torch.ge(shown, candidates, out=kept)


def _tails(shard: Shard, start: int, stop: int, begin: int, coins: Coins) -> Array:
    if shard.first is not None:
        first = begin + shard.first
        return coins.tails(first + start, first + stop)
    places = shard.places(start, stop)
    first, last = int(places[0]), int(places[-1]) + 1
    if last - first <= _WASTE * len(places):
        return coins.tails(begin + first, begin + last)[places - first]
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return np.concatenate(
        [coins.tails(begin + int(run[0]), begin + int(run[-1]) + 1) for run in runs]
    )
