"""`Diversified`: a model that is pruned anew at every call."""

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self, Unpack

import torch
from torch import nn

from secateurs._validation import check_choice, check_ratio, check_seed
from secateurs.errors import InvalidArgumentError
from secateurs.gradient_pruning.prunable_layers import gradient_barrier
from secateurs.masks.mask import Masks
from secateurs.outputs import plain_logits
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.pruning import PRUNE_TYPES
from secateurs.selection._select import choose
from secateurs.selection.candidates import Candidates
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.surrogates.activation_checkpointing import refuse_around, refuse_inside
from secateurs.surrogates.draw_sequence import (
    Draw,
    DrawSequence,
    check_redraw,
    placed_like,
    seed_of,
)
from secateurs.surrogates.module_proxy import ModuleProxy, may_run_layers, run_under
from secateurs.surrogates.network_snapshot import NetworkSnapshot, contents_of, surrogate_barrier
from secateurs.surrogates.pruned_call import LazyDraw, pruned_by
from secateurs.surrogates.torch_transforms import Compiler, between_graphs, refuse_recording


@shows(SelectionOptions)
class Diversified(ModuleProxy):
    r"""A surrogate: its model, pruned by a fresh draw from the same candidates at every call.

    With candidates :math:`C` (the ``p_prune`` of the units that have the smallest scores) and
    :math:`b \sim \mathrm{Bernoulli}(p_{bern})` drawn for each of them, a call computes

    .. math:: f(x;\, P \odot \theta), \qquad P = 1 - C \odot b

    (Diversified Weight Pruning, arXiv 2208.08677, section 3.2). The backward pass of a call uses
    the masks of its forward pass, also if other calls came in between. Activation checkpointing
    (``torch.utils.checkpoint``) would compute again without these masks, so it is refused. The
    weights never change: the pruned weights are other tensors, which are freed after the backward
    pass and which no other thread sees.

    It is an ``nn.Module`` with the parameters, names, device, modes and ``state_dict`` of its
    model, so it can be used as a model. ``eval()`` does not stop the draws. Other methods of the
    model (``generate``) are pruned too, with one draw for each call; its layers, called on their
    own, only inside `pruned`. It returns what the model returns; an output of transformers that
    holds nothing but logits becomes these. If layers of the model are replaced, the next call
    chooses the candidates anew.

    Criteria that need gradients read the current ones of the parameters. The seed, by default 0, is
    that of the draws and of random scores. Draws are made on the device of the weights: a seed
    gives other masks on a GPU than on a CPU.

    Args:
        model: the network, not pruned; it is shared, not copied.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive; None with a
            ``scope`` N:M.
        p_bern: the probability with which a candidate is pruned in a draw.
        redraw: ``"forward"`` (a new draw at each call), ``"step"`` (at each `step`), or a number K
            (K fixed draws, one at each call, over and over).
        prune_type: ``"global"`` (the pruned weights act on the forward and the backward pass) or
            ``"gradient"`` (on the backward pass alone: the outputs are the model's).
        **options: the fields of `secateurs.SelectionOptions`.

    Raises:
        InvalidArgumentError: an argument is wrong, there is nothing to prune, or the model is
            pruned already, divided over ranks, or a surrogate itself.

    Example:
        >>> import torch, secateurs as sc
        >>> surrogate = sc.Diversified(torch.nn.Linear(8, 4), p_prune=0.5, p_bern=0.5, seed=0)
        >>> x = torch.ones(1, 8)
        >>> torch.equal(surrogate(x), surrogate(x))
        False
        >>> with surrogate.frozen():
        ...     torch.equal(surrogate(x), surrogate(x))
        True
        >>> with surrogate.dense():
        ...     torch.equal(surrogate(x), surrogate.network(x))
        True
    """

    def __init__(
        self,
        model: nn.Module,
        p_prune: float | None,
        p_bern: float,
        *,
        redraw: str | int = "forward",
        prune_type: str = "global",
        **options: Unpack[SelectionKeywords],
    ):
        if "mode" in options:
            raise InvalidArgumentError("a surrogate has no option mode: write prune_type")
        contents = contents_of(model)
        super().__init__(model)
        self.p_bern = check_ratio("p_bern", p_bern)
        self.redraw = check_redraw(redraw)
        self.prune_type = check_choice("prune_type", prune_type, PRUNE_TYPES)
        self.options = SelectionOptions.read(Diversified, options)
        self.p_prune = self.options.ratio(p_prune)
        self._sequence = DrawSequence()
        self._snapshot: NetworkSnapshot | None = None
        self.restart(0 if self.options.seed is None else self.options.seed)
        self._select(contents)

    @property
    def seed(self) -> int:
        """The seed of the sequence of draws."""
        return self.options.seed or 0

    @property
    def candidates(self) -> Candidates:
        """The candidates that draws are made from."""
        return self._candidates

    @property
    def targets(self) -> tuple[Target, ...]:
        """The weights that compete in the network now."""
        return self._current_snapshot().targets

    @property
    def draws(self) -> int:
        """How many draws were made since the last `restart`."""
        return self._sequence.count

    @property
    def masks(self) -> Masks:
        """The masks of the last call, also after `step` or `reselect`; made when they are read.

        Before the first call, and after `restart`, those of the next call.
        """
        return (self._sequence.last or self._make(0, self._current_snapshot())).masks()

    def reselect(self) -> None:
        """Choose the candidates anew by the current weights, as after training or loading."""
        self._select(ModelContents(self.network))

    def _select(self, contents: ModelContents) -> None:
        snapshot = NetworkSnapshot(contents, self.options, self.prune_type)
        self._choose_candidates(contents)
        self._snapshot = snapshot if snapshot.lasting else None

    def _barrier(self, target: Target) -> str:
        in_gradients = gradient_barrier(target) if self.prune_type == "gradient" else ""
        return surrogate_barrier(target) or in_gradients

    def restart(self, seed: int) -> None:
        """Restart the sequence of draws with a seed."""
        self.options = replace(self.options, seed=check_seed("seed", seed))
        self._sequence.restart()

    def step(self) -> None:
        """Say that one step of an attack is over: with ``redraw="step"`` the next call draws."""
        if self.redraw == "step" and self._sequence.held is None:
            self._sequence.forget()

    def aim(self, classes: torch.Tensor, targeted: bool = True) -> None:
        """Set the classes of an attack, for recipes whose masks depend on the loss, as `MUP`."""

    @contextmanager
    def dense(self) -> Generator[Self]:
        """For a ``with`` block, prune nothing, and make no draw.

        Like ``torch.no_grad``, `dense`, `frozen` and `pruned` act in the thread that enters them.
        """
        with self._sequence.in_this_thread(dense=True):
            yield self

    @contextmanager
    def frozen(self) -> Generator[Self]:
        """For a ``with`` block, use one draw for all calls.

        It is that of the last call, or a new one if `step`, `reselect` or `restart` came since.
        """
        with self._sequence.keeping_one():
            yield self

    @contextmanager
    def pruned(self) -> Generator[nn.Module]:
        """For a ``with`` block, prune the network itself by one draw, and so each of its layers.

        To run some of its layers: ``with surrogate.pruned() as network: network.features(x)``.
        """
        self._refuse_partly("pruned()")
        with self._under(self._lazy_draw()):
            yield self.network

    @between_graphs
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model, pruned by the next draw."""
        return self._run(self.network, args, kwargs, whole=True)

    def __getattr__(self, name: str) -> Any:
        """Prune other methods that run the model, such as ``forward_features`` or ``generate``."""
        found = super().__getattr__(name)
        whole = name.startswith("forward") and callable(found)
        if not whole and not may_run_layers(name, found):
            return found

        @between_graphs
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._run(found, args, kwargs, whole=whole)

        return functools.update_wrapper(call, found, updated=())

    @between_graphs
    def _run(self, call: Callable[..., Any], args: Any, kwargs: Any, *, whole: bool) -> Any:
        """Run a function under a draw, which is made now if it is ``whole``, a forward pass.

        Any other function may use no weight: then the draw is made when it uses the first.
        """
        with Compiler() as compiler:
            if not whole and not self._sequence.is_dense:
                self._refuse_partly(getattr(call, "__name__", "this"))
            lazy = self._lazy_draw(args, kwargs) if whole else self._lazy_draw()
            if whole and lazy is not None:
                lazy.make()
            found = run_under(lambda: self._under(lazy), compiler.call, call, args, kwargs)
            return plain_logits(found) if whole else found

    def _refuse_partly(self, name: str) -> None:
        """Overridden by recipes that need the arguments of ``forward``, to raise an error."""

    def _lazy_draw(self, args: Any = (), kwargs: Any = None) -> LazyDraw | None:
        """The draw of this call, to be made later; None if the call is dense."""
        if self._sequence.is_dense:
            return None
        refuse_recording()
        refuse_around()
        snapshot = self._current_snapshot()
        make = functools.partial(self._make, snapshot=snapshot, args=args, kwargs=kwargs)
        return LazyDraw(snapshot, lambda: self._sequence.take(make, by_step=self.redraw == "step"))

    @contextmanager
    def _under(self, lazy: LazyDraw | None) -> Generator[None]:
        if lazy is None:
            yield
            return
        with pruned_by(self.network, lazy, self.prune_type), refuse_inside(lazy.snapshot.modules):
            yield

    def _current_snapshot(self) -> NetworkSnapshot:
        """The weights that compete; found anew, with new candidates, if the network has changed."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.is_current():
            return snapshot
        contents = ModelContents(self.network)
        snapshot = NetworkSnapshot(contents, self.options, self.prune_type)
        if not snapshot.fits(self._candidates):
            self._choose_candidates(contents)
        if snapshot.lasting:
            self._snapshot = snapshot
        return snapshot

    def _choose_candidates(self, contents: ModelContents) -> None:
        self._candidates = choose(contents, self.p_prune, self.options, barrier=self._barrier)
        self._sequence.forget()

    def _make(
        self, number: int, snapshot: NetworkSnapshot, args: Any = (), kwargs: Any = None
    ) -> Draw:
        """Make a draw by its number; recipes may choose candidates by the arguments of the call."""
        if isinstance(self.redraw, int):
            number %= self.redraw
        self._candidates = self._choose(snapshot, args, kwargs or {})
        return Draw(self._candidates, self.p_bern, seed_of(self.seed, number))

    def _choose(self, snapshot: NetworkSnapshot, args: Any, kwargs: Any) -> Candidates:  # noqa: ARG002
        return placed_like(self._candidates, snapshot.targets, snapshot.weights())

    def __prepare_scriptable__(self) -> nn.Module:
        """The module that ``torch.jit.script`` compiles: the model itself, if nothing is drawn."""
        if not self._sequence.is_dense:
            refuse_recording(scripting=True)
        return self.network

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_snapshot": None}  # found anew in the copy's first call

    def extra_repr(self) -> str:
        """The settings, as ``repr`` shows them."""
        options = [f"{k}={v!r}" for k, v in vars(self.options).items() if v is not None]
        return (
            f"p_prune={self.p_prune:g}, p_bern={self.p_bern:g}, redraw={self.redraw!r}, "
            f"prune_type={self.prune_type!r}, {', '.join(options)}"
        )
