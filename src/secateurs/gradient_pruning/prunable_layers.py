"""Which weights can be pruned in the backward pass alone; the others are refused."""

from collections.abc import Sequence

from torch import nn

from secateurs._io.text import listed
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.layer_kinds import KINDS
from secateurs.parameters.patterns import excluding
from secateurs.parameters.recomputed_weights import refuse_recomputed
from secateurs.parameters.target import Target


def check_gradient_prunable(targets: Sequence[Target]) -> None:
    """Refuse weights that cannot be gradient-pruned; one error names all that share a reason.

    Raises:
        InvalidArgumentError: one is not the weight of a convolution, linear or attention layer or
            of experts, or its module's ``forward`` was replaced, or computes another weight from
            it, or is accelerated.
    """
    others = [t for t in targets if gradient_barrier(t)]
    if others:
        raise InvalidArgumentError(
            "gradient pruning works on the weights of convolutions, linear layers, attention and "
            f"experts; {_named(others)}: write ",
            _without(others, targets),
        )
    replaced = [t for t in targets if any("forward" in vars(module) for module, _ in t.places)]
    if replaced:
        raise InvalidArgumentError(
            f"{listed(t.name for t in replaced)} cannot be gradient-pruned, since the forward "
            "method of the module was replaced on the instance: undo that, or write ",
            _without(replaced, targets),
        )
    fast = [t for t in targets if any(hasattr(type(m), "secateurs_dense") for m, _ in t.places)]
    if fast:
        raise InvalidArgumentError(
            f"{listed(t.name for t in fast)} cannot be gradient-pruned, since the model is "
            "accelerated: call restore() of what accelerate returned first"
        )
    refuse_recomputed(targets, stored=False)


def gradient_barrier(target: Target) -> str:
    """Why a weight cannot be gradient-pruned because of the kind of its layer; empty if it can."""
    linear = any(_is_linear(module, attribute) for module, attribute in target.places)
    return "" if linear or target.is_stack else "cannot be pruned in the backward pass alone"


def _named(targets: Sequence[Target]) -> str:
    if len(targets) == 1:
        return f"{targets[0].name} belongs to {type(targets[0].module).__name__}"
    kinds: dict[str, list[str]] = {}
    for target in targets:
        kinds.setdefault(type(target.module).__name__, []).append(target.name)
    counts = ", ".join(f"{len(names)} of {kind} ({listed(names)})" for kind, names in kinds.items())
    return f"{len(targets)} parameters are none: {counts}"


def _without(targets: Sequence[Target], chosen: Sequence[Target]) -> Argument:
    names = [target.name for target in targets]
    return excluding(names, {t.name for t in chosen} - set(names))


def _is_linear(module: nn.Module, attribute: str) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        return attribute.endswith("_proj_weight")
    return attribute == "weight" and isinstance(module, (*KINDS["conv"], *KINDS["linear"]))
