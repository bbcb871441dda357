"""Which parameters compete: in order, each Parameter once, chosen by kind and by name."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from secateurs._checks import check_choice, nearest
from secateurs.errors import InvalidArgumentError
from secateurs.kept import ORIGINAL_SUFFIX, backward_masks, original_of, originals_of, parameter_of
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
            cells), or ``"all"`` (every floating-point parameter). Routers of experts, and
            embeddings that are an output layer as well, compete under ``"all"``, as a type, or
            where ``include`` names them.
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
        InvalidArgumentError: nothing is left, a pattern matches nothing, or a chosen parameter
            cannot be pruned (not floating point, not initialised, on the meta device,
            parametrized).

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
        >>> [target.name for target in find_targets(model)]
        ['0.weight', '2.weight']
        >>> [target.name for target in find_targets(model, include=["*", "1.weight"])]
        ['0.weight', '1.weight', '2.weight']
    """
    targets = _chosen(model, layers, include, exclude)
    _refuse_parametrized(model, layers, include, exclude)
    if not targets:
        raise InvalidArgumentError(_nothing_left(model, layers, include, exclude))
    for target in targets:
        _check_prunable(target)
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
    chosen = _chosen(model, layers, include, exclude)
    targets = tuple(target for target in chosen if not _why_not(target))
    return targets or find_targets(model, layers=layers, include=include, exclude=exclude)


def _chosen(
    model: nn.Module, layers: Layers | None, include: Patterns | None, exclude: Patterns | None
) -> tuple[Target, ...]:
    everything = all_parameters(model)
    of_layers = _of_layers(everything, _as_list("layers", "default" if layers is None else layers))
    chosen = of_layers
    if include is not None:
        chosen = _included(model, everything, of_layers, _as_list("include", include))
    for pattern in _as_list("exclude", () if exclude is None else exclude):
        dropped = _matching(everything, pattern)
        if not dropped:
            raise _unmatched("exclude", pattern, model)
        chosen = chosen - dropped
    return tuple(everything[name] for name in everything if name in chosen)


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
    """Yield (module, attribute) of each pruned parameter, in its weights or its backward pass.

    Args:
        model: the network.
        suffix: `ORIGINAL_SUFFIX` for those whose weights are pruned, else those whose backward
            pass is.
    """
    settle(model)
    if suffix == ORIGINAL_SUFFIX:
        for _, module, attribute, original in originals_of(model):
            if original.belongs_to(parameter_of(module, attribute)):
                yield module, attribute
    else:
        for module, attribute, _ in backward_masks(model):
            yield module, attribute


def _as_list(option: str, value: Patterns) -> list[str | type[nn.Module]]:
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
        found = _weights(everything, _classes(layer))
        if isinstance(layer, str):
            found = _without_routers_and_embeddings(everything, found)
        chosen |= found
    return chosen


def _without_routers_and_embeddings(everything: dict[str, Target], found: set[str]) -> set[str]:
    """Leave out gates of experts, and embeddings that are a layer as well."""
    gates = routers([name for target in everything.values() for name in target.names])
    return {
        name
        for name in found
        if gates.isdisjoint(everything[name].names) and not _is_embedding(everything[name])
    }


def _is_embedding(target: Target) -> bool:
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


def _weights(everything: dict[str, Target], classes: Classes) -> set[str]:
    return {name for name, target in everything.items() if _is_weight_of(target, classes)}


def _is_weight_of(target: Target, classes: Classes) -> bool:
    """Whether one of the places is the weight of such a layer."""
    return (Experts in classes and target.is_stack) or any(
        isinstance(module, classes) and attribute in weight_attributes(module)
        for module, attribute in target.places
    )


def _matching(everything: dict[str, Target], pattern: str | type[nn.Module]) -> set[str]:
    if isinstance(pattern, str):
        return {
            name
            for name, target in everything.items()
            if any(_name_matches(alias, pattern) for alias in target.names)
        }
    return {
        name
        for name, target in everything.items()
        if any(isinstance(module, pattern) for module, _ in target.places)
    }


def _name_matches(name: str, pattern: str) -> bool:
    """Whether the glob matches the parameter's name or that of a module around it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(len(parts), 0, -1))


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
        chosen |= (matched & of_layers) or (matched & _weights(everything, EVERY_KIND)) or matched
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
        f"are {', '.join(kinds) or 'none'}; name others with layers= or include= (embeddings, "
        "routers and recurrent layers compete only if they are named)"
    )


def _refuse_parametrized(
    model: nn.Module, layers: Layers | None, include: Patterns | None, exclude: Patterns | None
) -> None:
    """A layer of a chosen kind whose weight is computed would be left out silently: say so."""
    chosen = _as_list("layers", "default" if layers is None else layers)
    classes = tuple(cls for layer in chosen for cls in _classes(layer))
    included = _as_list("include", () if include is None else include)
    excluded = _as_list("exclude", () if exclude is None else exclude)
    for name, module, attribute in _computed_weights(model, classes):
        full = f"{name}.{attribute}" if name else attribute
        if (include is not None and not any(_touches(full, module, p) for p in included)) or any(
            _touches(full, module, p) for p in excluded
        ):
            continue
        raise InvalidArgumentError(
            f"{full} is not a parameter but computed (a parametrization, weight_norm or "
            "torch.nn.utils.prune): make it permanent with torch.nn.utils.parametrize."
            f"remove_parametrizations or prune.remove, or write exclude={name or attribute!r}"
        )


def _computed_weights(model: nn.Module, classes: Classes) -> Iterator[tuple[str, nn.Module, str]]:
    for name, module in model.named_modules():
        if isinstance(module, classes):
            for attribute in weight_attributes(module):
                if attribute not in module._parameters and hasattr(module, attribute):
                    yield name, module, attribute


def _touches(name: str, module: nn.Module, pattern: str | type[nn.Module]) -> bool:
    return (
        isinstance(module, pattern) if isinstance(pattern, type) else _name_matches(name, pattern)
    )


def _check_prunable(target: Target) -> None:
    reason = _why_not(target)
    if reason:
        raise InvalidArgumentError(reason)


def _why_not(target: Target) -> str:
    """Why a parameter cannot be pruned, if it cannot."""
    parameter = target.parameter
    if isinstance(parameter, UninitializedParameter):
        return f"{target.name} is not initialised yet: run one forward pass of the lazy model first"
    if parameter.is_meta:
        return (
            f"{target.name} is on the meta device and has no values: load the weights first "
            "(model.to_empty(device='cpu') and load_state_dict)"
        )
    if not parameter.is_floating_point() or parameter.dtype in _WITHOUT_ZERO:
        return (
            f"{target.name} has dtype {parameter.dtype}, which cannot be pruned: "
            f"only floating-point weights with a zero can; write exclude={target.name!r}"
        )
    return ""


# Formats that hold scales or packed pairs: no zero, or more than one number an element.
_WITHOUT_ZERO = frozenset(
    getattr(torch, name) for name in ("float8_e8m0fnu", "float4_e2m1fn_x2") if hasattr(torch, name)
)
