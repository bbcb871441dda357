"""`Diversified`: a model that is pruned afresh at every call."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from secateurs._checks import check_choice, check_ratio
from secateurs.backward import check_gradient_prunable, gradient_barrier
from secateurs.candidates import Candidates
from secateurs.errors import InvalidArgumentError
from secateurs.kept import BACKWARD_SUFFIX, ORIGINAL_SUFFIX
from secateurs.masks import Masks
from secateurs.outputs import plain_logits
from secateurs.patterns import excluding, listed
from secateurs.prune import PRUNE_TYPES
from secateurs.scores import Score
from secateurs.selecting import SelectOptions, choose
from secateurs.sharding.team import team_of
from secateurs.surrogate.draws import Draw, beside, seed_of
from secateurs.surrogate.placing import pruned_by
from secateurs.surrogate.recomputing import once, repeat_under, running_checkpoint, watching
from secateurs.surrogate.view import View
from secateurs.targets import Layers, Patterns, Target, find_targets, pruned_places


class Diversified(View):
    r"""A surrogate: its model, pruned by a fresh draw of standing candidates at every call.

    With candidates :math:`C` (the ``p_prune`` of the units that have the smallest scores) and
    :math:`b \sim \mathrm{Bernoulli}(p_{bern})` drawn for each of them, a call computes

    .. math:: f(x;\, P \odot \theta), \qquad P = 1 - C \odot b

    (Diversified Weight Pruning, arXiv 2208.08677, section 3.2). The backward pass of a call uses
    the masks that its forward pass used, also when other calls came in between, and under
    ``torch.utils.checkpoint``. The weights are never touched: the pruned ones are another tensor,
    which lives as long as a pending backward pass needs it.

    It is an ``nn.Module`` with the parameters, names, device, modes and ``state_dict`` of its
    model, so what takes a model takes it. ``eval()`` does not stop the draws. Scores come out as
    the model gives them; the output of a transformers model becomes its ``logits``.

    Args:
        model: the network, not pruned; it is shared, not copied.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive.
        p_bern: the probability with which a candidate is pruned in a draw.
        redraw: ``"forward"`` (a fresh draw at each call), ``"step"`` (at each `step`), or a number
            K (K fixed draws in turn, the next one at each call).
        mode: ``"global"`` (the pruned weights act on the forward and the backward pass) or
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
        mode: str = "global",
        granularity: str = "weight",
        scope: str = "global",
        score: Score = "magnitude",
        layers: Layers | None = None,
        include: Patterns | None = None,
        exclude: Patterns | None = None,
        seed: int = 0,
    ):
        _check_model(model)
        super().__init__(model)
        self.p_prune, self.p_bern = check_ratio("p_prune", p_prune), check_ratio("p_bern", p_bern)
        self.redraw, self.mode = _check_redraw(redraw), check_choice("mode", mode, PRUNE_TYPES)
        self.options: SelectOptions = {
            "granularity": granularity,
            "scope": scope,
            "score": score,
            "layers": layers,
            "include": include,
            "exclude": exclude,
        }
        self._dense = self._held = False
        self._replayed: Iterator[Draw] | None = None
        self.targets = find_targets(model, layers=layers, include=include, exclude=exclude)
        _check_targets(self.targets, self.mode)
        self.restart(seed)
        self.reselect()

    @property
    def candidates(self) -> Candidates:
        """The candidates that stand."""
        return self._candidates

    @property
    def draws(self) -> int:
        """How many draws were begun since the start."""
        return self._begun

    @property
    def masks(self) -> Masks:
        """The masks of the draw that stands: of the last call, or those of the first one to come.

        Made when they are asked for, since a surrogate keeps none.
        """
        return (self._draw or self._make(0)).masks()

    def reselect(self) -> None:
        """Choose the candidates anew, by the weights as they are now: after training or loading."""
        options: SelectOptions = {**self.options, "seed": self.seed}
        self._candidates = choose(self.network, self.p_prune, barrier=self._barrier, **options)
        self._draw = None

    def _barrier(self, target: Target) -> str:
        in_gradients = gradient_barrier(target) if self.mode == "gradient" else ""
        return surrogate_barrier(target) or in_gradients

    def restart(self, seed: int) -> None:
        """Begin the sequence of draws of a seed, whatever was drawn before."""
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise InvalidArgumentError(f"seed must be an integer, got {seed!r}")
        self.seed = seed
        self._begun = 0
        self._draw: Draw | None = None

    def step(self) -> None:
        """Say that one step of an attack is over: with ``redraw="step"`` the next call draws."""
        if self.redraw == "step" and not self._held:
            self._draw = None

    def aim(self, classes: torch.Tensor, targeted: bool = True) -> None:
        """Hear which classes an attack is about; for recipes whose masks depend on the loss."""

    @contextmanager
    def dense(self) -> Generator[Self]:
        """For the length of a ``with`` block, be the model itself; nothing is drawn."""
        before, self._dense = self._dense, True
        try:
            yield self
        finally:
            self._dense = before

    @contextmanager
    def frozen(self) -> Generator[Self]:
        """For the length of a ``with`` block, keep the draw that stands."""
        before, self._held = self._held, True
        try:
            yield self
        finally:
            self._held = before

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as the next draw prunes it."""
        return self._run(self.network, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """Other ways to run the model, such as timm's ``forward_features``, are pruned too."""
        found = super().__getattr__(name)
        if not name.startswith("forward") or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._run(found, args, kwargs)

        return call

    def _run(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._dense:
            return plain_logits(call(*args, **kwargs))
        with self._under(self._recorded(args, kwargs)):
            return plain_logits(call(*args, **kwargs))

    def _recorded(self, args: Any, kwargs: Any) -> Draw:
        """The draw of this call; a checkpointed call gets it again when it is computed again."""
        if self._replayed is not None:
            return next(self._replayed)
        draw = self._next(args, kwargs)
        holder = running_checkpoint()
        if holder is not None:
            record: dict[int, list[Draw]] = holder.__dict__.setdefault("_secateurs_draws", {})
            draws = record.setdefault(id(self), [])
            draws.append(draw)
            if once(holder, self):
                repeat_under(holder, lambda: self._replaying(draws))
        return draw

    @contextmanager
    def _replaying(self, draws: list[Draw]) -> Generator[None]:
        before, self._replayed = self._replayed, iter(draws)
        try:
            yield
        finally:
            self._replayed = before

    @contextmanager
    def _under(self, draw: Draw) -> Generator[None]:
        with (
            pruned_by(self.network, self.targets, draw, self.mode),
            watching(self.network, lambda: self._under(draw)),
        ):
            yield

    def _next(self, args: Any, kwargs: Any) -> Draw:
        if self._draw is None or not (self._held or self.redraw == "step"):
            self._draw = self._make(self._begun, args, kwargs)
            self._begun += 1
        return self._draw

    def _make(self, number: int, args: Any = (), kwargs: Any = None) -> Draw:
        """Make a draw by its number; recipes may choose candidates by what the call is given."""
        if isinstance(self.redraw, int):
            number %= self.redraw
        self._candidates = self._choose(args, kwargs or {})
        return Draw(self._candidates, self.p_bern, seed_of(self.seed, number))

    def _choose(self, args: Any, kwargs: Any) -> Candidates:  # noqa: ARG002
        return beside(self._candidates, self.targets)

    def extra_repr(self) -> str:
        """The settings, as ``repr`` shows them."""
        options = {k: v for k, v in self.options.items() if v is not None}
        said = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return (
            f"p_prune={self.p_prune:g}, p_bern={self.p_bern:g}, redraw={self.redraw!r}, "
            f"mode={self.mode!r}, {said}, seed={self.seed}"
        )


def _check_redraw(redraw: str | int) -> str | int:
    if isinstance(redraw, int) and not isinstance(redraw, bool):
        if redraw >= 1:
            return redraw
    elif redraw in ("forward", "step"):
        return redraw
    raise InvalidArgumentError(
        f'redraw must be "forward", "step", or how many draws to go through in turn, such as 4; '
        f"got {redraw!r}"
    )


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, View):
        raise InvalidArgumentError("the model is a surrogate already: give its .network")
    if any(any(pruned_places(model, s)) for s in (ORIGINAL_SUFFIX, BACKWARD_SUFFIX)):
        raise InvalidArgumentError(
            "the model is pruned: call secateurs.restore(model) or make_permanent(model) first"
        )
    team = team_of(model)
    if team is not None and team.sharded:
        raise InvalidArgumentError(
            "the model is divided over ranks, which surrogates are not made for: give each rank a "
            "whole model"
        )


def _check_targets(targets: tuple[Target, ...], mode: str) -> None:
    recurrent = [t.name for t in targets if surrogate_barrier(t)]
    if recurrent:
        others = {t.name for t in targets} - set(recurrent)
        belong = "belong" if len(recurrent) > 1 else "belongs"
        raise InvalidArgumentError(
            f"{listed(recurrent)} {belong} to a recurrent layer, which keeps its weights elsewhere "
            f"too, so a surrogate cannot prune them: write {excluding(recurrent, others)}"
        )
    if mode == "gradient":
        check_gradient_prunable(targets)


def surrogate_barrier(target: Target) -> str:
    """What stands against a weight in a surrogate by the kind of its layer, or nothing."""
    recurrent = any(isinstance(module, nn.RNNBase) for module, _ in target.places)
    return "cannot be pruned in a surrogate" if recurrent else ""
