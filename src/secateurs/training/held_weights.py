"""Parameters with the masks that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn, optim
from torch.optim.swa_utils import AveragedModel

from secateurs._io.text import listed
from secateurs.distributed.dtensor import full_of, local_of
from secateurs.distributed.shard import shard_of
from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import check_weights, local_mask, matching_targets
from secateurs.masks.mask import Mask, Masks
from secateurs.originals.module_state import parameter_of
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.prior_pruning import put_masks
from secateurs.training.optimizer_state import flat_states, parameter_ids
from secateurs.training.step_hooks import active_holds
from secateurs.training.zeroing import Masked, Zeroing, same_shape_mask


@dataclass
class HeldWeight:
    """A parameter with its mask.

    Attributes:
        target: the parameter.
        mask: its mask, as it was handed in.
        keep: this rank's shard of the mask, in the shape of this rank's shard of the parameter.
        some_pruned: whether this rank's shard has a pruned element.
    """

    target: Target
    mask: Mask
    keep: torch.Tensor
    some_pruned: bool

    def row(self, tensors: Sequence[torch.Tensor]) -> Masked:
        """The tensors with the mask, which is moved to their device."""
        device = tensors[0].device if tensors else self.keep.device
        if self.keep.device != device:
            self.keep = self.keep.to(device)
        return self.keep, tensors

    def replaced(self, remedy: str | None, how: str = "") -> InvalidArgumentError:
        """The error for a model that has another Parameter instead of this one."""
        remedy = remedy or "call hold(model, optimizer, handle.masks)"
        return InvalidArgumentError(
            f"{self.target.name} was replaced by another Parameter{how}, which is not held: write "
            "into the Parameter that is there (load_state_dict without assign), or make a new "
            f"optimizer and {remedy}"
        )


def held_weights(contents: ModelContents, masks: Masks) -> list[HeldWeight]:
    """Pair each mask with the parameter it is for.

    Raises:
        InvalidArgumentError: the masks are for another model.
    """
    weights: list[HeldWeight] = []
    for target, mask in check_weights(contents, masks):
        keep = local_mask(mask, target)
        full = same_shape_mask(keep, target.local)
        weights.append(HeldWeight(target, mask, full, not bool(keep.all())))
    return weights


def average_weights(averaged: Sequence[nn.Module], masks: Masks) -> list[HeldWeight]:
    """Pair each mask with its parameter in each average of the model.

    Raises:
        InvalidArgumentError: one is no average of the model.
    """
    weights: list[HeldWeight] = []
    for average in averaged:
        inner = average.module if isinstance(average, AveragedModel) else average
        try:
            weights += held_weights(ModelContents(inner), masks)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"averaged must be averages of the model, wrapped as it is: {error}"
            ) from error
    return weights


def put_beside_others(model: nn.Module, masks: Masks) -> None:
    """`secateurs.apply_masks`, but what other holds keep at zero stays so.

    Args:
        model: the network, changed in place.
        masks: as for `secateurs.apply_masks`; a hold of one of their parameters does not count.
    """
    contents = ModelContents(model)
    mine = {id(target.parameter) for target, _ in matching_targets(contents, masks)}
    holds = active_holds(module for _, module in contents.modules)
    others = (held.parameter_ids for held in holds if mine.isdisjoint(held.parameter_ids))
    put_masks(contents, masks, "global", stay=set[int]().union(*others))


def check_stepped(weights: Sequence[HeldWeight], optimizers: Sequence[optim.Optimizer]) -> None:
    """Check that optimizers step every held weight that is trained.

    Raises:
        InvalidArgumentError: some are in none of them.
    """
    known = set[int]().union(*map(parameter_ids, optimizers))
    parameters = {w.target.name: w.target.parameter for w in weights}
    missing = [n for n, p in parameters.items() if p.requires_grad and id(p) not in known]
    if missing:
        raise InvalidArgumentError(
            f"{listed(missing)}: masked, but in none of the optimizers: hand in all that train the "
            "model, hold(model, [first, second]), made after the model was moved or wrapped, or "
            "freeze what is not trained by requires_grad_(False)"
        )


def pairs_in(
    weights: Sequence[HeldWeight], contents: ModelContents, remedy: str | None
) -> list[tuple[Target, Mask]]:
    """Each held parameter of some modules with its mask, after these modules loaded a state.

    Raises:
        InvalidArgumentError: one was replaced by another Parameter.
    """
    inside = {id(each) for _, each in contents.modules}
    pairs: list[tuple[Target, Mask]] = []
    for weight in weights:
        for owner, attribute in weight.target.places:
            if id(owner) in inside:
                if parameter_of(owner, attribute) is not weight.target.parameter:
                    raise weight.replaced(remedy, " (load_state_dict with assign=True)")
                pairs.append((weight.target, weight.mask))
    return pairs


def mask_gradients(weights: Sequence[HeldWeight], ids: set[int]) -> None:
    """Set the gradients of pruned weights to zero, in the parameters with these ids."""
    stepped = (w for w in weights if id(w.target.parameter) in ids)
    pairs = ((weight, weight.target.parameter.grad) for weight in stepped)
    Zeroing()([w.row([local_of(g.detach())]) for w, g in pairs if g is not None])


def count_writes(tensors: Sequence[torch.Tensor]) -> None:
    """Raise torch's version counter of parameters, or of this rank's shards of them.

    Neither numpy nor an optimizer with ``fused=True`` raises it. A pending backward pass that
    needs the old values would compute wrong gradients, and the next pruning would take a trained
    weight for an untrained one.
    """
    torch.autograd.graph.increment_version([t for t in tensors if not t.is_inference()])


def flat_rows(weights: Sequence[HeldWeight], optimizer: optim.Optimizer) -> list[Masked]:
    """This rank's shards of the vectors of LBFGS, with the masks of all its parameters."""
    vectors = flat_states(optimizer)
    if not vectors:
        return []
    masks = {id(w.target.parameter): w for w in weights}
    flats: list[torch.Tensor] = []
    for parameter in optimizer.param_groups[0]["params"]:
        held = masks.get(id(parameter))
        keep = torch.ones(parameter.shape, dtype=torch.bool, device=parameter.device)
        if held is not None:  # a vector is not divided as its parameters are
            keep = full_of(held.target.shard.as_dtensor(held.keep))
        flats.append(keep.reshape(-1).to(parameter.device))
    whole = torch.cat(flats)
    return [(shard_of(vector).of(whole), [local_of(vector)]) for vector in vectors]
