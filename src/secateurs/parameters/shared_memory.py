"""Finds parameters that share memory, by the addresses of their elements."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from secateurs.errors import InvalidArgumentError
from secateurs.parameters.target import Target


class _Span(NamedTuple):
    """The bytes from a tensor's first element to its last."""

    name: str
    tensor: torch.Tensor
    start: int
    stop: int


def refuse_overlaps(targets: Sequence[Target], kept: Sequence[Target] = ()) -> None:
    """Refuse two parameters that share elements: pruning one would change the other.

    Slices of one buffer without common elements, as flattened optimizers and FSDP make them, are
    fine.

    Args:
        targets: the parameters that compete.
        kept: parameters that must not change; these may share elements with each other.

    Raises:
        InvalidArgumentError: two parameters share elements.
    """
    names = {target.name for target in kept}
    for first, second in _overlapping(_spans((*targets, *kept))):
        if not {first.name, second.name} <= names and _share(first, second):
            raise InvalidArgumentError(
                f"{first.name} and {second.name} are views of the same memory, so one cannot be "
                f"pruned without the other: give {second.name} memory of its own "
                "(nn.Parameter(weight.detach().clone())), or let both modules hold one Parameter, "
                "which is pruned once"
            )


def _spans(targets: Sequence[Target]) -> list[_Span]:
    spans: list[_Span] = []
    for target in targets:
        try:
            tensor = target.local
            start = tensor.data_ptr()
        except Exception:  # noqa: S112 - sparse, packed or not initialised: no addresses
            continue
        if start and tensor.numel():
            spans.append(_Span(target.name, tensor, start, start + _reach(tensor)))
    return spans


def _reach(tensor: torch.Tensor) -> int:
    """Bytes from the first element to the end of the last."""
    if tensor.is_contiguous():
        return tensor.numel() * tensor.element_size()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * tensor.element_size()


def _overlapping(spans: list[_Span]) -> Iterator[tuple[_Span, _Span]]:
    """Pairs whose ranges of addresses overlap; mostly none."""
    spans.sort(key=lambda span: span.start)
    for index, first in enumerate(spans):
        for later in range(index + 1, len(spans)):
            second = spans[later]
            if second.start >= first.stop:
                break
            if second.tensor.device == first.tensor.device:
                yield first, second


def _share(first: _Span, second: _Span) -> bool:
    """Whether a byte belongs to both: columns of one matrix do not share any."""
    start = min(first.start, second.start)
    marks = torch.zeros(max(first.stop, second.stop) - start, dtype=torch.bool, device="cpu")
    _bytes_of(first, marks, start).fill_(True)
    return bool(_bytes_of(second, marks, start).any())


def _bytes_of(span: _Span, marks: torch.Tensor, start: int) -> torch.Tensor:
    size = span.tensor.element_size()
    steps = zip(span.tensor.shape, span.tensor.stride(), strict=True)
    used = [(count, stride * size) for count, stride in steps if stride]  # not what expand repeats
    shape, strides = [count for count, _ in used], [stride for _, stride in used]
    return marks.as_strided([*shape, size], [*strides, 1], span.start - start)
