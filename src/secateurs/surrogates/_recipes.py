"""Recipes: the settings of published methods, each with its source and its equation."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.layer_kinds import Classes, Conv1D, Experts
from secateurs.surrogates._mup import MUP
from secateurs.surrogates.diversified import Diversified
from secateurs.surrogates.module_proxy import ModuleProxy

_NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_FULLY_CONNECTED = (nn.Linear, nn.MultiheadAttention)
# Classes of other packages are recognised by name, so their actual types are listed one by one.
_OTHER_PACKAGES: Classes = (Conv1D, Experts)


def dwp(
    model: nn.Module, p_prune: float = 0.3, p_bern: float = 0.5, *, seed: int = 0, **options: Any
) -> Diversified:
    r"""Diversified Weight Pruning (arXiv 2208.08677, section 3.2).

    .. math:: g = \nabla_x J(f(x;\, (1 - C_{p} \odot b) \odot \theta)), \quad
              C_p = [\,|\theta| \text{ among the } p\,n \text{ smallest}\,], \quad
              b \sim \mathrm{Bernoulli}(p_{bern})

    with a fresh b at each call: the smallest ``p_prune`` of all convolution and linear weights are
    candidates, and each is pruned with probability ``p_bern``.

    Args:
        model: the network.
        p_prune: the ratio of weights that are candidates.
        p_bern: the probability with which a candidate is pruned.
        seed: of the draws.
        **options: the other arguments of `Diversified`.

    Returns:
        The surrogate.

    Raises:
        InvalidArgumentError: as `Diversified`.

    Example:
        >>> import torch
        >>> surrogate = dwp(torch.nn.Linear(8, 4), p_prune=0.5, seed=1)
        >>> surrogate(torch.ones(2, 8)).shape
        torch.Size([2, 4])
    """
    return Diversified(model, p_prune, p_bern, seed=seed, **options)


def rapa(model: nn.Module, p_bern: float = 0.05, *, seed: int = 0, **options: Any) -> Diversified:
    r"""Random Parameter Pruning Attack (arXiv 2504.18594).

    .. math:: g = \nabla_x J(f(x;\, (1 - b) \odot \theta_S,\ \theta_{\bar S})), \quad
              b \sim \mathrm{Bernoulli}(p_{bern})

    where S are all parameters of normalisation and fully connected layers, weights and biases. Each
    is a candidate (p_prune = 1), whatever its magnitude, and few are pruned. The paper takes
    p_bern = 0.05 for ResNet-50, 0.04 for DenseNet-121, 0.02 for Inception-v3 and 0.01 for vision
    transformers, and in each step the mean gradient of several draws.

    Beyond the paper: if a network has neither kind of layer and its logits come from a 1 x 1
    convolution, as in SqueezeNet, that convolution counts as its fully connected layer.

    Args:
        model: the network.
        p_bern: the probability with which a parameter is pruned.
        seed: of the draws.
        **options: the other arguments of `Diversified`; ``include`` names other parameters.

    Returns:
        The surrogate.

    Raises:
        InvalidArgumentError: as `Diversified`, or the network has no such layer.

    Example:
        >>> import torch
        >>> surrogate = rapa(torch.nn.Linear(8, 4), p_bern=0.1)
        >>> [target.name for target in surrogate.targets]
        ['weight', 'bias']
    """
    if "include" not in options:
        options["include"] = _normalisation_and_fully_connected(model)
    options.setdefault("layers", "all")
    return Diversified(model, 1.0, p_bern, seed=seed, **options)


def mup(
    model: nn.Module, p_prune: float = 0.15, p_bern: float = 1.0, *, seed: int = 0, **options: Any
) -> MUP:
    r"""Masking Unimportant Parameters (Yang et al. 2023, arXiv 2304.06908).

    .. math:: g = \nabla_x J(f(x;\, (1 - C_p) \odot \theta)), \quad
              C_p = \left[\,\left|\theta \cdot \tfrac{\partial J(f(x; \theta))}{\partial \theta}
              \right| \text{ among the } p\,n_l \text{ smallest of layer } l\,\right]

    The candidates are chosen anew for each draw, at the input of the call, and all are pruned. J is
    the cross-entropy of the classes that `MUP.aim` set, else of the classes that the dense model
    predicts. The paper scores weights by one image; here scores are summed over the batch, so a
    batch of one image gives those of the paper.

    Args:
        model: the network.
        p_prune: the ratio of each layer's weights that are masked; 0.15 in the paper.
        p_bern: the probability with which a candidate is pruned; 1 in the paper.
        seed: of the draws.
        **options: the other arguments of `Diversified`, without ``score``.

    Returns:
        The surrogate.

    Raises:
        InvalidArgumentError: as `Diversified`.

    Example:
        >>> import torch
        >>> surrogate = mup(torch.nn.Linear(8, 4), p_prune=0.25)
        >>> _ = surrogate(torch.ones(1, 8))
        >>> surrogate.masks.sparsity
        0.25
    """
    options.setdefault("scope", "layer")
    return MUP(model, p_prune, p_bern, seed=seed, **options)


RECIPES: dict[str, Callable[..., Diversified]] = {"dwp": dwp, "rapa": rapa, "mup": mup}
"""The recipes by name."""


def _normalisation_and_fully_connected(model: nn.Module) -> list[str | type[nn.Module]]:
    model = model.network if isinstance(model, ModuleProxy) else model
    named = [(name, m) for name, m in model.named_modules() if [*m.parameters(recurse=False)]]
    kinds = (*_NORMALISATIONS, *_FULLY_CONNECTED)
    present = [kind for kind in kinds if any(isinstance(m, kind) for _, m in named)]
    others = dict.fromkeys(type(m) for _, m in named if isinstance(m, _OTHER_PACKAGES))
    if present or others:
        return [*present, *others]
    if named and isinstance(named[-1][1], nn.Conv2d) and named[-1][1].kernel_size == (1, 1):
        return [f"{named[-1][0]}.*" if named[-1][0] else "*"]
    raise InvalidArgumentError(
        f"{type(model).__name__} has no normalisation and no fully connected layer for rapa to "
        "prune: name parameters with ",
        Argument("include"),
        ", or use dwp",
    )
