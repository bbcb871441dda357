"""Least squares with some weights fixed at zero, from moments that are summed over batches."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from secateurs.parameters.layer_inputs import damped


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64, device="cpu")


@dataclass
class Moments:
    """Sums over values, of inputs x and wanted outputs y, in float64.

    Attributes:
        count: how many values were added.
        x: the sum of x, (groups, inputs).
        y: the sum of y, (groups, outputs).
        xx: the sum of x x^T, (groups, inputs, inputs).
        xy: the sum of x y^T, (groups, inputs, outputs).
        yy: the sum of y^2, (groups, outputs).
    """

    count: int = 0
    x: Tensor = field(default_factory=_zero)
    y: Tensor = field(default_factory=_zero)
    xx: Tensor = field(default_factory=_zero)
    xy: Tensor = field(default_factory=_zero)
    yy: Tensor = field(default_factory=_zero)

    def add(self, inputs: Tensor, outputs: Tensor | None = None) -> None:
        """Add values.

        Args:
            inputs: (groups, values, inputs).
            outputs: (groups, values, outputs); None if the inputs alone matter.
        """
        rows = inputs.double()
        self.count += rows.shape[1]
        self.x = self.x.to(rows.device) + rows.sum(1)
        self.xx = self.xx.to(rows.device) + rows.mT @ rows
        if outputs is not None:
            wanted = outputs.double()
            self.y = self.y.to(rows.device) + wanted.sum(1)
            self.xy = self.xy.to(rows.device) + rows.mT @ wanted
            self.yy = self.yy.to(rows.device) + wanted.square().sum(1)

    def centred(self, around_mean: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The means of x x^T, x y^T and y^2; around the means of x and y, or around zero."""
        xx, xy, yy = self.xx / self.count, self.xy / self.count, self.yy / self.count
        if around_mean:
            x, y = self.x / self.count, self.y / self.count
            xx = xx - x[:, :, None] * x[:, None]
            xy = xy - x[:, :, None] * y[:, None]
            yy = yy - y.square()
        return xx, xy, yy.clamp(min=0)


@dataclass
class ChannelMoments:
    """Sums over values of each channel, in float64.

    Attributes:
        count: how many values of a channel were added.
    """

    count: int = 0
    _sum: Tensor = field(default_factory=_zero)
    _squares: Tensor = field(default_factory=_zero)

    def add(self, values: Tensor) -> None:
        """Add values, (images, channels, ...)."""
        rows = values.transpose(0, 1).flatten(1)
        self.count += rows.shape[1]
        parts = [(one.sum(1), one.square().sum(1)) for one in map(Tensor.double, rows.split(64))]
        self._sum = self._sum.to(rows.device) + torch.cat([one for one, _ in parts])
        self._squares = self._squares.to(rows.device) + torch.cat([one for _, one in parts])

    @property
    def mean_variance(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel."""
        mean = self._sum / self.count
        return mean, (self._squares / self.count - mean.square()).clamp(min=0)


def masked_least_squares(
    hessian: Tensor, cross: Tensor, start: Tensor, mask: Tensor, damping: float
) -> Tensor:
    r"""Solve for the kept weights that bring the outputs closest to the wanted ones.

    For each output, with S its kept weights, H = E[x x^T], g = E[x y] and the original weights v,
    it minimises :math:`E (w^T x - y)^2 + \lambda \|w - v\|^2` over w that is zero outside of S:
    :math:`(H + \lambda I)_{SS} w_S = (g + \lambda v)_S`, the normal equations of ridge regression
    (Hoerl and Kennard 1970) around v. With y = v^T x it is the exact solution of what Optimal Brain
    Surgeon reaches one weight at a time (Hassibi and Stork 1993; Frantar and Alistarh 2022).
    With P the pruned weights and u the solution from which nothing is pruned, and
    :math:`C = (H + \lambda I)^{-1}`, it is also :math:`w = u - C_{:P} C_{PP}^{-1} u_P`. For each
    output the smaller system is solved, together with those of about the same size.

    Args:
        hessian: H, (groups, inputs, inputs).
        cross: E[x y^T], (groups, inputs, outputs).
        start: v, (groups, outputs, inputs).
        mask: True is kept, (groups, outputs, inputs).
        damping: lambda relative to the mean of H's diagonal.

    Returns:
        The weights, (groups, outputs, inputs).
    """
    matrix, extra = damped(hessian, damping)
    wanted = (cross.mT + extra[:, None, None] * start).flatten(0, 1)
    kept = mask.flatten(0, 1)
    outputs, inputs = start.shape[1:]
    counts = kept.sum(1)
    # Elimination costs the cube of the unknowns; where most is kept, w is found from P.
    few_pruned = 2 * counts > inputs
    saved = (counts.double().pow(3) - (inputs - counts).double().pow(3))[few_pruned].sum() / 3
    if float(saved) < len(hessian) * inputs**3:  # which is what the inverse costs
        few_pruned = torch.zeros_like(few_pruned)
    solved = torch.zeros_like(wanted)
    if bool(few_pruned.any()):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        free = (wanted.view_as(start) @ inverse).flatten(0, 1)
        for rows in _alike(inputs - counts, few_pruned):
            taken = _solve_parts(inverse, free, ~kept, rows, outputs)
            change = _by_groups(taken, inverse, rows, outputs)
            solved[rows] = torch.where(kept[rows], free[rows] - change, 0.0)
    for rows in _alike(counts, ~few_pruned & (counts > 0)):
        solved[rows] = _solve_parts(matrix, wanted, kept, rows, outputs)
    return solved.view_as(start)


def _alike(counts: Tensor, chosen: Tensor, most: int = 2**17) -> Iterator[Tensor]:
    """The indices of chosen rows, in groups of rows with about equally many unknowns.

    Args:
        counts: the unknowns of each row.
        chosen: which rows.
        most: about how many numbers the matrices of a group have.
    """
    rows = chosen.nonzero().flatten()
    rows = rows[counts[rows].argsort(descending=True, stable=True)]
    while len(rows):
        size = max(1, most // max(1, int(counts[rows[0]])) ** 2)
        yield rows[:size]
        rows = rows[size:]


def _solve_parts(matrix: Tensor, right: Tensor, mask: Tensor, rows: Tensor, each: int) -> Tensor:
    """Solve matrix_SS w_S = right_S for rows that each have their own S; w is zero outside of it.

    Args:
        matrix: (groups, inputs, inputs), positive definite.
        right: (groups * each, inputs).
        mask: S of each row, (groups * each, inputs).
        rows: which rows.
        each: how many rows a group has.

    Returns:
        (rows, inputs).
    """
    if len(rows) == 1:
        return _solve_part(matrix[int(rows) // each], right[rows], mask[rows])
    inside = mask[rows]
    size = max(1, int(inside.sum(1).max()))
    # First the members of S, then others, whose equations become w = 0.
    columns = (~inside).to(torch.uint8).argsort(dim=1, stable=True)[:, :size]
    member = inside.gather(1, columns)
    groups = rows // each
    part = matrix[groups[:, None, None], columns[:, :, None], columns[:, None]]
    part = part * (member[:, :, None] & member[:, None])
    part.diagonal(dim1=1, dim2=2).add_((~member).to(part.dtype))
    wanted = torch.where(member, right[rows].gather(1, columns), 0.0)
    found = torch.cholesky_solve(wanted[..., None], torch.linalg.cholesky(part))[..., 0]
    return torch.zeros_like(right[rows]).scatter_(1, columns, found)


def _solve_part(matrix: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """As `_solve_parts`, for one row; matrix is that of its group."""
    columns = mask[0].nonzero().flatten()
    part = matrix.index_select(0, columns).index_select(1, columns)
    found = torch.cholesky_solve(right[0, columns, None], torch.linalg.cholesky(part))
    return torch.zeros_like(right).index_copy_(1, columns, found.T)


def _by_groups(values: Tensor, matrix: Tensor, rows: Tensor, each: int) -> Tensor:
    """Each row times the matrix of its group."""
    if len(matrix) == 1:
        return values @ matrix[0]
    return torch.einsum("ri,rij->rj", values, matrix[rows // each])
