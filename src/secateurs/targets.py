"""Which parameters compete: in order, each Parameter once, chosen by kind and by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from secateurs._checks import check_choice, nearest
from secateurs.computed import Computed, computed_error, computed_in, may_compute
from secateurs.errors import InvalidArgumentError
from secateurs.kept import original_of
from secateurs.kinds import (
    ATTENTION,
    EMBEDDINGS,
    EVERY_KIND,
    KINDS,
    LAYER_NAMES,
    TRANSPOSED,
    Classes,
    Conv1D,
    Experts,
    is_stack,
    stack_outputs_last,
    weight_attributes,
)
from secateurs.layer_names import experts_in, is_embedding, layer_of, routers
from secateurs.original import Original, valid_of
from secateurs.patterns import name_matches, touches
from secateurs.prunable import refuse_unprunable, why_not
from secateurs.scales import is_quantised, scales_of
from secateurs.sharding.presence import settle

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
    parameter: nn.Parameter = field(compare=False)  # the places say it; tensors have no truth value
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
    def original(self) -> Original | None:
        """What is kept of this Parameter while it is pruned, else None."""
        kept = [original_of(module, attribute) for module, attribute in self.places]
        return valid_of([original for original in kept if original is not None])

    @property
    def weight(self) -> torch.Tensor:
        """The values to prune, detached.

        Those from before pruning if it is pruned now; if it was trained since, those it has.
        """
        original = self.original
        if original is None or original.trained:
            return self.parameter.detach()
        return original.beside.detach()

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
        return self.attribute == "weight" and isinstance(self.module, KINDS["conv"])

    @property
    def is_transposed(self) -> bool:
        """Whether it is the weight of a transposed convolution: (in, out / groups, ...)."""
        return self.attribute == "weight" and isinstance(self.module, TRANSPOSED)

    @property
    def is_stack(self) -> bool:
        """Whether it holds the matrices of several experts, one behind the other."""
        if not is_stack(self.module, self.attribute, self.parameter):
            return False
        shape = tuple(self.parameter.shape)
        named = any(experts_in(name, shape) is not None for name in self.names)
        return named or isinstance(self.module, Experts)

    @property
    def outputs_last(self) -> bool:
        """Whether its last dimension is that of the outputs: (in, out) or (experts, in, out)."""
        if self.is_stack:
            return stack_outputs_last(self.module, self.attribute)
        return self.attribute == "weight" and isinstance(self.module, Conv1D)


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
            ``"default"`` (every convolution, linear layer, projection of
            ``nn.MultiheadAttention`` and stack of experts), ``"conv"``, ``"conv1d"``, ``"conv2d"``
            (what the original method prunes), ``"conv3d"``, ``"conv_transpose1d"`` to ``3d``,
            ``"linear"`` (``nn.Linear`` and transformers' ``Conv1D``), ``"attention"``,
            ``"experts"`` (parameters of three dimensions in a module whose class or name says
            experts), ``"recurrent"`` (the weights of ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and their
            cells), or ``"all"`` (every floating-point parameter but the scales of
            quantised weights). Routers of experts, and embeddings that are an output layer as well,
            compete under ``"all"``, as a type, or where ``include`` names them.
        include: only what these patterns pick. A pattern is a glob on the qualified name of a
            parameter or of a module around it (``"layer4"``, ``"*.conv1"``), or a module type. It
            picks the weights of ``layers`` that it matches; if it matches none of them, the weights
            of any kind (``"lstm"``: not its biases), and if there are none, the parameters that it
            names, which is how embeddings and normalisation weights come in.
            ``include=["*", "embed.weight"]`` is the default and the embedding.
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
    targets = _chosen(model, everything, layers, include, exclude)
    _refuse_computed(model, targets, layers, include, exclude)
    _refuse_absent(everything, layers)
    if not targets:
        raise InvalidArgumentError(_nothing_left(model, layers, include, exclude))
    refuse_unprunable([(t.name, t.module, t.parameter) for t in targets], {t.name for t in targets})
    return targets


def countable_targets(
    model: nn.Module,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> tuple[Target, ...]:
    """List what `find_targets` would, without what cannot be pruned.

    Raises:
        InvalidArgumentError: as `find_targets`, if nothing is left.
    """
    for layer in pattern_list("layers", () if layers is None else layers):
        if isinstance(layer, type) and not any(isinstance(m, layer) for m in model.modules()):
            raise InvalidArgumentError(_none_of(layer))
    chosen = _chosen(model, all_parameters(model), layers, include, exclude)
    inside = _sources(model) if "all" in pattern_list("layers", layers or "default") else set()
    targets = tuple(
        target for target in chosen if is_prunable(target) and inside.isdisjoint(_ids(target))
    )
    return targets or find_targets(model, layers=layers, include=include, exclude=exclude)


def _chosen(
    model: nn.Module,
    everything: dict[str, Target],
    layers: Layers | None,
    include: Patterns | None,
    exclude: Patterns | None,
) -> tuple[Target, ...]:
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
    return tuple(everything[name] for name in everything if name in chosen)


def _ids(target: Target) -> set[tuple[int, str]]:
    return {(id(module), attribute) for module, attribute in target.places}


def _sources(model: nn.Module) -> set[tuple[int, str]]:
    """Where the parameters are that weights are computed from."""
    return {
        (id(held), attribute)
        for name, module in model.named_modules()
        if may_compute(module)
        for one in computed_in(name, module)
        for held, attribute in one.sources
    }


def is_prunable(target: Target) -> bool:
    """Whether the elements of a parameter can be set to zero one by one."""
    return why_not(target.module, target.parameter) is None


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
            floats = {name for name, t in everything.items() if t.parameter.is_floating_point()}
            chosen |= floats - scales_in(everything)
            continue
        found = {name for name, t in everything.items() if is_weight_of(t, _classes(layer))}
        if isinstance(layer, str):
            found = _without_routers_and_embeddings(everything, found)
        chosen |= found
    return chosen


def scales_in(everything: dict[str, Target]) -> set[str]:
    """The parameters that are no weights, but scales of quantised weights beside them."""
    places = {(id(m), a): name for name, t in everything.items() for m, a in t.places}
    modules = {id(m): m for target in everything.values() for m, _ in target.places}
    found: set[str] = set()
    for key, module in modules.items():
        held = {**module._parameters, **module._buffers}
        quantised = [name for name, tensor in held.items() if is_quantised(tensor)]
        found |= {places[key, a] for a in scales_of(quantised, held) if (key, a) in places}
    return found


def _without_routers_and_embeddings(everything: dict[str, Target], found: set[str]) -> set[str]:
    """Leave out gates of experts, and embeddings that are a layer as well."""
    gates = gates_of(everything.values())
    return {
        name
        for name in found
        if gates.isdisjoint(everything[name].names) and not is_tied_embedding(everything[name])
    }


def gates_of(everything: Iterable[Target]) -> set[str]:
    """The names of all routers of experts, which compete only if they are named."""
    return routers([name for target in everything for name in target.names])


def is_tied_embedding(target: Target) -> bool:
    """Whether an embedding shares a layer's weight: by its class, or by its name."""
    if len(target.places) == 1:
        return False
    modules = [module for module, _ in target.places]
    if any(isinstance(module, EMBEDDINGS) for module in modules):
        return True
    elsewhere = not all(isinstance(module, EVERY_KIND) for module in modules)
    return elsewhere and any(is_embedding(layer_of(name)) for name in target.names)


def _classes(layer: str | type[nn.Module]) -> Classes:
    if isinstance(layer, str):
        return KINDS.get(layer, ())
    return ATTENTION if layer is nn.MultiheadAttention else (layer,)


def is_weight_of(target: Target, classes: Classes) -> bool:
    """Whether one of the target's places is the weight of such a layer."""
    return (Experts in classes and target.is_stack) or any(
        isinstance(module, classes) and attribute in weight_attributes(module)
        for module, attribute in target.places
    )


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
    weights = {name for name, target in everything.items() if is_weight_of(target, EVERY_KIND)}
    chosen: set[str] = set()
    for pattern in patterns:
        matched = _matching(everything, pattern)
        if not matched:
            raise _unmatched("include", pattern, model)
        chosen |= (matched & of_layers) or (matched & weights) or matched
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
    if isinstance(model, torch.jit.ScriptModule):
        return (
            "the model is scripted or traced, so its weights cannot be replaced: prune the network "
            "before torch.jit.script or torch.jit.trace"
        )
    given = ", ".join(
        f"{option}={value!r}"
        for option, value in (("layers", layers), ("include", include), ("exclude", exclude))
        if value is not None
    )
    return (
        f"nothing to prune with {given or 'the default layers'}: the layers that have parameters "
        f"are {', '.join(kinds) or 'none'}; name others with layers= or include= (embeddings, "
        "routers and recurrent layers compete only if they are named)"
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
            else _none_of(layer)
        )


def _none_of(layer: type[nn.Module]) -> str:
    return f"layers: the model has no {layer.__name__} with weights; leave it out"


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
    pruned = {place for target in targets for place in _ids(target)}
    found: list[Computed] = []
    for name, module in model.named_modules():
        weights, wanted_by = _weights_in(name, module, classes), included
        if not weights and included is not None and isinstance(module, KINDS["recurrent"]):
            weights, wanted_by = weight_attributes(module), _naming_others(targets, included)
        if not weights and not may_compute(module):
            continue
        for one in computed_in(name, module, weights):
            wanted = one.attribute in weights
            wanted = wanted and not any(touches(one.name, module, p) for p in excluded)
            if "all" in kinds:
                wanted = any((id(held), a) in pruned for held, a in one.sources) or (
                    wanted and not one.sources
                )
            if wanted and (
                wanted_by is None or any(touches(one.name, module, p) for p in wanted_by)
            ):
                found.append(one)
    found = _without_computed_routers(model, found, kinds) if found else found
    if found:
        # A module's name excludes its other parameters too.
        around = tuple(f"{one.layer}." if one.layer else "" for one in found)
        raise computed_error(found, [t.name for t in targets if not t.name.startswith(around)])


def _weights_in(name: str, module: nn.Module, classes: Classes) -> tuple[str, ...]:
    """The names of a module's weights of these kinds, computed stacks of experts included."""
    weights = weight_attributes(module) if isinstance(module, classes) else ()
    if Experts not in classes or not may_compute(module):
        return weights
    stacks: list[str] = []
    for one in computed_in(name, module):
        value = getattr(module, one.attribute)
        is_named = isinstance(module, Experts) or experts_in(one.name, tuple(value.shape))
        if is_named and is_stack(module, one.attribute, value):
            stacks.append(one.attribute)
    return (*weights, *stacks)


def _naming_others(
    targets: Sequence[Target], included: Sequence[str | type[nn.Module]]
) -> list[str | type[nn.Module]]:
    """Patterns that pick what ``layers`` does not: nothing but recurrent layers, or nothing."""
    return [
        pattern
        for pattern in included
        if not any(is_picked(t, pattern) and is_weight_of(t, KINDS["default"]) for t in targets)
    ]


def _without_computed_routers(
    model: nn.Module, found: list[Computed], kinds: list[str | type[nn.Module]]
) -> list[Computed]:
    """Leave out routers, as where they are parameters, unless their type was named."""
    names = [*all_parameters(model), *(one.name for one in found)]
    gates = routers(names)
    types = tuple(kind for kind in kinds if isinstance(kind, type))
    return [one for one in found if one.name not in gates or isinstance(one.module, types)]
