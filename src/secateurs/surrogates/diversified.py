"""`Diversified`: a model that is pruned afresh at every call."""

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Never, Self

import torch
from torch import nn

from secateurs._validation import check_choice, check_ratio, check_seed
from secateurs.criteria import Score
from secateurs.errors import InvalidArgumentError
from secateurs.gradient_pruning.modules import gradient_barrier
from secateurs.masks.mask import Masks
from secateurs.outputs import plain_logits
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.parameters.target import Target
from secateurs.pruning import PRUNE_TYPES
from secateurs.selection._select import SelectOptions, choose
from secateurs.selection.candidates import Candidates
from secateurs.surrogates.activation_checkpointing import record, watching
from secateurs.surrogates.numbered_draws import Draw, beside, seed_of
from secateurs.surrogates.preconditions import check_model, check_redraw
from secateurs.surrogates.pruned_call import Turn, pruned_by
from secateurs.surrogates.structure import Structure, surrogate_barrier
from secateurs.surrogates.torch_transforms import Compiler, between_graphs, refuse_recording
from secateurs.surrogates.turns import Turns
from secateurs.surrogates.view import View, may_run_layers, run_under


class Diversified(View):
    r"""A surrogate: its model, pruned by a fresh draw from the same candidates at every call.

    With candidates :math:`C` (the ``p_prune`` of the units that have the smallest scores) and
    :math:`b \sim \mathrm{Bernoulli}(p_{bern})` drawn for each of them, a call computes

    .. math:: f(x;\, P \odot \theta), \qquad P = 1 - C \odot b

    (Diversified Weight Pruning, arXiv 2208.08677, section 3.2). The backward pass of a call uses
    the masks that its forward pass used, also when other calls came in between, and under
    ``torch.utils.checkpoint``. The weights are never touched: the pruned ones are another tensor,
    which lives as long as a pending backward pass needs it, and which no other thread sees.

    It is an ``nn.Module`` with the parameters, names, device, modes and ``state_dict`` of its
    model, so what takes a model takes it. ``eval()`` does not stop the draws. Other methods of the
    model (``generate``) run pruned too, one draw a call; its layers, called by themselves, only
    inside of `pruned`. Outputs are the model's; one of transformers that holds nothing but logits
    becomes these. Where the model's layers are exchanged, the next call finds its weights anew.

    Args:
        model: the network, not pruned; it is shared, not copied.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive.
        p_bern: the probability with which a candidate is pruned in a draw.
        redraw: ``"forward"`` (a fresh draw at each call), ``"step"`` (at each `step`), or a number
            K (K fixed draws in turn, the next one at each call).
        prune_type: ``"global"`` (the pruned weights act on the forward and the backward pass) or
            ``"gradient"`` (on the backward pass alone: the outputs are the model's).
        granularity: ``"weight"``, ``"kernel"`` or ``"filter"``; see `secateurs.select`.
        scope: ``"global"`` or ``"layer"``; see `secateurs.select`.
        score: see `secateurs.select`; ``"gradient"`` and ``"taylor"`` read the gradients that are
            in the parameters now.
        layers: which layers compete; see `secateurs.find_targets`.
        include: only these names or types; see `secateurs.find_targets`.
        exclude: not these names or types; see `secateurs.find_targets`.
        seed: of the sequence of draws, and of random scores. Draws are made where the weights are:
            a seed gives other masks on a GPU than on a CPU.

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
        p_prune: float,
        p_bern: float,
        *,
        redraw: str | int = "forward",
        prune_type: str = "global",
        granularity: str = "weight",
        scope: str = "global",
        score: Score = "magnitude",
        layers: Layers | None = None,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        seed: int = 0,
        **unknown: Never,
    ):
        _refuse(unknown)
        check_model(model)
        super().__init__(model)
        self.p_prune, self.p_bern = check_ratio("p_prune", p_prune), check_ratio("p_bern", p_bern)
        self.redraw = check_redraw(redraw)
        self.prune_type = check_choice("prune_type", prune_type, PRUNE_TYPES)
        self.options: SelectOptions = {
            "granularity": granularity,
            "scope": scope,
            "score": score,
            "layers": layers,
            "include": include,
            "exclude": exclude,
        }
        self._turns = Turns()
        self._structure: Structure | None = None
        self.restart(seed)
        self.reselect()

    @property
    def candidates(self) -> Candidates:
        """The candidates that draws are made from."""
        return self._candidates

    @property
    def targets(self) -> tuple[Target, ...]:
        """The weights that compete, as they are in the network now."""
        return self._structured().targets

    @property
    def draws(self) -> int:
        """How many draws were begun since the start."""
        return self._turns.begun

    @property
    def masks(self) -> Masks:
        """The masks of the draw that the last call used, also after `step` or `reselect`.

        Before the first call since the start, those that it will use. They are made when asked for.
        """
        return (self._turns.last or self._make(0, self._structured())).masks()

    def reselect(self) -> None:
        """Choose the candidates anew, by the weights as they are now: after training or loading."""
        self._structure = None
        self._choose_candidates()
        self._structured()

    def _barrier(self, target: Target) -> str:
        in_gradients = gradient_barrier(target) if self.prune_type == "gradient" else ""
        return surrogate_barrier(target) or in_gradients

    def restart(self, seed: int) -> None:
        """Begin the sequence of draws of a seed, whatever was drawn before."""
        self.seed = check_seed("seed", seed)
        self._turns.restart()

    def step(self) -> None:
        """Say that one step of an attack is over: with ``redraw="step"`` the next call draws."""
        if self.redraw == "step" and self._turns.held is None:
            self._turns.forget()

    def aim(self, classes: torch.Tensor, targeted: bool = True) -> None:
        """Set the classes that an attack is about; for recipes whose masks depend on the loss."""

    @contextmanager
    def dense(self) -> Generator[Self]:
        """For the length of a ``with`` block, be the model itself; nothing is drawn.

        This, `frozen` and `pruned` hold for the thread that says it, as ``torch.no_grad`` does.
        """
        with self._turns.here(dense=True):
            yield self

    @contextmanager
    def frozen(self) -> Generator[Self]:
        """For the length of a ``with`` block, all calls use one draw.

        It is that of the last call, or the next one if `step`, `reselect` or `restart` came since.
        """
        with self._turns.holding():
            yield self

    @contextmanager
    def pruned(self) -> Generator[nn.Module]:
        """For the length of a ``with`` block, one draw prunes the network itself and its layers.

        It is for parts of it, as ``with surrogate.pruned() as network: network.features(x)``.
        """
        self._refuse_partly("pruned()")
        with self._under(self._recorded()):
            yield self.network

    @between_graphs
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the next draw prunes it."""
        return self._run(self.network, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """Other ways to run the model, such as ``forward_features``, ``generate``, are pruned."""
        found = super().__getattr__(name)
        if name.startswith("forward") and callable(found):
            run = self._run
        elif may_run_layers(name, found):
            run = self._run_partly
        else:
            return found

        @between_graphs
        def call(*args: Any, **kwargs: Any) -> Any:
            return run(found, args, kwargs)

        return functools.update_wrapper(call, found, updated=())

    @between_graphs
    def _run(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        with Compiler() as compiler:
            turn = self._recorded(args, kwargs)
            if turn is not None:
                turn.draw()
            found = run_under(lambda: self._under(turn), compiler.call, call, args, kwargs)
            return plain_logits(found)

    @between_graphs
    def _run_partly(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what may or may not use weights: if it does, it begins a draw."""
        with Compiler() as compiler:
            if self._turns.is_dense:
                return compiler.call(call, args, kwargs)
            self._refuse_partly(getattr(call, "__name__", "this"))
            turn = self._recorded()
            return run_under(lambda: self._under(turn), compiler.call, call, args, kwargs)

    def _refuse_partly(self, name: str) -> None:
        """Recipes that need what ``forward`` is given can do nothing else."""

    def _recorded(self, args: Any = (), kwargs: Any = None) -> Turn | None:
        """The turn of this call; a checkpointed call gets it again when it is computed again."""
        if self._turns.replayed is not None:
            return next(self._turns.replayed)
        turn = None
        if not self._turns.is_dense:
            refuse_recording()
            structure = self._structured()

            def make(number: int) -> Draw:
                return self._make(number, structure, args, kwargs)

            turn = Turn(structure, lambda: self._turns.take(make, by_step=self.redraw == "step"))
        record(self, turn, lambda turns: self._turns.here(replayed=iter(turns)))
        return turn

    @contextmanager
    def _under(self, turn: Turn | None) -> Generator[None]:
        if turn is None:
            yield
            return
        with (
            pruned_by(self.network, turn, self.prune_type),
            watching(turn.structure.modules, lambda: self._under(turn)),
        ):
            yield

    def _structured(self) -> Structure:
        """The weights that compete; where the network was changed, found and chosen anew."""
        structure = self._structure
        if structure is not None and structure.stands():
            return structure
        structure = Structure(self.network, self.options, self.prune_type)
        if structure.lasting:
            self._structure = structure
        if not structure.fits(self._candidates):
            self._choose_candidates()
        return structure

    def _choose_candidates(self) -> None:
        options: SelectOptions = {**self.options, "seed": self.seed}
        self._candidates = choose(self.network, self.p_prune, barrier=self._barrier, **options)
        self._turns.forget()

    def _make(self, number: int, structure: Structure, args: Any = (), kwargs: Any = None) -> Draw:
        """Make a draw by its number; recipes may choose candidates by what the call is given."""
        if isinstance(self.redraw, int):
            number %= self.redraw
        self._candidates = self._choose(structure, args, kwargs or {})
        return Draw(self._candidates, self.p_bern, seed_of(self.seed, number))

    def _choose(self, structure: Structure, args: Any, kwargs: Any) -> Candidates:  # noqa: ARG002
        return beside(self._candidates, structure.targets, structure.weights())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_structure": None}  # found again where the copy is called

    def extra_repr(self) -> str:
        """The settings, as ``repr`` shows them."""
        options = {k: v for k, v in self.options.items() if v is not None}
        said = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return (
            f"p_prune={self.p_prune:g}, p_bern={self.p_bern:g}, redraw={self.redraw!r}, "
            f"prune_type={self.prune_type!r}, {said}, seed={self.seed}"
        )


def _refuse(unknown: Mapping[str, object]) -> None:
    for name in unknown:
        remedy = "write prune_type" if name == "mode" else "see help(secateurs.Diversified)"
        raise InvalidArgumentError(f"a surrogate has no option {name}: {remedy}")
