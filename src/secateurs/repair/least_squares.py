"""Least squares with some weights held at zero, from moments that are summed batch by batch."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over values, of inputs x and of the outputs y that are wanted; in float64.

    Attributes:
        count: how many values were added.
        x: the sum of x, (groups, inputs).
        y: the sum of y, (groups, outputs).
        xx: the sum of x x^T, (groups, inputs, inputs).
        xy: the sum of x y^T, (groups, inputs, outputs).
        yy: the sum of y^2, (groups, outputs).
    """

    count: int = 0
    x: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    y: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    xx: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    xy: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    yy: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

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


def damped(hessian: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """H with a part of its mean diagonal added to the diagonal, for each group, and that number."""
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    extra = damping * diagonal.mean(-1)
    # An input that is always zero teaches nothing: whatever its weight is, it stays.
    extra = torch.where(extra > 0, extra, torch.ones_like(extra))
    eye = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    return hessian + extra[:, None, None] * eye, extra


def masked_least_squares(
    hessian: Tensor, cross: Tensor, start: Tensor, mask: Tensor, damping: float
) -> Tensor:
    r"""The kept weights that bring the outputs closest to those that are wanted.

    For each output, with S its kept weights, H = E[x x^T], g = E[x y] and the original weights v,
    it minimises :math:`E (w^T x - y)^2 + \lambda \|w - v\|^2` over w that is zero outside of S:
    :math:`(H + \lambda I)_{SS} w_S = (g + \lambda v)_S`, the normal equations of ridge regression
    (Hoerl and Kennard 1970) around v. With y = v^T x it is the exact solution of what Optimal Brain
    Surgeon reaches one weight at a time (Hassibi and Stork 1993; Frantar and Alistarh 2022).

    Args:
        hessian: H, (groups, inputs, inputs).
        cross: E[x y^T], (groups, inputs, outputs).
        start: v, (groups, outputs, inputs).
        mask: True is kept, (groups, outputs, inputs).
        damping: lambda as a part of the mean of H's diagonal.

    Returns:
        The weights, (groups, outputs, inputs).
    """
    matrix, extra = damped(hessian, damping)
    wanted = cross.mT + extra[:, None, None] * start
    solved = torch.zeros_like(start)
    for group in range(start.shape[0]):
        for row in range(start.shape[1]):
            kept = mask[group, row].nonzero().flatten()
            if not len(kept):
                continue
            part = matrix[group][kept[:, None], kept]
            factor = torch.linalg.cholesky(part)
            right = wanted[group, row, kept][:, None]
            solved[group, row, kept] = torch.cholesky_solve(right, factor)[:, 0]
    return solved
