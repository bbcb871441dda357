"""How others prune a share of all convolution weights; each function prunes one fresh model.

Those whose package is not installed are left out. What each does differently stands beside it.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

Peer = Callable[[nn.Module, float], object]


def convolutions(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def original_method(model: nn.Module, ratio: float, p_bern: float = 1.0) -> None:
    """The method as it was first written down: sort everything, compare, draw, multiply.

    Prunes what is less than the k-th smallest: nothing of what ties with it.
    """
    weights = [module.weight for module in convolutions(model)]
    with torch.no_grad():
        ranked = torch.cat([weight.abs().flatten() for weight in weights]).sort().values
        threshold = ranked[round(ratio * len(ranked))]
        for weight in weights:
            candidates = (weight.abs() < threshold).float()
            drawn = torch.bernoulli(torch.full_like(weight, p_bern))
            weight.mul_(1 - candidates * drawn)


def torch_prune(model: nn.Module, ratio: float) -> None:
    """Concatenates, calls topk, and installs masks, hooks and renamed parameters."""
    pairs = [(module, "weight") for module in convolutions(model)]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=ratio)


def kthvalue(model: nn.Module, ratio: float) -> list[torch.Tensor]:
    """Concatenates, calls kthvalue, compares: more than k where scores tie."""
    weights = [module.weight.detach() for module in convolutions(model)]
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
    threshold = magnitudes.kthvalue(max(round(ratio * magnitudes.numel()), 1)).values
    return [weight.abs() <= threshold for weight in weights]


def nncf_prune(model: nn.Module, ratio: float) -> Any:
    """NNCF: scores normalised layer by layer, kthvalue, and a traced model with hooks."""
    import nncf

    mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL
    dtype = next(model.parameters()).dtype
    images = torch.rand(1, 3, 64, 64, dtype=dtype)
    return nncf.prune(model, mode=mode, ratio=ratio, examples_inputs=images)


def fasterai_prune(model: nn.Module, ratio: float) -> None:
    """Fasterai's sparsifier: a global threshold, masks as buffers, weights multiplied."""
    from fasterai.core.criteria import large_final
    from fasterai.sparse.sparsifier import Sparsifier

    Sparsifier(model, "weight", "global", large_final).sparsify_model(ratio)


def installed() -> dict[str, Peer]:
    """The peers that can run here, by name."""
    found: dict[str, Peer] = {
        "concatenation + kthvalue": kthvalue,
        "the original method": original_method,
        "torch.nn.utils.prune": torch_prune,
    }
    if importlib.util.find_spec("nncf"):
        found["nncf.prune"] = nncf_prune
    if importlib.util.find_spec("fasterai"):
        found["fasterai Sparsifier"] = fasterai_prune
    return found
