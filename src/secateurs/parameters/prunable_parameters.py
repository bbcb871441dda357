"""Finds the parameters that compete for pruning, and refuses those that cannot be pruned."""

from collections.abc import Sequence
from dataclasses import fields

from torch import nn

from secateurs._io.text import listed
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.computed_weights import Computed, computed_error, computed_in, may_compute
from secateurs.parameters.layer_choice import (
    LayerChoice,
    Layers,
    Patterns,
    classes_of,
    is_picked,
    is_weight_of,
    none_of,
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
from secateurs.parameters.refusals import refuse_scripted, refuse_unprunable, why_not
from secateurs.parameters.shared_memory import refuse_overlaps
from secateurs.parameters.target import Target
from secateurs.parameters.weight_counts import quantised_layers


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
    return targets_in(ModelContents(model), LayerChoice(layers, include, exclude))


def targets_in(
    contents: ModelContents, choice: LayerChoice, *, purpose: str = "prune"
) -> tuple[Target, ...]:
    """`find_targets` for a model whose contents are known; ``purpose`` is a verb for the error."""
    targets = picked(contents, choice)
    _refuse_computed(contents, targets, choice)
    refuse_absent(contents.targets, choice)
    if not targets:
        raise _nothing_left(contents, choice, purpose)
    refuse_unprunable(targets)
    return targets


def separate_targets_in(contents: ModelContents, choice: LayerChoice) -> tuple[Target, ...]:
    """`targets_in`, refusing also weights that a mask cannot prune by themselves.

    Raises:
        InvalidArgumentError: also if a layer computes another weight from its own, unless
            ``layers`` names its class; or if a weight shares memory with another parameter, also
            with one that does not compete.
    """
    targets = targets_in(contents, choice)
    refuse_recomputed(targets, choice.kinds)
    chosen = {target.name for target in targets}
    refuse_overlaps(targets, [t for name, t in contents.targets.items() if name not in chosen])
    return targets


def countable_targets(contents: ModelContents, choice: LayerChoice) -> tuple[Target, ...]:
    """`targets_in` without the parameters that cannot be pruned, instead of an error.

    Raises:
        InvalidArgumentError: as `find_targets`, if nothing is left.
    """
    for layer in choice.kinds:
        if isinstance(layer, type) and not any(isinstance(m, layer) for _, m in contents.modules):
            raise InvalidArgumentError(none_of(layer))
    sources = _sources(contents) if "all" in choice.kinds else set[tuple[int, str]]()
    targets = tuple(
        target
        for target in picked(contents, choice)
        if why_not(target) is None and sources.isdisjoint(_ids(target))
    )
    return targets or targets_in(contents, choice, purpose="count")


def _ids(target: Target) -> set[tuple[int, str]]:
    return {(id(module), attribute) for module, attribute in target.places}


def _sources(contents: ModelContents) -> set[tuple[int, str]]:
    """The parameters that weights are computed from: ids of modules, and attributes."""
    return {
        (id(held), attribute)
        for name, module in contents.modules
        if may_compute(module)
        for one in computed_in(name, module)
        for held, attribute in one.sources
    }


def _nothing_left(
    contents: ModelContents, choice: LayerChoice, purpose: str
) -> InvalidArgumentError:
    """The error where nothing was chosen to prune or to count."""
    refuse_scripted(contents.model)
    layers = [module for _, module in contents.modules if module._parameters]
    kinds = sorted({type(layer).__name__ for layer in layers})
    others = [name for name in KINDS if name not in choice.kinds]
    found = (name for name in others if any(isinstance(layer, KINDS[name]) for layer in layers))
    values = ((field.name, getattr(choice, field.name)) for field in fields(choice))
    given = ", ".join(f"{option}={value!r}" for option, value in values if value is not None)
    nothing = f"nothing to {purpose} with {given or 'the default layers'}"
    packed = [name or "the model" for name, _ in quantised_layers(contents)]
    if packed and not layers:
        return InvalidArgumentError(
            f"{nothing}: the weights of {listed(packed)} are quantised, and no parameters any "
            "more; prune the network before it is quantised"
        )
    return InvalidArgumentError(
        f"{nothing}: the layers that have "
        f"parameters are {', '.join(kinds) or 'none'}; name others, such as by ",
        Argument("layers", next(found, "all")),
        ", or with ",
        Argument("include"),
        " (embeddings, routers and recurrent layers only count if they are named)",
    )


def _refuse_computed(
    contents: ModelContents, targets: Sequence[Target], choice: LayerChoice
) -> None:
    """Refuse chosen weights that are computed, since pruning would leave them out silently."""
    kinds, included, excluded = choice.kinds, choice.included, choice.excluded
    classes = tuple(cls for layer in kinds for cls in classes_of(layer))
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
    """Whether a weight of a layer is missing among its parameters."""
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
    """The patterns that pick no weight of the default layers: they may name recurrent layers."""
    return [
        pattern
        for pattern in included
        if not any(is_picked(t, pattern) and is_weight_of(t, KINDS["default"]) for t in targets)
    ]


def _without_computed_routers(
    contents: ModelContents, found: list[Computed], kinds: list[str | type[nn.Module]]
) -> list[Computed]:
    """Remove routers, which do not compete either, unless ``layers`` names their type."""
    names = [*contents.targets, *(one.name for one in found)]
    gates = routers(names)
    types = tuple(kind for kind in kinds if isinstance(kind, type))
    return [one for one in found if one.name not in gates or isinstance(one.module, types)]
