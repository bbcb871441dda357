"""Scales of quantised weights, found by their names.

Quantised weights of one byte are stored divided by a scale, which is another tensor of the module:
one number, one for each output channel, or one for each block. The real weight is the product.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from secateurs.errors import Argument, InvalidArgumentError

# Names of the scale of a weight, as in compressed-tensors, fbgemm, DeepSeek and others.
_SCALES = ("{name}_scale", "{name}_scale_inv", "{name}.scale")
_SCALES_OF_WEIGHT = ("{module}scale_weight", "{module}scale", "{module}scales", "{module}SCB")
# If one of these exists, the weight is more than a product with its scale.
_FURTHER = ("{name}_scale_2", "{name}_global_scale", "{name}_zero_point", "{name}.absmax")
_FURTHER_OF_WEIGHT = ("{module}qzeros", "{module}zeros")
# Words in the names of scales of unknown kinds, and beginnings of names of other scales.
_SCALING = ("scal", "amax", "absmax")
_NOT_OF_WEIGHTS = (
    "input", "output", "act", "in_", "out_", "x_", "q_", "k_", "v_", "kv_", "prob", "logit", "bias",
)  # fmt: skip
_POWERS = tuple(2**i for i in range(3, 14))


def scale_name(name: str, names: Collection[str]) -> str | None:
    """The name of a weight's scale among the names of all tensors, if there is one."""
    return _first(name, names, _SCALES, _SCALES_OF_WEIGHT)


def further_name(name: str, names: Collection[str]) -> str | None:
    """The name of a tensor, if any, that makes a weight more than a product with its scale."""
    return _first(name, names, _FURTHER, _FURTHER_OF_WEIGHT)


def is_quantised(tensor: torch.Tensor | None) -> bool:
    """Whether a tensor is a weight that may have a scale: one byte per element, and no mask."""
    if tensor is None or tensor.dtype == torch.bool or tensor.dtype.itemsize != 1:
        return False
    lazy = isinstance(tensor, UninitializedParameter | UninitializedBuffer)
    return not lazy and tensor.dim() > 1


def scaling_names(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that look like scales, grouped by the name of their module."""
    found: dict[str, list[str]] = {}
    for name in names:
        module, dot, attribute = name.rpartition(".")
        if any(word in attribute.lower() for word in _SCALING):
            found.setdefault(module + dot, []).append(name)
    return found


def unknown_name(name: str, scaling: Mapping[str, Sequence[str]]) -> str | None:
    """The name of a tensor, if any, that seems to be a weight's scale of an unknown kind.

    ``name`` is a weight that has no scale of a known kind, ``scaling`` the `scaling_names`.
    """
    module, dot, attribute = name.rpartition(".")
    for one in scaling.get(module + dot, ()):
        other = one.removeprefix(module + dot).lower()
        of_all = attribute == "weight" and not other.startswith(_NOT_OF_WEIGHTS)
        if one != name and (of_all or other.startswith(attribute.lower())):
            return one
    return None


def scales_of(weights: Iterable[str], names: Collection[str]) -> set[str]:
    """The names of all scales of quantised weights, of known and unknown kinds."""
    scaling = scaling_names(names)
    found: set[str | None] = set()
    for name in weights:
        found |= {scale_name(name, names), further_name(name, names), unknown_name(name, scaling)}
    return {name for name in found if name is not None}


def scale_steps(
    name: str,
    shape: Sequence[int],
    scale: Sequence[int],
    block: Sequence[int] | None = None,
    *,
    outputs_last: bool = False,
) -> tuple[int, ...]:
    """How many neighbouring elements in each dimension share one number of the scale.

    Args:
        name: of the weight, for the error.
        shape: of the weight.
        scale: the shape of its scale.
        block: the size of a block in the last dimensions, if it is known.
        outputs_last: whether the weight is (in, out); a scale of one dimension has one number for
            each output.

    Raises:
        InvalidArgumentError: the shapes fit no kind of scale, or several.

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
    """Expand a scale to the shape of its weight, in float32; ``steps`` is from `scale_steps`."""
    sizes = [-(-size // step) for size, step in zip(shape, steps, strict=True)]
    wide = scale.detach().float().reshape(sizes)
    for dimension, (size, step) in enumerate(zip(shape, steps, strict=True)):
        if step > 1 and sizes[dimension] > 1:
            wide = wide.repeat_interleave(step, dimension).narrow(dimension, 0, size)
    return wide.expand(*shape)


def _first(
    name: str, names: Collection[str], of_all: Sequence[str], of_weight: Sequence[str]
) -> str | None:
    """The first name that a pattern makes of a weight's name and that is among ``names``."""
    module = name.removesuffix("weight")
    patterns = (*of_all, *(of_weight if module != name else ()))
    found = (pattern.format(name=name, module=module) for pattern in patterns)
    return next((one for one in found if one in names), None)


def _step(size: int, count: int, block: int) -> int:
    """How many of ``size`` neighbours share one of ``count`` numbers; 0 if unclear."""
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
        "first, or write ",
        Argument("exclude", name),
    )
