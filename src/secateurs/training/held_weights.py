"""Parameters with the masks that hold them, and zeros written where these prune."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import optim

from secateurs._io.text import listed
from secateurs._tensors.memory_order import as_integers, same_order
from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import check_weights, local_mask
from secateurs.masks.mask import Mask, Masks
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.training.optimizer_state import parameter_ids

Masked = tuple[torch.Tensor, Sequence[torch.Tensor]]
"""A mask, True where a value is kept, and tensors of its shape, of any dtype and memory order."""


class Zeroing:
    """Writes +0 where masks say so: bit-exact for every dtype, also over NaN, infinity and -0.

    The bits are multiplied as integers, those of all tensors on a device at once. Views and factors
    are made once, and again when the address of a tensor has changed: for a few hundred tensors
    this takes as long as a step of an optimizer on a GPU.
    """

    def __init__(self) -> None:
        self._known: list[Any] = []
        self._products: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    @torch.no_grad()
    def __call__(self, rows: Sequence[Masked]) -> None:
        """Write the zeros."""
        known = [
            (id(keep), [(t.data_ptr(), t.stride(), t.dtype) for t in tensors])
            for keep, tensors in rows
        ]
        if known != self._known:
            self._prepare(rows)
            self._known = known
        for tensors, factors in self._products:
            torch._foreach_mul_(tensors, factors)  # pyright: ignore[reportPrivateImportUsage]

    def _prepare(self, rows: Sequence[Masked]) -> None:
        # The rows themselves are kept, so that no other tensor can get their addresses.
        self._rows = list(rows)
        together: dict[Any, tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
        for keep, tensors in rows:
            factors: dict[Any, torch.Tensor] = {}  # one for all tensors of a mask
            for tensor in (t for t in tensors if not t.is_meta and t.numel()):
                values = as_integers(tensor)
                kind = values.device, values.dtype
                if kind not in factors:
                    factors[kind] = keep.to(*kind)
                group = together.setdefault(kind, ([], []))
                group[0].append(values)
                group[1].append(factors[kind])
        self._products = list(together.values())


def same_shape_mask(keep: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask that broadcasts to a tensor, written out in its shape, device and order of memory."""
    keep = keep.to(like.device)
    if keep.shape == like.shape and same_order(keep, like):
        return keep
    return torch.empty_like(like, dtype=torch.bool).copy_(keep.expand(like.shape))


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

    An optimizer with ``fused=True`` does not raise it. A pending backward pass that
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
