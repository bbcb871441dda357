"""The steps that go through the layers in order: BatchNorm, channels, reconstruction."""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateurs.errors import Argument, InvalidArgumentError, RepairWarning
from secateurs.originals.module_state import original_of, parameter_of
from secateurs.parameters.target import Target
from secateurs.repair.changes import Changes
from secateurs.repair.layer_sites import BatchNormSite, LayerOptions, WeightSite
from secateurs.repair.layer_uses import LayerUses
from secateurs.repair.lockstep import Lockstep, Site

LAYERWISE = ("batchnorm", "channels", "reconstruct", "sparsegpt")
"""The steps that one pass through the layers can take together."""

# The bias beside each weight that can be solved for, and which of how many parts of it.
_BIASES = {
    "weight": ("bias", 0, 1),
    "in_proj_weight": ("in_proj_bias", 0, 1),
    "q_proj_weight": ("in_proj_bias", 0, 3),
    "k_proj_weight": ("in_proj_bias", 1, 3),
    "v_proj_weight": ("in_proj_bias", 2, 3),
}


@dataclass(frozen=True)
class PrunedWeight:
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
    weights: Sequence[PrunedWeight],
    dense: dict[int, Tensor],
    uses: LayerUses,
    changes: Changes,
    *,
    damping: float,
    most_values: int,
    memory: int,
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """Repair layer after layer, each on the inputs that the repaired layers before it give.

    Args:
        model: the network, in evaluation mode.
        steps: names in `LAYERWISE`.
        batches: images, on the model's device.
        weights: those that are pruned.
        dense: what the dense network has in the place of the model's tensors.
        uses: which layers the network calls.
        changes: takes note of what is changed.
        damping: see `masked_least_squares`.
        most_values: see `LayerOptions`.
        memory: see `Lockstep`.

    Returns:
        For each weight that was solved the error of its outputs before and after; and the names of
        those that were left as they are, since they are not called once by a function that is
        known.
    """
    images = sum(map(len, batches))
    options = LayerOptions(
        reconstruct="reconstruct" in steps,
        channels="channels" in steps,
        choose="sparsegpt" in steps,
        damping=damping,
        most_values=most_values,
        images=images,
    )
    solves = options.reconstruct or options.choose
    sites: dict[int, Site] = {}
    if "batchnorm" in steps:
        sites |= _batch_norms(model, uses)
    solved: list[WeightSite] = []
    left: list[str] = []
    for weight in weights if solves or options.channels else ():
        key = id(weight.target.parameter)
        if uses.counts.get(key) != 1 or weight.target.attribute not in _BIASES:
            left.append(weight.target.name)
            continue
        # The BatchNorm behind takes away any mean and scale, if its statistics are to come.
        normalised = uses.before_batch_norm.get(key) in sites
        if normalised and not solves:
            continue
        site = _weight_site(weight, dense, normalised, options)
        sites[key] = site
        solved.append(site)
    if not sites:
        return {}, tuple(left)
    _note(model, weights, sites, dense, changes)
    Lockstep(model, sites, dense, uses.sizes_of(sites), memory).run(batches)
    _warn_of_few(solved if solves else ())
    for site in solved if options.choose else ():
        changes.remasked(site.weight, site.mask)
    return {site.name: site.errors for site in solved}, tuple(left)


def batch_norms_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The BatchNorm layers that keep statistics."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def _batch_norms(model: nn.Module, uses: LayerUses) -> dict[int, Site]:
    sites: dict[int, Site] = {}
    for name, module in batch_norms_of(model):
        mean, variance = (parameter_of(module, a) for a in ("running_mean", "running_var"))
        if mean is not None and variance is not None and uses.counts.get(id(mean)) == 1:
            sites[id(mean)] = BatchNormSite(name, mean, variance)
    if not sites:
        raise InvalidArgumentError(
            "the model has no BatchNorm layer with running statistics that it calls once: leave "
            "batchnorm out of ", Argument("steps"), ", and write channels or reconstruct"
        )  # fmt: skip
    return sites


def _weight_site(
    weight: PrunedWeight, dense: dict[int, Tensor], normalised: bool, options: LayerOptions
) -> WeightSite:
    target = weight.target
    parameter = target.parameter
    attribute, part, parts = _BIASES[target.attribute]
    bias = parameter_of(target.module, attribute)
    if bias is not None and parts > 1:
        bias = bias.detach().chunk(parts)[part]
    return WeightSite(
        target.name,
        parameter,
        bias,
        dense.get(id(parameter), parameter.detach().clone()),
        weight.mask,
        around_mean=bias is not None or normalised,
        options=options,
    )


def _note(
    model: nn.Module,
    weights: Sequence[PrunedWeight],
    sites: dict[int, Site],
    dense: dict[int, Tensor],
    changes: Changes,
) -> None:
    """Take note of what will change; the dense network keeps the values from before."""
    places = [(w.target.module, a) for w in weights if id(w.target.parameter) in sites
              for a in (w.target.attribute, _BIASES[w.target.attribute][0])]  # fmt: skip
    for _, module in batch_norms_of(model):
        if id(parameter_of(module, "running_mean")) in sites:
            places += [(module, "running_mean"), (module, "running_var")]
    for module, attribute in places:
        tensor = parameter_of(module, attribute)
        if tensor is None:
            continue
        changes.about_to(module, attribute)
        if id(tensor) not in dense:
            original = original_of(module, attribute)
            values = tensor.detach().clone() if original is None else original.beside
            dense[id(tensor)] = values


def _warn_of_few(sites: Sequence[WeightSite]) -> None:
    few = [site for site in sites if site.values < site.inputs]
    if few:
        worst = min(few, key=lambda site: site.values / site.inputs)
        others = f" (and so in {len(few) - 1} more)" if len(few) > 1 else ""
        warnings.warn(
            RepairWarning(
                f"{worst.name} has {worst.inputs} inputs, and these images give {worst.values} "
                f"values of each, too few to determine its weights{others}: more images may repair "
                "more"
            ),
            stacklevel=6,  # past the callable module
        )
