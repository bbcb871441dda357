"""Which parameters compete: in order, each Parameter once, chosen by kind and by name."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from secateurs._checks import check_choice, nearest
from secateurs.computed import Computed, computed_error, computed_in, may_compute
from secateurs.errors import InvalidArgumentError
from secateurs.patterns import name_matches, touches
from secateurs.prunable import refuse_unprunable
from secateurs.sharding.presence import settle

ORIGINAL_SUFFIX = "_orig"

_CONVOLUTIONS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv1d": (nn.Conv1d,),
    "conv2d": (nn.Conv2d,),
    "conv3d": (nn.Conv3d,),
    "conv_transpose1d": (nn.ConvTranspose1d,),
    "conv_transpose2d": (nn.ConvTranspose2d,),
    "conv_transpose3d": (nn.ConvTranspose3d,),
}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ALL_CONVOLUTIONS = tuple(cls for classes in _CONVOLUTIONS.values() for cls in classes)
# The output projection of an attention module is a layer of its own, one level below.
_ATTENTION = (nn.MultiheadAttention, NonDynamicallyQuantizableLinear)
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    **_CONVOLUTIONS,
    "conv": _ALL_CONVOLUTIONS,
    "linear": (nn.Linear,),
    "attention": _ATTENTION,
    "default": (*_ALL_CONVOLUTIONS, nn.Linear, *_ATTENTION),
}
LAYER_NAMES = (*KINDS, "all")

Layers = str | type[nn.Module] | Sequence[str | type[nn.Module]]
Patterns = str | type[nn.Module] | Sequence[str | type[nn.Module]]


@dataclass(frozen=True)
class Target:
    """One parameter that competes for pruning.

    Attributes:
        name: its first qualified name in ``model.named_parameters()``.
        parameter: the ``nn.Parameter`` itself, pruned or not.
        places: every (module, attribute) that holds this parameter; tied weights have several.
        names: every qualified name, the first included; shared modules have several.
    """

    name: str
    parameter: nn.Parameter
    places: tuple[tuple[nn.Module, str], ...]
    names: tuple[str, ...]

    @property
    def module(self) -> nn.Module:
        """The first module that holds the parameter."""
        return self.places[0][0]

    @property
    def attribute(self) -> str:
        """The parameter's name inside `module`."""
        return self.places[0][1]

    @property
    def saved(self) -> torch.Tensor | None:
        """The values kept while the parameter is pruned, else None."""
        name = self.attribute + ORIGINAL_SUFFIX
        ours = name in self.module._non_persistent_buffers_set  # a persistent one is the model's
        return self.module._buffers.get(name) if ours else None

    @property
    def weight(self) -> torch.Tensor:
        """The original values, detached: those from before pruning if it is pruned now."""
        saved = self.saved
        return (self.parameter if saved is None else saved).detach()

    @property
    def grad(self) -> torch.Tensor:
        """The accumulated gradient, made dense if it is sparse.

        Raises:
            InvalidArgumentError: there is none yet.
        """
        grad = self.parameter.grad
        if grad is None:
            raise InvalidArgumentError(
                f"{self.name} has no gradient to score by: run loss.backward() first, "
                "or exclude it, or use score='magnitude'"
            )
        return grad.to_dense() if grad.is_sparse else grad

    @property
    def is_convolution(self) -> bool:
        """Whether it is the weight of a convolution, transposed or not."""
        return self.attribute == "weight" and isinstance(self.module, _ALL_CONVOLUTIONS)

    @property
    def is_transposed(self) -> bool:
        """Whether it is the weight of a transposed convolution: (in, out / groups, ...)."""
        return self.attribute == "weight" and isinstance(self.module, _TRANSPOSED)


def find_targets(
    model: nn.Module,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> tuple[Target, ...]:
    """List the parameters that compete for pruning, in the order of ``named_parameters``.

    Args:
        model: the network.
        layers: kinds of layers whose weights compete, a name or module type or several:
            ``"default"`` (every convolution, linear layer and the projections of
            ``nn.MultiheadAttention``), ``"conv"``, ``"conv1d"``, ``"conv2d"`` (what the original
            method prunes), ``"conv3d"``, ``"conv_transpose1d"`` to ``3d``, ``"linear"``,
            ``"attention"``, or ``"all"`` (every floating-point parameter).
        include: only what these patterns pick. A pattern is a glob on the qualified name of a
            parameter or of a module around it (``"layer4"``, ``"*.conv1"``), or a module type. It
            picks the weights of ``layers`` that it matches; if it matches none of them, it picks
            the parameters that it names, which is how embeddings and normalisation weights come
            in. ``include=["*", "embed.weight"]`` is the default and the embedding.
        exclude: patterns of what must not be pruned, applied last.

    Returns:
        The targets, each Parameter once, however many modules share it.

    Raises:
        InvalidArgumentError: nothing is left, a pattern or a type in ``layers`` matches nothing, or
            chosen parameters cannot be pruned one by one (not floating point, not initialised, on
            the meta device, sparse, packed, of a tensor subclass, scripted, or computed from
            others); all that share a reason are named in one error.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> [target.name for target in find_targets(model)]
        ['0.weight', '2.weight']
        >>> [target.name for target in find_targets(model, include=["*", "1.weight"])]
        ['0.weight', '1.weight', '2.weight']
    """
    everything = all_parameters(model)
    of_layers = _of_layers(
        everything, pattern_list("layers", "default" if layers is None else layers)
    )
    chosen = of_layers
    if include is not None:
        chosen = _included(model, everything, of_layers, pattern_list("include", include))
    for pattern in pattern_list("exclude", () if exclude is None else exclude):
        dropped = _matching(everything, pattern)
        if not dropped:
            raise _unmatched("exclude", pattern, model)
        chosen = chosen - dropped
    targets = tuple(everything[name] for name in everything if name in chosen)
    _refuse_computed(model, targets, layers, include, exclude)
    _refuse_absent(everything, layers)
    if not targets:
        raise InvalidArgumentError(_nothing_left(model, layers, include, exclude))
    refuse_unprunable([(t.name, t.module, t.parameter) for t in targets], chosen)
    return targets


def all_parameters(model: nn.Module) -> dict[str, Target]:
    """Every Parameter once, under its first name, with all the places that hold it."""
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    settle(model)
    found: dict[int, Target] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            if parameter is None:
                continue
            place, name = (module, attribute), f"{prefix}.{attribute}" if prefix else attribute
            known = found.get(id(parameter))
            if known is None:
                found[id(parameter)] = Target(name, parameter, (place,), (name,))
                continue
            places = known.places if place in known.places else (*known.places, place)
            found[id(parameter)] = replace(known, places=places, names=(*known.names, name))
    return {target.name: target for target in found.values()}


def pruned_places(model: nn.Module, suffix: str) -> Iterator[tuple[nn.Module, str]]:
    """Yield (module, attribute) of every parameter that has a buffer with ``suffix`` beside it."""
    settle(model)
    for module in model.modules():
        for buffer in list(module._buffers):
            attribute = buffer.removesuffix(suffix)
            # A persistent buffer is the model's own, whatever its name.
            ours = buffer != attribute and buffer in module._non_persistent_buffers_set
            if ours and attribute in module._parameters:
                yield module, attribute


def pattern_list(option: str, value: Patterns) -> list[str | type[nn.Module]]:
    """What was given as ``option``, checked, as a list."""
    if isinstance(value, str | type | nn.Module) or not isinstance(value, Iterable):
        items: list[Any] = [value]
    else:
        items = list(value)
    for item in items:
        if not isinstance(item, str) and not (
            isinstance(item, type) and issubclass(item, nn.Module)
        ):
            raise InvalidArgumentError(
                f"{option} takes names and nn.Module types, got {item!r}; "
                f"write {option}='layer4.*' or {option}=nn.Conv2d"
            )
    return items


def _of_layers(everything: dict[str, Target], layers: list[str | type[nn.Module]]) -> set[str]:
    if not layers:
        raise InvalidArgumentError(f"layers is empty; write one of {', '.join(LAYER_NAMES)}")
    chosen: set[str] = set()
    for layer in layers:
        if isinstance(layer, str) and check_choice("layers", layer, LAYER_NAMES) == "all":
            chosen |= {name for name, t in everything.items() if t.parameter.is_floating_point()}
            continue
        classes = _classes(layer)
        chosen |= {name for name, t in everything.items() if is_weight_of(t, classes)}
    return chosen


def _classes(layer: str | type[nn.Module]) -> tuple[type[nn.Module], ...]:
    if isinstance(layer, str):
        return KINDS.get(layer, ())
    return _ATTENTION if layer is nn.MultiheadAttention else (layer,)


def is_weight_of(target: Target, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether one of the target's places is the weight of such a layer."""
    return any(
        attribute in _weight_attributes(module) and isinstance(module, classes)
        for module, attribute in target.places
    )


def _weight_attributes(module: nn.Module) -> tuple[str, ...]:
    return _ATTENTION_WEIGHTS if isinstance(module, nn.MultiheadAttention) else ("weight",)


def _matching(everything: dict[str, Target], pattern: str | type[nn.Module]) -> set[str]:
    return {name for name, target in everything.items() if is_picked(target, pattern)}


def is_picked(target: Target, pattern: str | type[nn.Module]) -> bool:
    """Whether a pattern, a glob or a type, picks the parameter by one of its names or places."""
    if isinstance(pattern, str):
        return any(name_matches(alias, pattern) for alias in target.names)
    return any(isinstance(module, pattern) for module, _ in target.places)


def _included(
    model: nn.Module,
    everything: dict[str, Target],
    of_layers: set[str],
    patterns: list[str | type[nn.Module]],
) -> set[str]:
    if not patterns:
        raise InvalidArgumentError("include is empty; leave it out to prune every target weight")
    chosen: set[str] = set()
    for pattern in patterns:
        matched = _matching(everything, pattern)
        if not matched:
            raise _unmatched("include", pattern, model)
        chosen |= (matched & of_layers) or matched
    return chosen


def _unmatched(
    option: str, pattern: str | type[nn.Module], model: nn.Module
) -> InvalidArgumentError:
    if isinstance(pattern, type):
        return InvalidArgumentError(f"{option}: the model has no {pattern.__name__} with weights")
    names = [name for name, _ in model.named_parameters()] + [n for n, _ in model.named_modules()]
    return InvalidArgumentError(
        f"{option}={pattern!r} matches no parameter and no module"
        f"{nearest(pattern, names)} (model.named_parameters() lists the names)"
    )


def _nothing_left(
    model: nn.Module, layers: Layers | None, include: Patterns | None, exclude: Patterns | None
) -> str:
    kinds = sorted({type(m).__name__ for m in model.modules() if m._parameters})
    given = ", ".join(
        f"{option}={value!r}"
        for option, value in (("layers", layers), ("include", include), ("exclude", exclude))
        if value is not None
    )
    return (
        f"nothing to prune with {given or 'the default layers'}: the layers that have parameters "
        f"are {', '.join(kinds) or 'none'}; name others with layers= or include="
    )


def _refuse_absent(everything: dict[str, Target], layers: Layers | None) -> None:
    """A type among several that picks nothing would be left out silently: say so."""
    for layer in pattern_list("layers", () if layers is None else layers):
        if isinstance(layer, str) or any(
            is_weight_of(target, _classes(layer)) for target in everything.values()
        ):
            continue
        raise InvalidArgumentError(
            f"layers: {layer.__name__} has no parameter called weight; name its parameters with "
            f"include=['*', {layer.__name__}], or leave it out"
            if _matching(everything, layer)
            else f"layers: the model has no {layer.__name__} with weights; leave it out"
        )


def _refuse_computed(
    model: nn.Module,
    targets: Sequence[Target],
    layers: Layers | None,
    include: Patterns | None,
    exclude: Patterns | None,
) -> None:
    """Refuse chosen weights that are computed: they, or what they are made of, would be silent."""
    kinds = pattern_list("layers", "default" if layers is None else layers)
    classes = tuple(cls for layer in kinds for cls in _classes(layer))
    included = None if include is None else pattern_list("include", include)
    excluded = pattern_list("exclude", () if exclude is None else exclude)
    pruned = {(id(module), attribute) for t in targets for module, attribute in t.places}
    found: list[Computed] = []
    for name, module in model.named_modules():
        of_kind = isinstance(module, classes)
        if not of_kind and not may_compute(module):
            continue
        for one in computed_in(name, module, _weight_attributes(module) if of_kind else ()):
            wanted = of_kind and one.attribute in _weight_attributes(module)
            wanted = wanted and not any(touches(one.name, module, p) for p in excluded)
            if "all" in kinds:
                wanted = any((id(held), a) in pruned for held, a in one.sources) or (
                    wanted and not one.sources
                )
            if wanted and (included is None or any(touches(one.name, module, p) for p in included)):
                found.append(one)
    if found:
        # A module's name excludes its other parameters too.
        around = tuple(f"{one.layer}." if one.layer else "" for one in found)
        raise computed_error(found, [t.name for t in targets if not t.name.startswith(around)])
