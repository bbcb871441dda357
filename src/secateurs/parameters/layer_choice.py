"""Which parameters ``layers``, ``include`` and ``exclude`` pick, by kind and by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from secateurs._tensors.quantization_scales import is_quantised, scales_of
from secateurs._validation import check_choice, nearest
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.parameters.layer_kinds import (
    ATTENTION,
    EMBEDDINGS,
    EVERY_KIND,
    KINDS,
    LAYER_NAMES,
    Classes,
    Experts,
    KindOf,
    weight_attributes,
)
from secateurs.parameters.layer_names import is_embedding, layer_of, routers
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.patterns import name_matches
from secateurs.parameters.target import Target

Layers = str | type[nn.Module] | Sequence[str | type[nn.Module]]
Patterns = str | type[nn.Module] | Sequence[str | type[nn.Module]]


@dataclass(frozen=True)
class LayerChoice:
    """The arguments ``layers``, ``include`` and ``exclude`` of `secateurs.find_targets`."""

    layers: Layers | None = None
    include: Patterns | None = None
    exclude: Patterns | None = None

    @cached_property
    def kinds(self) -> list[str | type[nn.Module]]:
        """``layers`` as a list; the default if it was not given."""
        return pattern_list("layers", "default" if self.layers is None else self.layers)

    @cached_property
    def included(self) -> list[str | type[nn.Module]] | None:
        """``include`` as a list; None if it was not given."""
        return None if self.include is None else pattern_list("include", self.include)

    @cached_property
    def excluded(self) -> list[str | type[nn.Module]]:
        """``exclude`` as a list; empty if it was not given."""
        return pattern_list("exclude", () if self.exclude is None else self.exclude)


def picked(
    contents: ModelContents, choice: LayerChoice, computed: Mapping[str, Target] | None = None
) -> tuple[Target, ...]:
    """The chosen parameters in the order of the model, also those that cannot be pruned.

    Args:
        contents: of the network.
        choice: what was asked for.
        computed: weights that are no parameters, by name; they can be picked too, but ``"all"``
            means parameters.

    Raises:
        InvalidArgumentError: a pattern matches nothing.
    """
    everything = {**contents.targets, **(computed or {})}
    chosen = _of_layers(everything, choice.kinds)
    if "all" in choice.kinds:
        floats = (n for n, t in contents.targets.items() if t.parameter.is_floating_point())
        chosen |= set(floats) - scales_in(contents.targets)
    if choice.included is not None:
        chosen = _included(contents, everything, chosen, choice.included)
    for pattern in choice.excluded:
        dropped = _matching(everything, pattern)
        if not dropped:
            raise _unmatched("exclude", pattern, contents)
        chosen = chosen - dropped
    return tuple(everything[name] for name in everything if name in chosen)


def pattern_list(option: str, value: Patterns) -> list[str | type[nn.Module]]:
    """Check a value of the argument ``option``, and make it a list."""
    if isinstance(value, str | type | nn.Module) or not isinstance(value, Iterable):
        items: list[Any] = [value]
    else:
        items = list(value)
    for item in items:
        if not isinstance(item, str) and not (
            isinstance(item, type) and issubclass(item, nn.Module)
        ):
            name = "conv2d" if option == "layers" else "layer4.*"
            raise InvalidArgumentError(
                f"{option} takes names and nn.Module types, got {item!r}; "
                f"write {option}={name!r} or {option}=nn.Conv2d"
            )
    return items


def _of_layers(everything: dict[str, Target], layers: list[str | type[nn.Module]]) -> set[str]:
    if not layers:
        raise InvalidArgumentError(
            Argument("layers"), f" is empty; write one of {', '.join(LAYER_NAMES)}"
        )
    chosen: set[str] = set()
    for layer in layers:
        found = weights_of(everything, classes_of(layer))
        if isinstance(layer, str):
            check_choice("layers", layer, LAYER_NAMES)
            gates = gates_of(everything.values())
            found = {
                name
                for name in found
                if gates.isdisjoint(everything[name].names)
                and not is_tied_embedding(everything[name])
            }
        chosen |= found
    return chosen


def scales_in(everything: dict[str, Target]) -> set[str]:
    """The names of parameters that are scales of quantised weights."""
    places = {(id(m), a): name for name, t in everything.items() for m, a in t.places}
    modules = {id(m): m for target in everything.values() for m, _ in target.places}
    found: set[str] = set()
    for key, module in modules.items():
        held = {**module._parameters, **module._buffers}
        quantised = [name for name, tensor in held.items() if is_quantised(tensor)]
        found |= {places[key, a] for a in scales_of(quantised, held) if (key, a) in places}
    return found


def gates_of(everything: Iterable[Target]) -> set[str]:
    """The names of all routers of experts, which compete only if the caller names them."""
    return routers([name for target in everything for name in target.names])


def is_tied_embedding(target: Target) -> bool:
    """Whether a layer shares this weight with an embedding, known by its class or its name."""
    if len(target.places) == 1:
        return False
    modules = [module for module, _ in target.places]
    if any(isinstance(module, EMBEDDINGS) for module in modules):
        return True
    only_layers = all(isinstance(module, EVERY_KIND) for module in modules)
    return not only_layers and any(is_embedding(layer_of(name)) for name in target.names)


def classes_of(layer: str | type[nn.Module]) -> Classes:
    """The classes of layers that an entry of ``layers`` stands for."""
    if isinstance(layer, str):
        return KINDS.get(layer, ())
    return ATTENTION if layer is nn.MultiheadAttention else (layer,)


def weights_of(everything: Mapping[str, Target], classes: Classes) -> set[str]:
    """The names of the parameters that are weights of layers of these classes."""
    is_kind, with_experts = KindOf(classes), Experts in classes
    return {
        name
        for name, target in everything.items()
        if any(is_kind[type(m)] and a in weight_attributes(m) for m, a in target.places)
        or (with_experts and target.is_stack)
    }


def is_weight_of(target: Target, classes: Classes) -> bool:
    """Whether the parameter is a weight of a layer of these classes."""
    return bool(weights_of({target.name: target}, classes))


def is_picked(target: Target, pattern: str | type[nn.Module]) -> bool:
    """Whether a glob matches a name of the parameter, or a type one of its modules."""
    if isinstance(pattern, str):
        return any(name_matches(alias, pattern) for alias in target.names)
    return any(isinstance(module, pattern) for module, _ in target.places)


def _matching(everything: Mapping[str, Target], pattern: str | type[nn.Module]) -> set[str]:
    return {name for name, target in everything.items() if is_picked(target, pattern)}


def _included(
    contents: ModelContents,
    everything: Mapping[str, Target],
    of_layers: set[str],
    patterns: list[str | type[nn.Module]],
) -> set[str]:
    if not patterns:
        raise InvalidArgumentError(
            Argument("include"), " is empty; leave it out to prune all weights that compete"
        )
    weights = weights_of(everything, EVERY_KIND)
    chosen: set[str] = set()
    for pattern in patterns:
        matched = _matching(everything, pattern)
        if not matched:
            raise _unmatched("include", pattern, contents)
        chosen |= (matched & of_layers) or (matched & weights) or matched
    return chosen


def _unmatched(
    option: str, pattern: str | type[nn.Module], contents: ModelContents
) -> InvalidArgumentError:
    if isinstance(pattern, type):
        return InvalidArgumentError(f"{option}: the model has no {pattern.__name__} with weights")
    modules = [n for n, m in contents.modules if n and next(m.parameters(), None) is not None]
    names = [*contents.targets, *modules]
    return InvalidArgumentError(
        Argument(option, pattern),
        f" matches no parameter and no module with parameters{nearest(pattern, names)}",
        Advice(" (model.named_parameters() lists the names)"),
    )


def refuse_absent(everything: dict[str, Target], choice: LayerChoice) -> None:
    """Refuse a type in ``layers`` that picks no weight, also if other types do.

    Raises:
        InvalidArgumentError: there is one.
    """
    for layer in choice.kinds:
        if isinstance(layer, str) or any(
            is_weight_of(target, classes_of(layer)) for target in everything.values()
        ):
            continue
        raise InvalidArgumentError(
            f"layers: {layer.__name__} has no parameter called weight; name its parameters with "
            f"include=['*', {layer.__name__}], or leave it out"
            if _matching(everything, layer)
            else none_of(layer)
        )


def none_of(layer: type[nn.Module]) -> str:
    """The message for a type in ``layers`` that the model does not have."""
    return f"layers: the model has no {layer.__name__} with weights; leave it out"
