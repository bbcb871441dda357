"""Prune a model in one call, restore it, or do both around a block of code."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TypeVar, Unpack

import torch
from torch import nn

from secateurs._validation import check_choice, check_ratio, make_generator
from secateurs.gradient_pruning.modules import restore_gradients
from secateurs.gradient_pruning.prunable_layers import gradient_barrier
from secateurs.masks.mask import Masks
from secateurs.originals.model_lock import changing
from secateurs.originals.restore_weights import (
    check_releasable,
    compare_all_values,
    forget_originals,
    restore_weights,
)
from secateurs.parameters.coverage import no_barrier
from secateurs.parameters.model_contents import ModelContents
from secateurs.prior_pruning import masked_block, put_masks, warn_of_loss
from secateurs.selection._select import choose, read_options
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows

PRUNE_TYPES = ("global", "gradient")

Model = TypeVar("Model", bound=nn.Module)


@shows(SelectionOptions)
def global_prune(
    model: Model,
    p_prune: float | None = None,
    p_bern: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Model:
    """Prune a model's weights in place, for the forward and the backward pass.

    The smallest ``p_prune`` of the units are candidates, and each is set to zero with probability
    ``p_bern`` (Diversified Weight Pruning, arXiv 2208.08677, section 3.2). While a weight is
    pruned, ``module.weight_orig`` holds its original values; `restore` puts them back bit for bit.
    Pruning a pruned model starts from its original weights: 0.7 and then 0.5 is 0.5. Weights that
    were trained in between are pruned from their current values, which `restore` then puts back;
    so alternating pruning and training is iterative pruning.

    Args:
        model: the network; its Parameters stay the same objects.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive; with a ``scope`` N:M
            it may be left out.
        p_bern: the probability with which a candidate is pruned.
        generator: for random scores and for ``p_bern`` between 0 and 1, instead of a seed; its
            state advances.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        The same model.

    Raises:
        InvalidArgumentError: a ratio outside [0, 1], an unknown name, a NaN score, nothing to
            prune, or something random without a generator or a seed. The model is unchanged.

    Example:
        >>> import torch, secateurs as sc
        >>> model = torch.nn.Linear(8, 8)
        >>> sc.sparsity(sc.global_prune(model, 0.5)).ratio
        0.5
        >>> sc.sparsity(sc.restore(model)).ratio
        0.0
    """
    contents, masks = _draw(global_prune, "global", model, p_prune, p_bern, generator, options)
    put_masks(contents, masks, "global")
    return model


@shows(SelectionOptions)
def gradient_prune(
    model: Model,
    p_prune: float | None = None,
    p_bern: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Model:
    """Prune the backward pass alone.

    Outputs stay those of the dense model, bit for bit. The gradient that flows to a layer's input
    is computed with the pruned weight; the weight's own gradient stays dense.

    Args:
        model: the network, changed in place.
        p_prune: as for `global_prune`.
        p_bern: as for `global_prune`.
        generator: as for `global_prune`.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        The same model.

    Raises:
        InvalidArgumentError: as `global_prune`, or a chosen parameter is not the weight of a
            convolution, linear or attention layer or of experts.

    Example:
        >>> import torch, secateurs as sc
        >>> model, x = torch.nn.Linear(2, 1, bias=False), torch.ones(1, 2, requires_grad=True)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
        >>> y = sc.gradient_prune(model, 0.5)(x)
        >>> y.backward()
        >>> y.item(), x.grad
        (3.0, tensor([[0., 2.]]))
    """
    contents, masks = _draw(gradient_prune, "gradient", model, p_prune, p_bern, generator, options)
    put_masks(contents, masks, "gradient")
    return model


def apply_masks(model: Model, masks: Masks, prune_type: str = "global") -> Model:
    """Put masks on a model, replacing any pruning that it is under.

    Masks act on the original weights, or on the current values of weights that were trained since
    they were pruned. Some writes do not raise torch's version counter (``.data``, optimizers with
    ``fused=True``). They are recognised here by a new gradient, and on a CPU also by comparing a
    few values; `select` and `global_prune` compare all values.

    Args:
        model: the network, changed in place.
        masks: from `Candidates.draw`, or `Masks.load`.
        prune_type: ``"global"`` (forward and backward pass) or ``"gradient"`` (backward alone).

    Returns:
        The same model.

    Raises:
        InvalidArgumentError: the masks are for another model. The model is unchanged.

    Example:
        >>> import torch, secateurs as sc
        >>> model = torch.nn.Linear(4, 4)
        >>> masks = sc.select(model, 0.5).draw()
        >>> sc.sparsity(sc.apply_masks(model, masks)).zeros
        8
    """
    check_choice("prune_type", prune_type, PRUNE_TYPES)
    put_masks(ModelContents(model), masks, prune_type)
    return model


def restore(model: Model) -> Model:
    """Put the original weights back, bit for bit, and take masks off the backward pass.

    If pruned weights were changed since, as by training, the changes are lost, with a
    `LostTrainingWarning` that names the weights; to keep them, call `make_permanent` instead. A new
    Parameter that replaced a pruned one is left as it is. Safe to call on a model that is not
    pruned, and to call twice.

    Args:
        model: the network, changed in place.

    Returns:
        The same model.

    Raises:
        InvalidArgumentError: a weight is computed now (``weight_norm``); the others are restored.
    """
    # It warns before anything changes: where warnings are errors, nothing is lost.
    contents = ModelContents(model)
    with changing(model):
        restore_weights(contents.modules, lambda lost: warn_of_loss("restore", lost, frames=5))
        restore_gradients(module for _, module in contents.modules)
    check_releasable(contents.modules)
    return model


def make_permanent(model: Model) -> Model:
    """Keep the pruned weights as the model's weights, and forget the original ones.

    Args:
        model: the network, changed in place.

    Returns:
        The same model, with its pruned weights and without ``weight_orig``.

    Example:
        >>> import torch, secateurs as sc
        >>> model = sc.make_permanent(sc.global_prune(torch.nn.Linear(4, 4), 0.5))
        >>> sc.sparsity(sc.restore(model)).ratio
        0.5
    """
    contents = ModelContents(model)
    with changing(model):
        forget_originals(contents.modules)
        restore_gradients(module for _, module in contents.modules)
    return model


@shows(SelectionOptions)
@contextmanager
def pruned(
    model: Model,
    p_prune: float | None = None,
    p_bern: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Generator[Model]:
    """`global_prune` for the length of a ``with`` block.

    Afterwards, also when the block raises, the model is as it was before: with its original
    weights, or pruned as before. Training inside the block is lost, with a `LostTrainingWarning`.
    A weight on which the block called `make_permanent` or `restore` keeps the values it has then.

    Args:
        model: the network.
        p_prune: as for `global_prune`.
        p_bern: as for `global_prune`.
        generator: as for `global_prune`.
        **options: the fields of `secateurs.SelectionOptions`.

    Yields:
        The same model, pruned.

    Raises:
        InvalidArgumentError: as `global_prune`.

    Example:
        >>> import torch, secateurs as sc
        >>> model = torch.nn.Linear(8, 8)
        >>> with sc.pruned(model, 0.25):
        ...     sc.sparsity(model).ratio
        0.25
    """
    contents, masks = _draw(pruned, "global", model, p_prune, p_bern, generator, options)
    with masked_block(contents, masks, "global"):
        yield model


@shows(SelectionOptions)
@contextmanager
def gradient_pruned(
    model: Model,
    p_prune: float | None = None,
    p_bern: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    **options: Unpack[SelectionKeywords],
) -> Generator[Model]:
    """`gradient_prune` for the length of a ``with`` block; see `pruned`.

    Args:
        model: the network.
        p_prune: as for `global_prune`.
        p_bern: as for `global_prune`.
        generator: as for `global_prune`.
        **options: the fields of `secateurs.SelectionOptions`.

    Yields:
        The same model, its backward pass pruned.

    Raises:
        InvalidArgumentError: as `gradient_prune`.
    """
    contents, masks = _draw(gradient_pruned, "gradient", model, p_prune, p_bern, generator, options)
    with masked_block(contents, masks, "gradient"):
        yield model


def set_aside(model: nn.Module) -> AbstractContextManager[None]:
    """Take the pruning off a model for a ``with`` block; weights that were trained stay."""
    contents = ModelContents(model)
    with changing(model):
        compare_all_values(contents.modules, contents.group)
    return masked_block(contents, Masks({}), "global")


def _draw(
    function: Callable[..., object],
    prune_type: str,
    model: nn.Module,
    p_prune: float | None,
    p_bern: float,
    generator: torch.Generator | None,
    keywords: SelectionKeywords,
) -> tuple[ModelContents, Masks]:
    """Draw the masks for the arguments of one of the functions above."""
    contents = ModelContents(model)
    ratios = {"p_prune": p_prune, "p_bern": p_bern}
    options = read_options(function, contents, keywords, **ratios, generator=generator)
    p_bern = check_ratio("p_bern", p_bern)
    # One source for both: random scores and draws must not repeat each other's numbers.
    source = make_generator(generator, options.seed)
    barrier = gradient_barrier if prune_type == "gradient" else no_barrier
    chosen = choose(contents, p_prune, replace(options, seed=None), source, barrier=barrier)
    return contents, chosen.draw(p_bern, generator=source)
