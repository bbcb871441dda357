"""Parameters with the masks that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import optim

from secateurs._io.text import listed
from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import check_weights, local_mask
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.training.optimizer_state import parameter_ids
from secateurs.training.zeroing import Masked, same_shape_mask


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


def count_writes(tensors: Sequence[torch.Tensor]) -> None:
    """Raise torch's version counter of parameters, or of this rank's shards of them.

    Neither numpy nor an optimizer with ``fused=True`` raises it. A pending backward pass that
    needs the old values would compute wrong gradients, and the next pruning would take a trained
    weight for an untrained one.
    """
    torch.autograd.graph.increment_version([t for t in tensors if not t.is_inference()])


def flat_mask(weights: Sequence[HeldWeight], optimizer: optim.Optimizer) -> torch.Tensor:
    """The masks of all parameters of an optimizer's first group, flattened and concatenated."""
    masks = {id(w.target.parameter): w.keep for w in weights}
    flats = [
        masks.get(id(p), torch.ones_like(p, dtype=torch.bool)).reshape(-1)
        for p in optimizer.param_groups[0]["params"]
    ]
    return torch.cat(flats)
