"""Finds the parameters that compete for pruning, and refuses those that cannot be pruned."""

from collections.abc import Iterator
from dataclasses import fields, replace

from torch import nn

from secateurs._io.text import listed
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.computed_weights import Computed, computed_error, computed_weights
from secateurs.parameters.layer_choice import (
    LayerChoice,
    Layers,
    Patterns,
    classes_of,
    is_picked,
    none_of,
    picked,
    refuse_absent,
)
from secateurs.parameters.layer_kinds import EVERY_KIND, KINDS
from secateurs.parameters.model_contents import ModelContents
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
    computed = {one.name: one for one in _computed(contents, choice)}
    chosen = picked(contents, choice, {name: one.target for name, one in computed.items()})
    targets = tuple(target for target in chosen if target.name not in computed)
    refused = [computed[target.name] for target in chosen if target.name in computed]
    if "all" in choice.kinds:  # picks what a weight is computed from, not the weight
        pruned = {place for target in targets for place in _ids(target)}
        named = choice.included
        refused += [
            one
            for one in computed.values()
            if one not in refused
            and not pruned.isdisjoint(one.sources)
            and (named is None or any(is_picked(one.target, p) for p in named))
        ]
    if refused:
        # A module's name excludes its other parameters too.
        around = tuple(f"{one.layer}." if one.layer else "" for one in refused)
        raise computed_error(refused, [t.name for t in targets if not t.name.startswith(around)])
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
    computed = _computed(contents, choice) if "all" in choice.kinds else ()
    sources = {place for one in computed for place in one.sources}
    targets = tuple(
        target
        for target in picked(contents, choice)
        if why_not(target) is None and sources.isdisjoint(_ids(target))
    )
    return targets or targets_in(contents, choice, purpose="count")


def _ids(target: Target) -> set[tuple[int, str]]:
    return {(id(module), attribute) for module, attribute in target.places}


def _computed(contents: ModelContents, choice: LayerChoice) -> Iterator[Computed]:
    """Yield the weights that are no parameters, of all layers and of those that were asked for."""
    asked = (cls for kind in choice.kinds for cls in classes_of(kind))
    return computed_weights(contents, (*EVERY_KIND, *asked))


def _nothing_left(
    contents: ModelContents, choice: LayerChoice, purpose: str
) -> InvalidArgumentError:
    """The error where nothing was chosen to prune or to count."""
    refuse_scripted(contents.model)
    layers = [module for _, module in contents.modules if module._parameters]
    values = ((field.name, getattr(choice, field.name)) for field in fields(choice))
    given = [Argument(option, value) for option, value in values if value is not None]
    between = [part for argument in given for part in (", ", argument)][1:]
    nothing = (f"nothing to {purpose} with ", *(between or ["the default layers"]), ": ")
    packed = [name or "the model" for name, _ in quantised_layers(contents)]
    if packed and not layers:
        return InvalidArgumentError(
            *nothing,
            f"the weights of {listed(packed)} are quantised, and no parameters any more; prune the "
            "network before it is quantised",
        )
    if not layers:
        return InvalidArgumentError(f"nothing to {purpose}: the model has no parameters")
    dropped = picked(contents, replace(choice, exclude=None))
    if dropped:
        return InvalidArgumentError(
            *nothing,
            Argument("exclude"),
            f" drops all that competes ({listed(one.name for one in dropped)}); narrow it",
        )
    kinds = sorted({type(layer).__name__ for layer in layers})
    found = (kind for kind in KINDS if picked(contents, replace(choice, layers=kind)))
    return InvalidArgumentError(
        *nothing,
        f"the layers that have parameters are {', '.join(kinds)}; name others, such as by ",
        Argument("layers", next(found, "all")),
        ", or with ",
        Argument("include"),
        " (embeddings, routers and recurrent layers only count if they are named)",
    )
