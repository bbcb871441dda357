"""`MUP`: a surrogate whose candidates are the weights least important for the input of a call."""

import contextlib
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs._io.text import counted, quoted
from secateurs.errors import InvalidArgumentError
from secateurs.outputs import logits_of
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.selection._select import choose
from secateurs.selection.candidates import Candidates
from secateurs.surrogates.diversified import Diversified
from secateurs.surrogates.network_snapshot import NetworkSnapshot
from secateurs.surrogates.thread_parameters import replaced_in_thread
from secateurs.surrogates.torch_transforms import in_transform

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class MUP(Diversified):
    r"""Masking Unimportant Parameters (Yang et al. 2023, arXiv 2304.06908): see `mup`.

    A `Diversified` that chooses its candidates anew for each draw, by the scores
    :math:`|\theta \cdot \partial J / \partial \theta|` of the dense model at the input of the call.
    This takes one more forward and backward pass of the model for each draw.

    Args:
        model: as for `Diversified`.
        p_prune: as for `Diversified`.
        p_bern: as for `Diversified`.
        **options: the other arguments of `Diversified`, without ``score``.

    Raises:
        InvalidArgumentError: as `Diversified`, or a ``score`` is given.
    """

    _classes: Tensor | None

    def __init__(self, model: nn.Module, p_prune: float, p_bern: float = 1.0, **options: Any):
        if "score" in options:
            raise InvalidArgumentError(
                "MUP scores weights by |w * dJ/dw| at each draw: leave score out"
            )
        super().__init__(model, p_prune, p_bern, **options)

    def restart(self, seed: int) -> None:
        """Restart the draws with a seed, and forget the classes that `aim` set."""
        super().restart(seed)
        self._classes = None

    def aim(self, classes: Tensor, targeted: bool = True) -> None:  # noqa: ARG002
        """Set the classes of the loss J; scores are absolute, so its sign does not matter.

        Args:
            classes: (batch,), integers, of the images of the next calls.
            targeted: whether they are target classes, not true labels.

        Raises:
            InvalidArgumentError: they are not one integer for each image.
        """
        self._classes = _checked(classes)

    def _refuse_partly(self, name: str) -> None:
        raise InvalidArgumentError(
            f"mup chooses masks by the loss at the input of forward, so it cannot prune {name}: "
            "call the surrogate itself, or run it dense, in a block of `with surrogate.dense():`"
        )

    def _choose(self, snapshot: NetworkSnapshot, args: Any, kwargs: Any) -> Candidates:
        if not args and not kwargs:  # there was no call yet: scores of the weights alone
            return super()._choose(snapshot, args, kwargs)
        found = self._gradients(snapshot, args, kwargs)

        def importance(target: Target) -> Tensor:
            return (target.weight * found[target.name]).abs()

        options = replace(self.options, score=importance)
        return choose(ModelContents(self.network), self.p_prune, options, warn=False)

    def _gradients(self, snapshot: NetworkSnapshot, args: Any, kwargs: Any) -> dict[str, Tensor]:
        """dJ/dw of the dense model; its parameters keep their ``grad`` and ``requires_grad``."""
        if in_transform():
            raise InvalidArgumentError(
                "mup cannot score weights inside of a transform of torch.func: call the surrogate "
                "once before, and transform it in surrogate.frozen()"
            )
        leaves = [weight.detach().requires_grad_() for weight in snapshot.weights()]
        inputs = [a.detach() if isinstance(a, Tensor) else a for a in args]
        with torch.enable_grad(), replaced_in_thread(snapshot.holders, leaves):
            logits = logits_of(self.network(*inputs, **kwargs))
            loss = F.cross_entropy(logits, self._labels(logits), reduction="sum")
            grads: tuple[Any, ...] = torch.autograd.grad(loss, leaves, allow_unused=True)
        pairs = zip(snapshot.targets, leaves, grads, strict=True)
        return {t.name: torch.zeros_like(leaf) if g is None else g for t, leaf, g in pairs}

    def _labels(self, logits: Tensor) -> Tensor:
        if self._classes is None:
            return logits.detach().argmax(1)
        given = len(self._classes)
        copies, rest = divmod(len(logits), max(given, 1))
        if rest or not copies:
            raise InvalidArgumentError(
                f"aim was given {counted(given, 'class', 'classes')} for "
                f"{counted(len(logits), 'image')}: give aim the classes of the batch"
            )
        return self._classes.to(logits.device).repeat(copies)


def _checked(classes: Any) -> Tensor:
    found = None
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # torch cannot read it
        found = torch.as_tensor(classes)
    if found is None or found.dim() != 1 or found.dtype not in _INTEGERS:
        raise InvalidArgumentError(
            "aim takes one class for each image, whole numbers such as torch.tensor([3, 0]); "
            f"got {quoted(classes)}"
        )
    return found.to(torch.int64)
