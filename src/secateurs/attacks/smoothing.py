"""TI: smoothed gradients, which make an attack depend less on the position of objects."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_kernel(side: int) -> Tensor:
    """A Gaussian over ``side`` x ``side`` pixels (odd) that sums to 1, with 3 sigma at its border.

    W_ij is proportional to exp(-(u_i^2 + u_j^2) / 2), where u runs from -3 to 3 in equal steps, so
    sigma is (side - 1) / 6 pixels: 0.67 for the side 5 of the field's targeted attacks, 2.33 for
    the side 15 of the paper's code.
    """
    row = torch.linspace(-3, 3, side, dtype=torch.float64, device="cpu").square().mul(-0.5).exp()
    return torch.outer(row, row) / row.sum().square()


def smoothed(gradient: Tensor, side: int) -> Tensor:
    """Convolve each channel of a gradient with `gaussian_kernel`, padded with zeros.

    TI: Dong, Pang, Su and Zhu 2019, "Evading defenses to transferable adversarial examples by
    translation-invariant attacks", arXiv:1904.02884: the gradient is W * grad J(x), which
    approximates the mean of the gradients over shifted images. With ``side`` 0 it stays as it is.
    """
    if not side:
        return gradient
    channels = gradient.shape[1]
    kernel = gaussian_kernel(side).to(gradient)
    return F.conv2d(
        gradient, kernel.expand(channels, 1, side, side), padding=side // 2, groups=channels
    )
