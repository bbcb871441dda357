"""Masks of the scores below a threshold, and of the earliest that equal it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from secateurs.blocks import Array, Span, key_blocks, numpy_integer, share_out
from secateurs.keys import Scores, key_of
from secateurs.layout import flattened, inverse, pieces, storage_order


def mark_below(
    scores: Sequence[Scores], dtype: torch.dtype, key: int, *, inclusive: bool
) -> list[torch.Tensor]:
    """Mark the scores whose key is below ``key``, or equals it if ``inclusive``.

    Args:
        scores: the tensors.
        dtype: the float format that ``key`` is of.
        key: the threshold.
        inclusive: whether equal scores are marked too.

    Returns:
        One bool tensor for each of ``scores``, in its shape, laid out in memory as it is.
    """
    masks = [_mask_like(s.values) for s in scores]
    flats = [(flattened(s.values), s.absolute) for s in scores]
    marked = [flattened(mask) for mask in masks]

    def mark_share(spans: Sequence[Span]) -> None:
        for span in spans:
            _mark_span(span, marked[span.index].numpy(), dtype, key, inclusive)

    shares = share_out(flats, torch.get_num_threads())
    with ThreadPoolExecutor(len(shares)) as pool:
        list(pool.map(mark_share, shares))
    for (flat, absolute), out in zip(flats, marked, strict=True):
        if flat.device.type != "cpu":
            compare = torch.le if inclusive else torch.lt
            for piece in pieces(flat):
                compare(key_of(flat[piece], dtype, absolute=absolute), key, out=out[piece])
    return masks


def mark_ties(mask: torch.Tensor, scores: Scores, dtype: torch.dtype, key: int, most: int) -> int:
    """Mark also the scores that equal ``key``, at most ``most``, by flat index.

    Returns:
        How many were marked.
    """
    flat, taken = scores.values.reshape(-1), 0
    for piece in pieces(flat):
        if taken == most:
            break
        tied = key_of(flat[piece], dtype, absolute=scores.absolute) == key
        places = tied.nonzero().reshape(-1)[: most - taken] + piece.start
        mask[torch.unravel_index(places, mask.shape)] = True
        taken += places.numel()
    return taken


def _mask_like(values: torch.Tensor) -> torch.Tensor:
    """An empty mask in the same order of memory, so that both are gone through side by side."""
    order = storage_order(values)
    # Not empty_like: it orders the dimensions of overlapping scores otherwise.
    shape = values.permute(order).shape
    return torch.empty(shape, dtype=torch.bool, device=values.device).permute(inverse(order))


def _mark_span(span: Span, out: Array, dtype: torch.dtype, key: int, inclusive: bool) -> None:
    compare = np.less_equal if inclusive else np.less
    threshold, place = numpy_integer(dtype).type(key), span.start
    for keys in key_blocks([span], dtype):
        compare(keys, threshold, out=out[place : place + len(keys)])
        place += len(keys)
