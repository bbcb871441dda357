"""Weights that are computed from other tensors, by parametrizations, hooks or properties."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateurs._io.text import listed
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.layer_kinds import Classes, KindOf, weight_attributes
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.patterns import excluding, globs
from secateurs.parameters.target import Target

_CALLS = {
    "a parametrization": "torch.nn.utils.parametrize.remove_parametrizations",
    "the hook of torch.nn.utils.weight_norm": "torch.nn.utils.remove_weight_norm",
    "the hook of torch.nn.utils.spectral_norm": "torch.nn.utils.remove_spectral_norm",
    "torch.nn.utils.prune": "torch.nn.utils.prune.remove",
}
_OTHERWISE = "its module"


@dataclass(frozen=True)
class Computed:
    """A weight that is computed from other tensors, and so is no parameter.

    Attributes:
        target: the weight as if it were a parameter.
        layer: the qualified name of its module; empty for the model itself.
        way: what computes it.
        sources: the parameters it is computed from, as (id of the module, attribute); empty if
            unknown.
    """

    target: Target
    layer: str
    way: str
    sources: tuple[tuple[int, str], ...] = ()

    @property
    def name(self) -> str:
        """Its qualified name."""
        return self.target.name


def computed_weights(contents: ModelContents, classes: Classes) -> Iterator[Computed]:
    """Yield the computed weights of a model.

    Args:
        contents: of the network.
        classes: layers whose weights are computed if they are no parameters. Of other modules, what
            parametrizations and hooks compute is found.
    """
    is_layer = KindOf(classes)
    for layer, module in contents.modules:
        attributes = weight_attributes(module) if is_layer[type(module)] else ()
        absent = [a for a in attributes if a not in module._parameters]
        found = {attribute: (way, sources) for attribute, way, sources in _known(module)}
        found |= {a: (_OTHERWISE, []) for a in absent if a not in found and hasattr(module, a)}
        for attribute, (way, sources) in found.items():
            name = f"{layer}.{attribute}" if layer else attribute
            value = getattr(module, attribute)
            parameter: Any = value if isinstance(value, torch.Tensor) else None
            target = Target(name, parameter, ((module, attribute),), (name,))
            yield Computed(target, layer, way, tuple(sources))


def _known(module: nn.Module) -> Iterator[tuple[str, str, list[tuple[int, str]]]]:
    if "parametrizations" in module._modules and is_parametrized(module):
        lists: Any = module.parametrizations
        for attribute, held in lists.items():
            yield attribute, "a parametrization", [(id(held), name) for name in held._parameters]
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            parts = [(id(module), f"{hook.name}_{part}") for part in ("g", "v")]
            yield hook.name, "the hook of torch.nn.utils.weight_norm", parts
        elif isinstance(hook, SpectralNorm):
            source = (id(module), f"{hook.name}_orig")
            yield hook.name, "the hook of torch.nn.utils.spectral_norm", [source]
        elif isinstance(hook, BasePruningMethod):
            attribute: str = hook._tensor_name
            yield attribute, "torch.nn.utils.prune", [(id(module), f"{attribute}_orig")]


def computed_error(found: Sequence[Computed], others: Collection[str]) -> InvalidArgumentError:
    """The error for chosen weights that are computed, with a remedy for each cause.

    Args:
        found: at least one.
        others: names of parameters that the suggested ``exclude`` must not match.
    """
    by_way: dict[str, list[Computed]] = {}
    for one in found:
        by_way.setdefault(one.way, []).append(one)
    layers = list(dict.fromkeys(one.layer or one.name for one in found))
    exclusion = excluding(layers, others)
    calls = ", ".join(dict.fromkeys(_call(group) for group in by_way.values()))
    if len(found) == 1:
        return InvalidArgumentError(
            f"{found[0].name} is not a parameter but computed by {found[0].way}: make it "
            f"permanent with {calls}, or write ",
            exclusion,
        )
    said = "; ".join(
        f"by {way} {listed(globs([one.name for one in group]))}" for way, group in by_way.items()
    )
    return InvalidArgumentError(
        f"{len(found)} weights are not parameters but computed ({said}): make each permanent with "
        f"{calls}, or write ",
        exclusion,
    )


def _call(group: Sequence[Computed]) -> str:
    """The call that makes such a weight an ordinary parameter."""
    one = group[0]
    attribute = one.target.attribute
    if one.way not in _CALLS:
        return f"module.{attribute} = nn.Parameter(...) in an ordinary layer"
    if len(group) > 1:
        return f"{_CALLS[one.way]}(module, {attribute!r})"
    module = f"model.get_submodule({one.layer!r})" if one.layer else "model"
    return f"{_CALLS[one.way]}({module}, {attribute!r})"
