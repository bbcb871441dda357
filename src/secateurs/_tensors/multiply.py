"""Multiplies weights by masks, bit-exactly and about as fast as copying them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateurs._tensors.blocks import Array, blocks_of, in_threads, ranges
from secateurs._tensors.memory_order import BLOCK, as_integers, storage_order


@dataclass(frozen=True)
class Product:
    """One multiplication: ``target = source * keep``.

    Attributes:
        source: the values.
        keep: bool, broadcasts to the shape of ``source``.
        target: of the dtype, shape and device of ``source``; it is overwritten.
    """

    source: torch.Tensor
    keep: torch.Tensor
    target: torch.Tensor


def multiply(
    products: Sequence[Product], *, block: int = BLOCK, threads: int | None = None
) -> None:
    """Write each source where it is kept, and +0 elsewhere: bit-exact for every float dtype.

    On a CPU, the elements of all tensors are divided over threads, in blocks. On other devices, all
    tensors whose masks need no broadcasting share a few launches.
    """
    on_cpu: list[tuple[Array, Array, Array]] = []
    together: dict[tuple[torch.device, torch.dtype], list[Product]] = {}
    for product in products:
        bits = Product(
            as_integers(product.source),
            product.keep.to(product.source.device),
            as_integers(product.target),
        )
        if bits.source.device.type == "cpu":
            flat = _flat(bits)
            if flat is None:
                np.multiply(bits.source.numpy(), bits.keep.numpy(), out=bits.target.numpy())
            else:
                on_cpu.append(flat)
        elif bits.keep.shape == bits.source.shape:
            together.setdefault((bits.source.device, bits.source.dtype), []).append(bits)
        else:
            torch.mul(bits.source, bits.keep, out=bits.target)
    _multiply_blocks(on_cpu, block, threads)
    for group in together.values():
        multiply_together(group)


def _flat(product: Product) -> tuple[Array, Array, Array] | None:
    """Source, mask and target as flat arrays; None if they differ in their order of memory."""
    source, target = product.source, product.target
    keep = product.keep
    if keep.shape != source.shape:
        keep = keep.expand(source.shape)
    if not (source.is_contiguous() and keep.is_contiguous() and target.is_contiguous()):
        order = storage_order(source)
        source, keep, target = (tensor.permute(order) for tensor in (source, keep, target))
        if not (source.is_contiguous() and keep.is_contiguous() and target.is_contiguous()):
            return None
    # numpy's views cost less than torch's, which matters with many small tensors.
    return source.numpy().reshape(-1), keep.numpy().reshape(-1), target.numpy().reshape(-1)


def _multiply_blocks(
    flats: Sequence[tuple[Array, Array, Array]], block: int, threads: int | None
) -> None:
    # numpy is faster than torch here: it converts the mask block by block in the cache.
    ends = np.cumsum([len(source) for source, _, _ in flats])

    def multiply_range(elements: range) -> None:
        first = int(np.searchsorted(ends, elements.start, side="right"))
        for (source, keep, target), end in zip(flats[first:], ends[first:].tolist(), strict=True):
            begin = end - len(source)
            if begin >= elements.stop:
                break
            mine = range(max(elements.start - begin, 0), min(elements.stop, end) - begin)
            for piece in blocks_of(mine, block):
                np.multiply(source[piece], keep[piece], out=target[piece])

    in_threads(multiply_range, ranges(int(ends[-1]) if len(ends) else 0, block, threads))


def multiply_together(group: Sequence[Product]) -> None:
    """Multiply all tensors by a few operations: a copy, then a product of equal dtypes."""
    targets = [product.target for product in group]
    torch._foreach_copy_(targets, [product.source for product in group])  # pyright: ignore[reportPrivateImportUsage]
    # All masks are converted at once: a product of two dtypes would be one launch per tensor.
    flat = torch.cat([product.keep.reshape(-1) for product in group]).to(targets[0].dtype)
    pieces = flat.split([target.numel() for target in targets])
    factors = [piece.view(target.shape) for piece, target in zip(pieces, targets, strict=True)]
    torch._foreach_mul_(targets, factors)  # pyright: ignore[reportPrivateImportUsage]
