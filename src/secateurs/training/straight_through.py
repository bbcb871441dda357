"""Pruned weights that go on learning behind the mask (dynamic network surgery)."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn, optim

from secateurs.distributed.dtensor import local_of
from secateurs.masks.mask import Masks
from secateurs.originals.module_state import keep_original, original_of, parameter_of
from secateurs.originals.original import Original
from secateurs.parameters.target import Target
from secateurs.training._hold import Hold
from secateurs.training.held_weights import HeldWeight, count_writes
from secateurs.training.mask_state import moved_like
from secateurs.training.optimizer_state import parameter_ids
from secateurs.training.step_hooks import Step, with_closure
from secateurs.training.zeroing import Masked, Zeroing


class StraightThrough(Hold):
    """A `Hold` under which the optimizer steps the dense weights, those in ``weight_orig``.

    Before a step the dense weights are written into the Parameters, whose gradients are those of
    the masked weights. After it their new values are copied to ``weight_orig``, and they are pruned
    again. So between steps pruned weights are zero, and the optimizer's state of them is kept.
    """

    _pruned: set[int]
    _shown: set[int]

    def begin(self) -> None:
        """As `Hold.begin`."""
        self._shown = set()
        self._note_pruned()
        super().begin()

    def remove(self) -> None:
        """As `Hold.remove`; if a step was interrupted, its weights are pruned before."""
        self._hide(set(self._shown))
        super().remove()

    def update(self, masks: Masks, *, states: bool = True) -> None:
        """As `Hold.update`."""
        super().update(masks, states=states)
        self._note_pruned()

    def write_zeros(self, *, states: bool = True) -> None:
        """As `Hold.write_zeros`, but the optimizers' state is not touched."""
        del states
        super().write_zeros(states=False)

    def before_step(self, optimizer: optim.Optimizer, step: Step) -> Step | None:
        """Write the dense weights, after the closure if there is one."""
        ids = parameter_ids(optimizer)
        wrapped = with_closure(step, before=lambda: self._hide(ids), after=lambda: self._show(ids))
        if wrapped is None:
            self._show(ids)
        return wrapped

    def after_step(self, optimizer: optim.Optimizer) -> None:
        """Copy what was learned to ``weight_orig``, and prune again."""
        self.steps += 1
        self._hide(parameter_ids(optimizer))

    @torch.no_grad()
    def loaded(self, module: nn.Module) -> None:
        """As `Hold.loaded`; where zeros were loaded, what was learned behind the mask stays."""
        for weight in self._weights:
            owners = [m for m, a in weight.target.places if parameter_of(m, a) is not None]
            if module in owners and _originals_of(weight.target):
                here = weight.target.local
                known = weight.keep.to(here.device) | (here != 0)
                here.copy_(torch.where(known, here, local_of(_dense_of(weight.target))))
        super().loaded(module)

    def dense(self) -> dict[str, torch.Tensor]:
        """The dense weights by name, pruned or not; DTensors of a sharded model."""
        return {
            w.target.name: _dense_of(w.target)
            if _originals_of(w.target)
            else w.target.parameter.detach()
            for w in self._weights
        }

    @torch.no_grad()
    def load_dense(self, values: Mapping[str, torch.Tensor]) -> None:
        """Write dense weights into the Parameters; the caller prunes them."""
        for weight in self._weights:
            here, value = weight.target.local, values[weight.target.name]
            here.copy_(local_of(moved_like(value, weight.target.parameter.detach())))

    def _note_pruned(self) -> None:
        # Before each step it is too late: `restore` and `make_permanent` drop the originals.
        targets = (weight.target for weight in self._weights)
        self._pruned = {id(t.parameter) for t in targets if t.original is not None}

    def _masked(self, ids: set[int], *, shown: bool) -> Iterator[HeldWeight]:
        pruned = ids & self._pruned
        for weight in self._weights:
            key = id(weight.target.parameter)
            if key in pruned and (key in self._shown) == shown:
                yield weight

    @torch.no_grad()
    def _show(self, ids: set[int]) -> None:
        for weight in self._masked(ids, shown=False):
            here, dense = weight.target.local, local_of(_dense_of(weight.target))
            here.copy_(torch.where(weight.keep.to(here.device), here, dense))
            self._shown.add(id(weight.target.parameter))

    @torch.no_grad()
    def _hide(self, ids: set[int]) -> None:
        rows: list[Masked] = []
        weights = list(self._masked(ids, shown=True))
        written = [weight.target.local for weight in weights]
        for weight, here in zip(weights, written, strict=True):
            local_of(_dense_of(weight.target)).copy_(here)
            rows.append(weight.row([here]))
            self._shown.discard(id(weight.target.parameter))
        self._zeroing.setdefault(0, Zeroing())(rows)
        count_writes(written)
        for weight in weights:
            for original in _originals_of(weight.target):
                original.note_pruned(weight.keep)


def _originals_of(target: Target) -> list[Original]:
    found = (original_of(*place) for place in target.places)
    return [original for original in found if original is not None]


def _dense_of(target: Target) -> torch.Tensor:
    """The values of ``weight_orig``, which is made where it is missing, as after `restore`."""
    originals = _originals_of(target)
    if len(originals) < len(target.places):
        values = originals[0].values if originals else target.parameter.detach().clone()
        for module, attribute in target.places:
            keep_original(module, attribute, Original(values, target.parameter))
        return values
    return originals[0].beside.detach()
