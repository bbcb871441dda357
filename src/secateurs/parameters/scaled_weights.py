"""The real values of a quantised weight: what is stored, times its scale."""

import torch

from secateurs._tensors.quantization_scales import (
    further_name,
    scale_name,
    scale_steps,
    scaling_names,
    spread,
    unknown_name,
)
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.target import Target


def scaled_weight(target: Target) -> torch.Tensor:
    """The weight times the scale that its module holds for it; the weight if there is no scale.

    Raises:
        InvalidArgumentError: the module holds a scale of an unknown kind, or the weight has a
            scale and is divided over ranks.
    """
    weight = target.weight
    module, attribute = target.module, target.attribute
    held = {**vars(module), **module._parameters, **module._buffers}
    beside = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}
    name, further = scale_name(attribute, beside), further_name(attribute, beside)
    if name is None:
        further = further or unknown_name(attribute, scaling_names(beside))
    if further is not None or (name is not None and target.placement is not None):
        raise InvalidArgumentError(
            f"{target.name} is quantised with {further or name} beside it, which is not applied "
            f"{'here' if further else 'over several ranks'}: dequantise it first, or write ",
            Argument("exclude", target.name),
        )
    if name is None:
        return weight
    scale, block = beside[name], getattr(module, "block_size", None)
    known = tuple(block) if isinstance(block, tuple | list) else None
    last = target.outputs_last
    steps = scale_steps(target.name, weight.shape, scale.shape, known, outputs_last=last)
    return weight.float() * spread(scale, weight.shape, steps).to(weight.device)
