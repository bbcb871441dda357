"""Masks that stay in force while an optimizer works.

Hooks of the optimizer itself write the zeros. So a training loop needs one call, also where a
`GradScaler`, Lightning or transformers calls ``optimizer.step()``.
"""

import weakref
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import nn, optim
from torch.optim.optimizer import register_optimizer_step_pre_hook

from secateurs.errors import InvalidArgumentError
from secateurs.masks.apply import prune_weights
from secateurs.masks.mask import Masks
from secateurs.originals.model_lock import changing
from secateurs.originals.module_state import parameter_of
from secateurs.parameters.model_contents import ModelContents
from secateurs.training.held_weights import (
    average_weights,
    check_stepped,
    count_writes,
    flat_rows,
    held_weights,
    mask_gradients,
    pairs_in,
    put_beside_others,
)
from secateurs.training.mask_state import masks_from_zeros
from secateurs.training.optimizer_state import (
    Optimizers,
    check_optimizers,
    element_states,
    is_elementwise,
    parameter_ids,
    with_inner,
)
from secateurs.training.step_hooks import (
    LoadHook,
    Step,
    active_holds,
    refusal_by,
    step_hooks,
    with_closure,
)
from secateurs.training.zeroing import Zeroing

Averages = nn.Module | Sequence[nn.Module]


def several(averaged: Averages) -> Sequence[nn.Module]:
    """One average or several as a sequence."""
    return cast(
        "Sequence[nn.Module]", averaged if isinstance(averaged, list | tuple) else [averaged]
    )


def hold(
    model: nn.Module,
    optimizer: Optimizers,
    masks: Masks | None = None,
    *,
    averaged: Averages = (),
) -> "Hold":
    """Keep pruned weights at zero through every step of an optimizer.

    After each ``optimizer.step()`` a pruned weight is +0, and so is each value that the optimizer
    keeps of it: momentum, both moments of Adam and their maximum, every float tensor of the
    parameter's shape. Gradients stay dense (`Hold.mask_gradients` sets those of pruned weights to
    zero, for instance before they are clipped by their norm), except for optimizers in which one
    weight's gradient changes other weights, such as LBFGS and Muon: these see only gradients of
    weights that are kept. Frozen parameters may be masked without being in an optimizer.

    ``load_state_dict`` on a held model keeps it held: what was loaded is pruned, and remains in
    ``weight_orig``. Where two calls hold one parameter, the later call ends the earlier hold.

    Args:
        model: the network, wrapped by DistributedDataParallel or divided by ``fully_shard`` as it
            is trained. Its state dict does not change.
        optimizer: the optimizer of the masked parameters, or a list of all their optimizers.
        masks: what to hold; they are applied as by `secateurs.apply_masks`. By default those of
            the weights that are zero now; see `masks_from_zeros`.
        averaged: averages of the model (`torch.optim.swa_utils.AveragedModel`, or copies), in
            which pruned weights become zero now. Averaging with zeros then keeps them at zero.

    Returns:
        A handle, which is also a context manager: `Hold.remove` or the end of the block ends it.

    Raises:
        InvalidArgumentError: the masks are for another model, the model has no zeros, or a masked
            parameter is in none of the optimizers. The model is unchanged. Later, before a step: an
            optimizer steps a held parameter, but was not handed in; or a held parameter was
            replaced by another Parameter.

    Example:
        >>> import torch, secateurs as sc
        >>> from secateurs.training import hold
        >>> model = sc.global_prune(torch.nn.Linear(4, 4), 0.5)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> with hold(model, optimizer):
        ...     for _ in range(3):
        ...         model(torch.ones(1, 4)).sum().backward()
        ...         optimizer.step()
        >>> sc.sparsity(model).ratio
        0.5
    """
    optimizers = check_optimizers(optimizer)
    found = masks_from_zeros(model) if masks is None else masks
    held = Hold(model, optimizers, found, averaged=averaged)
    if masks is not None:
        put_beside_others(model, masks)
    held.begin()
    held.write_zeros()
    return held


class Hold:
    """What `hold` returns: masks in force, until it is removed.

    Args:
        model: the network.
        optimizers: all optimizers of the masked parameters.
        masks: what is held.
        averaged: averages of the model.
        dense_gradients: whether every optimizer sees the gradients of pruned weights.
        remedy: what errors say to do about a new optimizer; None for handles of `hold`.

    Attributes:
        masks: what is held now.
        steps: how many steps the optimizers took since.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[optim.Optimizer],
        masks: Masks,
        *,
        averaged: Averages = (),
        dense_gradients: bool = False,
        remedy: str | None = None,
    ):
        self.masks, self.steps = masks, 0
        self._model = model
        self._averaged = several(averaged)
        self._dense_gradients = dense_gradients
        self._remedy = remedy
        self._optimizers = with_inner(optimizers)
        self._zeroing: dict[int, Zeroing] = {}
        self._handles: list[Any] = []
        self._weights = held_weights(ModelContents(self._model), masks)
        check_stepped(self._weights, self._optimizers)
        average_weights(self._averaged, masks)

    def __enter__(self) -> Self:
        if not self._handles:
            raise InvalidArgumentError(
                "this hold has ended: call hold(model, optimizer, handle.masks)"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        names = ", ".join(type(one).__name__ for one in self._optimizers)
        return f"Hold({self.masks!r} under {names}{'' if self._handles else ', removed'})"

    @property
    def is_active(self) -> bool:
        """Whether masks are held: from `begin` until `remove` or a later hold."""
        return bool(self._handles)

    @property
    def parameter_ids(self) -> set[int]:
        """The ids of the held parameters, and of Parameters that have replaced them since."""
        targets = [weight.target for weight in self._weights]
        now = (parameter_of(*place) for target in targets for place in target.places)
        return {id(t.parameter) for t in targets} | {id(p) for p in now if p is not None}

    def remove(self) -> None:
        """Stop holding: pruned weights are zero until a step changes them."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self) -> None:
        """Install the hooks; earlier holds of the same parameters end."""
        modules = dict.fromkeys(module for w in self._weights for module, _ in w.target.places)
        for held in active_holds(modules):
            if not held.parameter_ids.isdisjoint(self.parameter_ids):
                held.remove()
        for module in modules:
            self._handles.append(module.register_load_state_dict_post_hook(LoadHook(self)))
        for optimizer in self._optimizers:
            self._attach(optimizer)
        # It remains, and does nothing, if the hold is forgotten: removed when that is collected, it
        # could change the hooks of all optimizers while one of them runs through these.
        self._handles.append(register_optimizer_step_pre_hook(refusal_by(weakref.ref(self))))

    def update(self, masks: Masks, *, states: bool = True) -> None:
        """Hold other masks from now on; the model's weights are pruned by them already.

        Args:
            masks: what to hold.
            states: whether to set the optimizers' states to zero now, not only after their steps.
        """
        self._weights = held_weights(ModelContents(self._model), masks)
        self.masks = masks
        self._zeroing = {}
        check_stepped(self._weights, self._optimizers)
        self.write_zeros(states=states)

    def forget_states(self) -> None:
        """Empty the state of the optimizers, as if they were new."""
        for optimizer in self._optimizers:
            optimizer.state.clear()

    @torch.no_grad()
    def write_zeros(self, *, states: bool = True) -> None:
        """Set pruned elements to +0 in the weights, the optimizers' states and the averages."""
        for optimizer in self._optimizers if states else ():
            self._write(optimizer)
        weights = [*self._weights, *average_weights(self._averaged, self.masks)]
        Zeroing()([w.row([w.target.local]) for w in weights if w.some_pruned])
        count_writes([weight.target.local for weight in self._weights])

    def mask_gradients(self) -> None:
        """Set the gradients of pruned weights to zero, for instance before a norm is taken."""
        mask_gradients(self._weights, self.parameter_ids)

    def before_step(self, optimizer: optim.Optimizer, step: Step) -> Step | None:
        """Mask gradients if the optimizer needs that; may return other arguments of the step."""
        if self._dense_gradients or is_elementwise(optimizer):
            return None
        ids = parameter_ids(optimizer)
        masked = with_closure(step, after=lambda: mask_gradients(self._weights, ids))
        if masked is None:
            mask_gradients(self._weights, ids)
        return masked

    def after_step(self, optimizer: optim.Optimizer) -> None:
        """Write zeros again where a step has changed them."""
        self.steps += 1
        self._write(optimizer)

    @torch.no_grad()
    def loaded(self, module: nn.Module) -> None:
        """Prune what ``load_state_dict`` put into the parameters of a module."""
        contents = ModelContents(module)
        pairs = pairs_in(self._weights, contents, self._remedy)
        with changing(self._model):
            # A layer inside of this module may be under another hold.
            prune_weights(contents, pairs, {id(t.parameter) for t in contents.targets.values()})

    def check_optimizer(self, optimizer: optim.Optimizer) -> None:
        """Check an optimizer that is about to step.

        Raises:
            InvalidArgumentError: it steps a held parameter, but was not handed in; or it steps a
                Parameter that has replaced a held one.
        """
        if not self._handles:
            return
        theirs = parameter_ids(optimizer)
        for weight in self._weights:
            for place in weight.target.places:
                now = parameter_of(*place)
                if now is not weight.target.parameter and id(now) in theirs:
                    raise weight.replaced(self._remedy)
        known = {id(one) for one in self._optimizers}
        stepped = [w.target.name for w in self._weights if id(w.target.parameter) in theirs]
        if id(optimizer) in known or not stepped:
            return
        if any(id(one) in known for one in with_inner([optimizer])):  # wrapped since
            self._optimizers.append(optimizer)
            self._attach(optimizer)
            return
        remedy = "call hold(model, optimizer) with the new one, or remove() the old handle"
        raise InvalidArgumentError(
            f"{stepped[0]} is held, but the {type(optimizer).__name__} that is about to step it "
            f"was not handed in, so it would bring pruned weights back: {self._remedy or remedy}"
        )

    def _attach(self, optimizer: optim.Optimizer) -> None:
        if "_optimizer_step_post_hooks" not in vars(optimizer):
            return  # a wrapper that calls another optimizer's step
        before, after = step_hooks(self)
        self._handles.append(optimizer.register_step_pre_hook(before))
        self._handles.append(optimizer.register_step_post_hook(after))

    @torch.no_grad()
    def _write(self, optimizer: optim.Optimizer) -> None:
        ids = parameter_ids(optimizer)
        stepped = [(w, w.target.local) for w in self._weights if id(w.target.parameter) in ids]
        rows = [
            w.row([local, *element_states(optimizer, w.target.parameter)])
            for w, local in stepped
            if w.some_pruned
        ]
        rows += flat_rows(self._weights, optimizer)
        self._zeroing.setdefault(id(optimizer), Zeroing())(rows)
        count_writes([local for _, local in stepped])
