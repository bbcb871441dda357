"""Keys of tensors on an accelerator, with few large operations and few waits for the device."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from secateurs._tensors.float_keys import Scores, key_of
from secateurs._tensors.memory_order import flattened

_BLOCK = 1 << 24
"""Elements in one operation; with few, launching the operation would take longer than it does."""


def device_blocks(
    scores: Iterable[Scores], dtype: torch.dtype, size: int = _BLOCK
) -> Iterator[torch.Tensor]:
    """Yield all keys in blocks, joining as many tensors as one block can hold.

    Yields:
        Flat tensors of keys, each on one device. The keys of tensors on one device come in the
        order of ``scores``.
    """
    kinds: dict[tuple[torch.device, bool], list[torch.Tensor]] = {}
    for one in scores:
        kind = (one.values.device, one.absolute)
        kinds.setdefault(kind, []).append(flattened(one.values))
    for (_, absolute), flats in kinds.items():
        block: list[torch.Tensor] = []
        room = size
        for flat in flats:
            for start in range(0, flat.numel(), size):
                piece = flat[start : start + size]
                if piece.numel() > room:
                    yield joined_keys(block, dtype, absolute=absolute)
                    block, room = [], size
                block.append(piece)
                room -= piece.numel()
        if block:
            yield joined_keys(block, dtype, absolute=absolute)


def joined_keys(
    flats: Sequence[torch.Tensor], dtype: torch.dtype, *, absolute: bool
) -> torch.Tensor:
    """The keys of flat tensors on one device, one after the other."""
    flat = flats[0] if len(flats) == 1 else torch.cat([piece.to(dtype) for piece in flats])
    return key_of(flat, dtype, absolute=absolute)


def fetched(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copy flat tensors to the CPU, waiting once for each device and dtype."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype), []).append(index)
    found: dict[int, torch.Tensor] = {}
    for indices in groups.values():
        sizes = [tensors[index].numel() for index in indices]
        together = torch.cat([tensors[index].reshape(-1) for index in indices]).cpu()
        found |= dict(zip(indices, together.split(sizes), strict=True))
    return [found[index] for index in range(len(tensors))]
