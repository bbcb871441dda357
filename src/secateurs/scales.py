"""Scales that lie beside quantised weights: a magnitude means nothing without its scale.

Quantised weights of one byte are stored divided by a scale, a tensor beside them: one number, one
for each output channel, or one for each block. What such a weight is worth is the product.
"""

from collections.abc import Collection, Sequence

import torch

from secateurs.errors import InvalidArgumentError

# What is called so beside NAME is multiplied with it: compressed-tensors, fbgemm, DeepSeek, ...
_SCALES = ("{name}_scale", "{name}_scale_inv", "{name}.scale")
_SCALES_OF_WEIGHT = ("{module}scale_weight", "{module}scale", "{module}scales", "{module}SCB")
# With one of these the product is not all.
_FURTHER = ("{name}_scale_2", "{name}_global_scale", "{name}_zero_point", "{name}.absmax")
_FURTHER_OF_WEIGHT = ("{module}qzeros", "{module}zeros")
_POWERS = tuple(2**i for i in range(3, 14))


def scale_name(name: str, names: Collection[str]) -> str | None:
    """The name of the scale that lies beside a weight, if there is one.

    Args:
        name: the weight.
        names: everything beside it, under names of the same form.
    """
    return _first(name, names, _SCALES, _SCALES_OF_WEIGHT)


def further_name(name: str, names: Collection[str]) -> str | None:
    """The name of what makes a weight more than itself times its scale, if there is such."""
    return _first(name, names, _FURTHER, _FURTHER_OF_WEIGHT)


def scale_steps(
    name: str,
    shape: Sequence[int],
    scale: Sequence[int],
    block: Sequence[int] | None = None,
    *,
    outputs_last: bool = False,
) -> tuple[int, ...]:
    """For how many neighbours in each dimension one number of the scale holds.

    Args:
        name: the weight, for the error.
        shape: its shape.
        scale: the shape of its scale.
        block: the size of a block in the last dimensions, if it is known.
        outputs_last: whether the weight is (in, out): a scale of one dimension is one number for
            each output.

    Raises:
        InvalidArgumentError: the shapes do not say it.

    Example:
        >>> scale_steps("fc.weight", (64, 32), (64, 1))
        (1, 32)
        >>> scale_steps("fc.weight", (256, 200), (2, 2), block=(128, 128))
        (128, 128)
    """
    count = torch.Size(scale).numel()
    if count == 1:
        return tuple(shape)
    if len(scale) == 1 and len(shape) == 2 and outputs_last:
        if scale[0] != shape[1]:
            raise _unclear(name, shape, scale)
        return shape[0], 1
    if len(scale) == 1 and scale[0] == shape[0]:
        return 1, *shape[1:]
    if len(scale) != len(shape):
        raise _unclear(name, shape, scale)
    known = [0] * (len(shape) - len(block or ())) + list(block or ())
    steps = [_step(*sizes) for sizes in zip(shape, scale, known, strict=False)]
    if not all(steps):
        raise _unclear(name, shape, scale)
    return tuple(steps)


def spread(scale: torch.Tensor, shape: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    """A scale in the shape of its weight, float32.

    Args:
        scale: one number, one a row, or one a block.
        shape: the weight's shape.
        steps: what `scale_steps` gave.
    """
    sizes = [-(-size // step) for size, step in zip(shape, steps, strict=True)]
    wide = scale.detach().float().reshape(sizes)
    for dimension, (size, step) in enumerate(zip(shape, steps, strict=True)):
        if step > 1 and sizes[dimension] > 1:
            wide = wide.repeat_interleave(step, dimension).narrow(dimension, 0, size)
    return wide.expand(*shape)


def _first(
    name: str, names: Collection[str], of_all: Sequence[str], of_weight: Sequence[str]
) -> str | None:
    module = name.removesuffix("weight")
    patterns = (*of_all, *(of_weight if module != name else ()))
    found = (pattern.format(name=name, module=module) for pattern in patterns)
    return next((one for one in found if one in names), None)


def _step(size: int, count: int, block: int) -> int:
    """How many of ``size`` neighbours share one of ``count`` numbers; 0 if that is unclear."""
    if count == 1:
        return size
    if not 0 < count <= size:
        return 0
    if block > 0:
        return block if -(-size // block) == count else 0
    possible = {power for power in _POWERS if -(-size // power) == count}
    if size % count == 0:
        possible.add(size // count)
    return possible.pop() if len(possible) == 1 else 0


def _unclear(name: str, shape: Sequence[int], scale: Sequence[int]) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{name[:80]} of shape {tuple(shape)} has a scale of shape {tuple(scale)}, which is not "
        "one number, nor one for each row, nor one for each block of a known size: dequantise it "
        f"first, or write exclude={name[:80]!r}"
    )
