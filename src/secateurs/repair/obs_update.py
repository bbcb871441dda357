"""Optimal Brain Surgeon, column by column: choose the weights to prune, and update the others."""

import torch
from torch import Tensor

from secateurs._tensors.float_keys import Scores
from secateurs.parameters.layer_inputs import damped
from secateurs.selection.neighbours import smallest_of_each
from secateurs.selection.scopes import NOfM
from secateurs.selection.threshold import candidate_masks


def obs_update(
    hessian: Tensor,
    cross: Tensor,
    start: Tensor,
    mask: Tensor,
    damping: float,
    *,
    neighbours: NOfM | None = None,
    block: int = 128,
) -> tuple[Tensor, Tensor]:
    r"""Prune as many weights as a mask does, and let the others compensate for each of them.

    As in `secateurs.repair.least_squares`, with H = E[x x^T] and v the dense network's weights, the
    damped squared error of an output is :math:`(w - w_0)^T (H + \lambda I) (w - w_0)` and a
    constant, with :math:`w_0 = (H + \lambda I)^{-1} (E[x y] + \lambda v)`. Where the inputs are
    those of the dense network, w_0 is v, and the rest is SparseGPT (Frantar and Alistarh 2023,
    section 3), which takes Optimal Brain Surgeon (Hassibi and Stork 1993) column by column: with
    :math:`F_j` the inputs from j on, to prune a weight costs

    .. math:: \epsilon_j = \frac{w_j^2}{[H_{F_j}^{-1}]_{jj}} \quad\text{and}\quad
              w_{F_j} \leftarrow w_{F_j} - \frac{w_j}{[H_{F_j}^{-1}]_{jj}} [H_{F_j}^{-1}]_{:,j}

    With :math:`H^{-1} = U^T U`, U upper triangular, :math:`[H_{F_j}^{-1}]_{jj} = U_{jj}^2` and the
    column is :math:`U_{jj} U_{j,F_j}`, so one factor serves all columns and all outputs. Columns
    are taken in blocks: before each block the weights in it with the least cost are chosen, over
    all outputs, and after it the columns that follow are updated once.

    Args:
        hessian: H, (groups, inputs, inputs).
        cross: E[x y^T], (groups, inputs, outputs).
        start: v, (groups, outputs, inputs).
        mask: True is kept, (groups, outputs, inputs). Exactly as many weights are pruned, the same
            share in each block.
        damping: lambda relative to the mean of H's diagonal.
        neighbours: how many of every M consecutive inputs of an output are kept, instead.
        block: how many columns form a block.

    Returns:
        The weights, (groups, outputs, inputs), and their mask.
    """
    matrix, extra = damped(hessian, damping)
    lower = torch.linalg.cholesky(matrix)
    weight = torch.cholesky_solve(cross + extra[:, None, None] * start.mT, lower).mT.contiguous()
    factor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    scale = factor.diagonal(dim1=-2, dim2=-1)[:, None]
    kept = torch.ones_like(mask)
    inputs, going = mask.shape[-1], int((~mask).sum())
    if neighbours is not None:
        block = max(block // neighbours.of, 1) * neighbours.of
    for first in range(0, inputs, block):
        stop = min(first + block, inputs)
        if neighbours is None:
            count = going * stop // inputs - going * first // inputs
            costs = (weight[..., first:stop] / scale[..., first:stop]).square()
            (least,), _ = candidate_masks([Scores("", costs, absolute=False)], count)
            kept[..., first:stop] = ~least
        errors = torch.zeros_like(weight[..., first:stop])
        for column in range(first, stop):
            if neighbours is not None and column % neighbours.of == 0:
                part = slice(column, column + neighbours.of)
                costs = (weight[..., part] / scale[..., part]).square()
                least = smallest_of_each(costs.reshape(-1, neighbours.of), neighbours.pruned)
                kept[..., part] = ~least.reshape(costs.shape)
            gone = weight[..., column].masked_fill(kept[..., column], 0)
            error = gone / scale[..., column]
            errors[..., column - first] = error
            weight[..., column:stop] -= error[..., None] * factor[:, None, column, column:stop]
        weight[..., stop:] -= errors @ factor[:, first:stop, stop:]
    return weight.masked_fill(~kept, 0), kept


def pattern_of(mask: Tensor, largest: int = 32) -> NOfM | None:
    """N of M, if of every M consecutive inputs of each output N are kept; None if there is no M.

    Args:
        mask: True is kept, (groups, outputs, inputs).
        largest: M, at most.
    """
    inputs = mask.shape[-1]
    for of in range(2, min(largest, inputs) + 1):
        if inputs % of == 0:
            counts = mask.reshape(-1, of).sum(-1)
            kept = int(counts[0])
            if 0 < kept < of and bool((counts == kept).all()):
                return NOfM(kept, of)
    return None
