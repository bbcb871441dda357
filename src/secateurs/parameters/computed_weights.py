"""Weights that are computed from other tensors, by parametrizations, hooks or properties."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateurs._io.text import listed
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.patterns import excluding, globs

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
        name: its qualified name.
        layer: the qualified name of its module; empty for the model itself.
        module: the module.
        attribute: its name in the module.
        way: what computes it.
        sources: the parameters it is computed from, as (id of the module, attribute); empty if
            unknown.
    """

    name: str
    layer: str
    module: nn.Module
    attribute: str
    way: str
    sources: tuple[tuple[int, str], ...] = ()


def computed_in(name: str, module: nn.Module, attributes: Sequence[str] = ()) -> Iterator[Computed]:
    """Yield the computed weights of a module.

    Args:
        name: the module's qualified name.
        module: the module.
        attributes: the names of its weights: those that are no parameters are computed.
    """
    before = f"{name}." if name else ""
    known = {attribute: (way, sources) for attribute, way, sources in _known(module)}
    for attribute, (way, sources) in known.items():
        yield Computed(before + attribute, name, module, attribute, way, tuple(sources))
    for attribute in attributes:
        if attribute in known or attribute in module._parameters:
            continue
        if hasattr(module, attribute):
            yield Computed(before + attribute, name, module, attribute, _OTHERWISE)


def may_compute(module: nn.Module) -> bool:
    """Whether a parametrization or a hook of a module may compute a weight: a quick check."""
    return "parametrizations" in module._modules or bool(module._forward_pre_hooks)


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
    layers = list(dict.fromkeys(one.layer or one.attribute for one in found))
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
    if one.way not in _CALLS:
        return f"module.{one.attribute} = nn.Parameter(...) in an ordinary layer"
    if len(group) > 1:
        return f"{_CALLS[one.way]}(module, {one.attribute!r})"
    module = f"model.get_submodule({one.layer!r})" if one.layer else "model"
    return f"{_CALLS[one.way]}({module}, {one.attribute!r})"
