"""Which parameters compete: in order, each Parameter once; what cannot be pruned is refused."""

from collections.abc import Sequence

import torch
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.parameters.computed_weights import Computed, computed_error, computed_in, may_compute
from secateurs.parameters.layer_choice import (
    Layers,
    Patterns,
    classes_of,
    is_picked,
    is_weight_of,
    none_of,
    pattern_list,
    picked,
    refuse_absent,
)
from secateurs.parameters.layer_kinds import (
    KINDS,
    Classes,
    Experts,
    KindOf,
    is_stack,
    weight_attributes,
)
from secateurs.parameters.layer_names import experts_in, routers
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.patterns import touches
from secateurs.parameters.recomputed_weights import refuse_recomputed
from secateurs.parameters.refusals import refuse_unprunable, why_not
from secateurs.parameters.shared_memory import refuse_overlaps
from secateurs.parameters.target import Target


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
    return targets_in(ModelContents(model), layers=layers, include=include, exclude=exclude)


def targets_in(
    contents: ModelContents,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> tuple[Target, ...]:
    """`find_targets`, for a model that was walked over already."""
    targets = picked(contents, layers, include, exclude)
    _refuse_computed(contents, targets, layers, include, exclude)
    refuse_absent(contents.targets, layers)
    if not targets:
        raise InvalidArgumentError(_nothing_left(contents, layers, include, exclude))
    refuse_unprunable(targets)
    return targets


def separate_targets_in(
    contents: ModelContents,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> tuple[Target, ...]:
    """`targets_in`, each of which can be pruned by a mask of its own that its layer keeps.

    Raises:
        InvalidArgumentError: also if a layer computes another weight from its own, or two weights
            are views of one memory. A class that ``layers`` names is pruned in any case; memory of
            what ``exclude`` names must not be written either.
    """
    targets = targets_in(contents, layers=layers, include=include, exclude=exclude)
    asked = layers if isinstance(layers, Sequence) and not isinstance(layers, str) else (layers,)
    refuse_recomputed(targets, [one for one in asked if one is not None])
    kept: list[Target] = []
    if exclude is not None:
        patterns, chosen = pattern_list("exclude", exclude), {t.name for t in targets}
        others = (t for name, t in contents.targets.items() if name not in chosen)
        kept = [target for target in others if any(is_picked(target, p) for p in patterns)]
    refuse_overlaps(targets, kept)
    return targets


def countable_targets(
    contents: ModelContents,
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
        if isinstance(layer, type) and not any(isinstance(m, layer) for _, m in contents.modules):
            raise InvalidArgumentError(none_of(layer))
    chosen = picked(contents, layers, include, exclude)
    inside = _sources(contents) if "all" in pattern_list("layers", layers or "default") else set()
    targets = tuple(
        target for target in chosen if is_prunable(target) and inside.isdisjoint(_ids(target))
    )
    return targets or targets_in(contents, layers=layers, include=include, exclude=exclude)


def _ids(target: Target) -> set[tuple[int, str]]:
    return {(id(module), attribute) for module, attribute in target.places}


def _sources(contents: ModelContents) -> set[tuple[int, str]]:
    """Where the parameters are that weights are computed from."""
    return {
        (id(held), attribute)
        for name, module in contents.modules
        if may_compute(module)
        for one in computed_in(name, module)
        for held, attribute in one.sources
    }


def is_prunable(target: Target) -> bool:
    """Whether the elements of a parameter can be set to zero one by one."""
    return why_not(target) is None


def _nothing_left(
    contents: ModelContents,
    layers: Layers | None,
    include: Patterns | None,
    exclude: Patterns | None,
) -> str:
    kinds = sorted({type(m).__name__ for _, m in contents.modules if m._parameters})
    if isinstance(contents.model, torch.jit.ScriptModule):
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


def _refuse_computed(
    contents: ModelContents,
    targets: Sequence[Target],
    layers: Layers | None,
    include: Patterns | None,
    exclude: Patterns | None,
) -> None:
    """Refuse chosen weights that are computed: they, or what they are made of, would be silent."""
    kinds = pattern_list("layers", "default" if layers is None else layers)
    classes = tuple(cls for layer in kinds for cls in classes_of(layer))
    included = None if include is None else pattern_list("include", include)
    excluded = pattern_list("exclude", () if exclude is None else exclude)
    pruned = {place for target in targets for place in _ids(target)} if "all" in kinds else set()
    found: list[Computed] = []
    is_layer = KindOf((*classes, *KINDS["recurrent"]))
    for name, module in contents.modules:
        if not may_compute(module) and not (is_layer[type(module)] and _lacks_a_weight(module)):
            continue
        weights, wanted_by = _weights_in(name, module, classes), included
        if not weights and included is not None and isinstance(module, KINDS["recurrent"]):
            weights, wanted_by = weight_attributes(module), _naming_others(targets, included)
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
    found = _without_computed_routers(contents, found, kinds) if found else found
    if found:
        # A module's name excludes its other parameters too.
        around = tuple(f"{one.layer}." if one.layer else "" for one in found)
        raise computed_error(found, [t.name for t in targets if not t.name.startswith(around)])


def _lacks_a_weight(module: nn.Module) -> bool:
    """Whether a weight of a layer is none of its parameters."""
    return any(attribute not in module._parameters for attribute in weight_attributes(module))


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
    contents: ModelContents, found: list[Computed], kinds: list[str | type[nn.Module]]
) -> list[Computed]:
    """Leave out routers, as where they are parameters, unless their type was named."""
    names = [*contents.targets, *(one.name for one in found)]
    gates = routers(names)
    types = tuple(kind for kind in kinds if isinstance(kind, type))
    return [one for one in found if one.name not in gates or isinstance(one.module, types)]
