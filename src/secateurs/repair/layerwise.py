"""The steps that repair one layer after the other."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateurs._io.text import counted
from secateurs.errors import Argument, InvalidArgumentError, RepairWarning
from secateurs.originals.module_state import original_of, parameter_of
from secateurs.parameters.target import Target
from secateurs.repair.changes import Changes
from secateurs.repair.layer_sites import BatchNormSite, LayerOptions, LayerSite, WeightSite
from secateurs.repair.layer_uses import LayerUses
from secateurs.repair.lockstep import Lockstep, Site
from secateurs.repair.pass_state import PassFile, ResumableSite, pass_key
from secateurs.repair.repair_options import RepairOptions
from secateurs.training.step_hooks import LoadHook

# For each weight that can be solved for: its bias, and which of how many parts of the bias it uses.
_BIASES = {
    "weight": ("bias", 0, 1),
    "in_proj_weight": ("in_proj_bias", 0, 1),
    "q_proj_weight": ("in_proj_bias", 0, 3),
    "k_proj_weight": ("in_proj_bias", 1, 3),
    "v_proj_weight": ("in_proj_bias", 2, 3),
}
_PROJECTIONS = ("query", "key", "value")
STATISTICS = ("running_mean", "running_var")
"""The buffers of a BatchNorm layer that ``"batchnorm"`` changes."""


@dataclass(frozen=True)
class PrunedTarget:
    """A weight that is pruned.

    Attributes:
        target: the parameter.
        mask: True is kept, in its shape.
    """

    target: Target
    mask: Tensor


def repair_layers(
    model: nn.Module,
    steps: Collection[str],
    batches: Sequence[Tensor],
    weights: Sequence[PrunedTarget],
    uses: LayerUses,
    changes: Changes,
    options: RepairOptions,
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Repair layer after layer, each on the inputs that the repaired layers before it give.

    Args:
        model: the network, in evaluation mode.
        steps: names in `secateurs.repair.repair_options.LAYERWISE`.
        batches: images, on the model's device.
        weights: those that are pruned.
        uses: which layers the network calls.
        changes: records what is changed, and has the dense network's tensors.
        options: how.

    Returns:
        For each weight that was solved for, the error of its outputs before and after; and the
        names of the weights that were left as they are, since a known function does not use them
        exactly once.
    """
    how = LayerOptions(steps, options, sum(map(len, batches)))
    sites: dict[int, LayerSite] = {}
    norms = called_batch_norms(model, uses, "steps") if "batchnorm" in steps else {}
    for key, (name, norm) in norms.items():
        mean, variance = (parameter_of(norm, one) for one in STATISTICS)
        if mean is not None and variance is not None:
            sites[key] = BatchNormSite(name, mean, variance)
    solved: list[tuple[PrunedTarget, list[WeightSite]]] = []
    left: list[str] = []
    for weight in weights if how.solves or "channels" in steps else ():
        parts = solvable_parts(weight.target, uses)
        if not parts:
            left.append(weight.target.name)
            continue
        # A BatchNorm that follows, and is repaired, takes away any mean and scale.
        normalised = uses.before_batch_norm.get(id(parts[0])) in sites
        if normalised and not how.solves:
            continue
        of_weight = weight_sites(weight, parts, changes.dense, normalised, how)
        sites |= {id(site.weight): site for site in of_weight}
        solved.append((weight, of_weight))
    if not sites:
        return {}, tuple(left)
    for target in (weight.target for weight, _ in solved):
        for attribute in (target.attribute, bias_of(target)):
            changes.about_to(target.module, attribute)
    for _, norm in norms.values():
        for statistic in STATISTICS:
            changes.about_to(norm, statistic)
    resumable: Mapping[int, Site] = sites
    if options.state is not None:
        known = (*batches, *model.parameters(), *model.buffers(), *changes.dense.values(),
                 *(weight.mask for weight in weights))  # fmt: skip
        file = PassFile(options.state, pass_key(steps, options, known))
        resumable = {key: ResumableSite(site, file) for key, site in sites.items()}
    Lockstep(model, resumable, changes.dense, uses, options.memory).run(batches)
    of_all = [site for _, of_weight in solved for site in of_weight]
    _warn_of_few(of_all if how.solves else ())
    for weight, of_weight in solved if "sparsegpt" in steps else ():
        masks = [site.mask for site in of_weight]
        mask = masks[0] if len(masks) == 1 else torch.cat(masks)
        changes.remasked(weight.target.parameter, mask)
    return {site.name: site.errors for site in of_all}, tuple(left)


def refuse_fixed_masks(weights: Sequence[PrunedTarget], steps: Collection[str]) -> None:
    """Refuse weights whose masks the steps may not change: held ones, or of kernels or filters.

    ``"sparsegpt"`` would leave weights in a kernel that was zero as a whole, and a hold would put
    its own masks back. A hold also refuses the optimizer of ``"distill"``.

    Raises:
        InvalidArgumentError: there is such a weight; it is named.
    """
    for one in weights:
        module, name = one.target.module, one.target.name
        for step in ("sparsegpt", "distill"):
            hooks = module._load_state_dict_post_hooks.values() if step in steps else ()
            if any(isinstance(hook, LoadHook) and hook.held is not None for hook in hooks):
                raise InvalidArgumentError(
                    f"{step!r} changes what is held, and {name} is held while it is trained: "
                    "leave it out of ", Argument("steps"), ", or end that before, by the remove() "
                    "of hold(...) or of the Pruner, and hold the masks again after it",
                )  # fmt: skip
        original = original_of(module, one.target.attribute)
        mask = None if original is None else original.mask
        if "sparsegpt" in steps and mask is not None and mask.shape != one.mask.shape:
            raise InvalidArgumentError(
                f"'sparsegpt' chooses single weights, and {name} is pruned by kernels or filters: "
                "leave it out of ", Argument("steps"), ", or prune with ",
                Argument("granularity", "weight"),
            )  # fmt: skip


def batch_norms_of(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The BatchNorm layers that keep statistics."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def called_batch_norms(
    model: nn.Module, uses: LayerUses, argument: str
) -> dict[int, tuple[str, _BatchNorm]]:
    """The BatchNorm layers that the network calls once, by the id of their running mean.

    Raises:
        InvalidArgumentError: there are none; ``argument`` is where not to ask for them.
    """
    known = ((id(parameter_of(one[1], STATISTICS[0])), one) for one in batch_norms_of(model))
    found = {key: one for key, one in known if uses.counts.get(key) == 1}
    if not found:
        raise InvalidArgumentError(
            "the model has no BatchNorm layer with running statistics that it calls once: leave "
            "batchnorm out of ", Argument(argument), ", and write channels or reconstruct"
        )  # fmt: skip
    return found


def solvable_parts(target: Target, uses: LayerUses) -> tuple[Tensor, ...]:
    """The tensors that identify the calls of a weight; none unless each is called exactly once."""
    parts = uses.called(target.parameter)
    used_once = [uses.counts[id(part)] == 1 for part in parts]
    once = all(used_once) and id(target.parameter) not in uses.otherwise
    return parts if once and target.attribute in _BIASES else ()


def bias_of(target: Target) -> str:
    """The attribute of the bias beside a weight that can be solved for."""
    return _BIASES[target.attribute][0]


def weight_sites(
    weight: PrunedTarget,
    parts: Sequence[Tensor],
    dense: Mapping[int, Tensor],
    normalised: bool,
    options: LayerOptions,
    make: Callable[..., WeightSite] = WeightSite,
) -> list[WeightSite]:
    """The sites of a weight that is used as a whole or in parts, each with its part of the bias.

    Args:
        weight: the weight.
        parts: the tensors that identify its calls.
        dense: the dense network's tensors, by the ids of the model's.
        normalised: whether a BatchNorm that follows it is repaired, too.
        options: how it is repaired.
        make: makes a site.
    """
    target, count = weight.target, len(parts)
    attribute, which, of = _BIASES[target.attribute]
    bias = parameter_of(target.module, attribute)
    biases: Sequence[Tensor | None] = [None] * count
    if bias is not None:
        split = bias.detach().chunk(max(of, count))
        biases = split if count > 1 else split[which : which + 1]
    start = dense.get(id(target.parameter), target.parameter.detach().clone())
    names = [target.name] if count == 1 else [f"{target.name} ({one})" for one in _PROJECTIONS]
    values = (names, parts, biases, start.chunk(count), weight.mask.chunk(count))
    around_mean = bias is not None or normalised
    return [
        make(*each, around_mean=around_mean, options=options) for each in zip(*values, strict=True)
    ]


def _warn_of_few(sites: Sequence[WeightSite]) -> None:
    few = [site for site in sites if site.values < site.inputs]
    if few:
        worst = min(few, key=lambda site: site.values / site.inputs)
        others = f" (and so in {len(few) - 1} more)" if len(few) > 1 else ""
        warnings.warn(
            RepairWarning(
                f"{worst.name} has {counted(worst.inputs, 'input')}, and these images give "
                f"{counted(worst.values, 'value')} of each, too few to determine its "
                f"weights{others}: more images may repair more"
            ),
            stacklevel=6,
        )
