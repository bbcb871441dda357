"""Recipes: the settings of published methods, each with its source and its equation."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from secateurs._io.text import counted, quoted
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.outputs import logits_of
from secateurs.parameters.layer_kinds import Classes, Conv1D, Experts
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.target import Target
from secateurs.selection._select import choose
from secateurs.selection.candidates import Candidates
from secateurs.surrogates.diversified import Diversified
from secateurs.surrogates.module_proxy import ModuleProxy
from secateurs.surrogates.network_snapshot import NetworkSnapshot
from secateurs.surrogates.thread_parameters import replaced_in_thread
from secateurs.surrogates.torch_transforms import in_transform

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_FULLY_CONNECTED = (nn.Linear, nn.MultiheadAttention)
# Classes of other packages are recognised by name, so their actual types are listed one by one.
_OTHER_PACKAGES: Classes = (Conv1D, Experts)


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


def dwp(
    model: nn.Module, p_prune: float = 0.3, p_bern: float = 0.5, *, seed: int = 0, **options: Any
) -> Diversified:
    r"""Diversified Weight Pruning (arXiv 2208.08677, section 3.2).

    .. math:: g = \nabla_x J(f(x;\, (1 - C_{p} \odot b) \odot \theta)), \quad
              C_p = [\,|\theta| \text{ among the } p\,n \text{ smallest}\,], \quad
              b \sim \mathrm{Bernoulli}(p_{bern})

    with a fresh b at each call: the smallest ``p_prune`` of all convolution and linear weights are
    candidates, and each is pruned with probability ``p_bern``.

    Args:
        model: the network.
        p_prune: the ratio of weights that are candidates.
        p_bern: the probability with which a candidate is pruned.
        seed: of the draws.
        **options: the other arguments of `Diversified`.

    Returns:
        The surrogate.

    Raises:
        InvalidArgumentError: as `Diversified`.

    Example:
        >>> import torch
        >>> surrogate = dwp(torch.nn.Linear(8, 4), p_prune=0.5, seed=1)
        >>> surrogate(torch.ones(2, 8)).shape
        torch.Size([2, 4])
    """
    return Diversified(model, p_prune, p_bern, seed=seed, **options)


def rapa(model: nn.Module, p_bern: float = 0.05, *, seed: int = 0, **options: Any) -> Diversified:
    r"""Random Parameter Pruning Attack (arXiv 2504.18594).

    .. math:: g = \nabla_x J(f(x;\, (1 - b) \odot \theta_S,\ \theta_{\bar S})), \quad
              b \sim \mathrm{Bernoulli}(p_{bern})

    where S are all parameters of normalisation and fully connected layers, weights and biases. Each
    is a candidate (p_prune = 1), whatever its magnitude, and few are pruned. The paper takes
    p_bern = 0.05 for ResNet-50, 0.04 for DenseNet-121, 0.02 for Inception-v3 and 0.01 for vision
    transformers, and in each step the mean gradient of several draws.

    Beyond the paper: if a network has neither kind of layer and its logits come from a 1 x 1
    convolution, as in SqueezeNet, that convolution counts as its fully connected layer.

    Args:
        model: the network.
        p_bern: the probability with which a parameter is pruned.
        seed: of the draws.
        **options: the other arguments of `Diversified`; ``include`` names other parameters.

    Returns:
        The surrogate.

    Raises:
        InvalidArgumentError: as `Diversified`, or the network has no such layer.

    Example:
        >>> import torch
        >>> surrogate = rapa(torch.nn.Linear(8, 4), p_bern=0.1)
        >>> [target.name for target in surrogate.targets]
        ['weight', 'bias']
    """
    if "include" not in options:
        options["include"] = _normalisation_and_fully_connected(model)
    options.setdefault("layers", "all")
    return Diversified(model, 1.0, p_bern, seed=seed, **options)


def mup(
    model: nn.Module, p_prune: float = 0.15, p_bern: float = 1.0, *, seed: int = 0, **options: Any
) -> MUP:
    r"""Masking Unimportant Parameters (Yang et al. 2023, arXiv 2304.06908).

    .. math:: g = \nabla_x J(f(x;\, (1 - C_p) \odot \theta)), \quad
              C_p = \left[\,\left|\theta \cdot \tfrac{\partial J(f(x; \theta))}{\partial \theta}
              \right| \text{ among the } p\,n_l \text{ smallest of layer } l\,\right]

    The candidates are chosen anew for each draw, at the input of the call, and all are pruned. J is
    the cross-entropy of the classes that `MUP.aim` set, else of the classes that the dense model
    predicts. The paper scores weights by one image; here scores are summed over the batch, so a
    batch of one image gives those of the paper.

    Args:
        model: the network.
        p_prune: the ratio of each layer's weights that are masked; 0.15 in the paper.
        p_bern: the probability with which a candidate is pruned; 1 in the paper.
        seed: of the draws.
        **options: the other arguments of `Diversified`, without ``score``.

    Returns:
        The surrogate.

    Raises:
        InvalidArgumentError: as `Diversified`.

    Example:
        >>> import torch
        >>> surrogate = mup(torch.nn.Linear(8, 4), p_prune=0.25)
        >>> _ = surrogate(torch.ones(1, 8))
        >>> surrogate.masks.sparsity
        0.25
    """
    options.setdefault("scope", "layer")
    return MUP(model, p_prune, p_bern, seed=seed, **options)


RECIPES: dict[str, Callable[..., Diversified]] = {"dwp": dwp, "rapa": rapa, "mup": mup}
"""The recipes by name."""


def _normalisation_and_fully_connected(model: nn.Module) -> list[str | type[nn.Module]]:
    model = model.network if isinstance(model, ModuleProxy) else model
    named = [(name, m) for name, m in model.named_modules() if [*m.parameters(recurse=False)]]
    kinds = (*_NORMALISATIONS, *_FULLY_CONNECTED)
    present = [kind for kind in kinds if any(isinstance(m, kind) for _, m in named)]
    others = dict.fromkeys(type(m) for _, m in named if isinstance(m, _OTHER_PACKAGES))
    if present or others:
        return [*present, *others]
    if named and isinstance(named[-1][1], nn.Conv2d) and named[-1][1].kernel_size == (1, 1):
        return [f"{named[-1][0]}.*" if named[-1][0] else "*"]
    raise InvalidArgumentError(
        f"{type(model).__name__} has no normalisation and no fully connected layer for rapa to "
        "prune: name parameters with ",
        Argument("include"),
        ", or use dwp",
    )


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
