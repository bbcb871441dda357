"""What goes into layers, for the criteria that read it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from secateurs.parameters.weight_matrix import WeightMatrix

_KEY = "_secateurs_inputs"


@dataclass(frozen=True)
class LayerInputs:
    """The second moments of what goes into a layer.

    Attributes:
        moment: the mean of x x^T, (groups, inputs, inputs), in float64; an input of a convolution
            is one position of the kernel in one channel.
        layout: which elements of the weight meet which inputs.
    """

    moment: Tensor
    layout: WeightMatrix = field(default_factory=WeightMatrix)

    def spread(self, values: Tensor, weight: Tensor) -> Tensor:
        """Bring one value for each input, (groups, inputs), to each element of the weight."""
        groups, inputs = values.shape
        outputs = weight.numel() // max(groups * inputs, 1)
        return self.layout.weight(values[:, None].expand(groups, outputs, inputs), weight.shape)

    def inverse_diagonal(self) -> Tensor:
        """The diagonal of (H + lambda I)^-1, see `damped`, whose ``damping`` is 0.01."""
        factor = torch.linalg.cholesky(damped(self.moment, 0.01)[0])
        return torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)


def damped(hessian: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """H + lambda I for each group, and lambda: ``damping`` times the mean of H's diagonal."""
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    extra = damping * diagonal.mean(-1)
    # If all inputs are zero, any weights give the same outputs; with lambda = 1 they keep theirs.
    extra = torch.where(extra > 0, extra, torch.ones_like(extra))
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return hessian + extra[:, None, None] * eye, extra


def attach_inputs(module: nn.Module, attribute: str, inputs: LayerInputs) -> None:
    """Give a module what goes into it, for `Target.inputs` of the parameter ``attribute``."""
    vars(module).setdefault(_KEY, {})[attribute] = inputs


def attached_inputs(module: nn.Module, attribute: str) -> LayerInputs | None:
    """What `attach_inputs` gave a module; None if it gave nothing, or it was taken away."""
    return vars(module).get(_KEY, {}).get(attribute)


def detach_inputs(module: nn.Module) -> None:
    """Take away what `attach_inputs` gave a module."""
    vars(module).pop(_KEY, None)
