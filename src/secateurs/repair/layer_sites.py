"""Layers that are repaired: weights by least squares, channels, and BatchNorm's statistics."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.repair.changes import write
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.least_squares import Moments, masked_least_squares
from secateurs.repair.obs_update import obs_update, pattern_of


@dataclass(frozen=True)
class LayerOptions:
    """How layers are repaired.

    Attributes:
        reconstruct: whether kept weights are solved for.
        channels: whether mean and scale of each output channel are matched.
        choose: whether it is chosen anew which weights are kept.
        damping: see `masked_least_squares`.
        most_values: how many values of each output channel are looked at, at most about.
        images: how many images there are.
    """

    reconstruct: bool
    channels: bool
    choose: bool
    damping: float
    most_values: int
    images: int


class WeightSite:
    """A convolution or linear layer of which the kept weights are solved for.

    Args:
        name: of the weight.
        weight: the Parameter.
        bias: its bias; None if it has none.
        dense: the dense network's weight.
        mask: True is kept, in the shape of the weight.
        around_mean: whether the outputs' means are met whatever the weights are: by the bias, or
            by the BatchNorm behind.
        options: how.

    Attributes:
        mask: as it was handed in, or as it was chosen.
        values: how many values of each output channel were looked at.
        inputs: how many inputs an output has.
        errors: the squared error of the outputs as a part of the wanted outputs' variance, before
            and after.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor | None,
        dense: Tensor,
        mask: Tensor,
        *,
        around_mean: bool,
        options: LayerOptions,
    ):
        self.name, self.weight, self.bias = name, weight, bias
        self.dense, self.mask = dense, mask
        self.around_mean, self.options = around_mean, options
        self.values, self.inputs = 0, 0
        self.errors = (0.0, 0.0)
        self._moments = Moments()
        self._calls: list[LayerCall] = []
        self._chosen: Tensor | None = None

    def add(self, call: LayerCall, dense: Callable[[], Tensor], /) -> None:
        """Take in one batch."""
        output = dense()
        if not self._calls:
            positions = call.positions(output)
            most = max(1, self.options.most_values // self.options.images)
            if call.is_convolution and positions > most:
                source = torch.Generator().manual_seed(positions)
                chosen = torch.randperm(positions, generator=source)[:most].sort().values
                self._chosen = chosen.to(output.device)
        self._calls = [call]
        for rows, values in call.blocks(output, self._chosen):
            self._moments.add(rows, values)

    def finish(self) -> None:
        """Solve it, and write weight and bias."""
        call = self._calls.pop()
        moments, self._moments = self._moments, Moments()
        self.values, self.inputs = moments.count, moments.x.shape[-1]
        xx, xy, yy = moments.centred(self.around_mean)
        if not bool(torch.isfinite(xx).all() and torch.isfinite(xy).all()):
            raise FailureError(
                f"what goes into or comes out of {self.name} is NaN or infinite on these images: "
                "look at the images and at the network before it is pruned"
            )
        now = call.matrix(self.weight.detach()).double()
        start, mask = call.matrix(self.dense).double(), call.matrix(self.mask)
        solved = now
        if self.options.choose:
            solved, mask = obs_update(
                xx, xy, start, mask, self.options.damping, neighbours=pattern_of(mask)
            )
            # In the weight's order of memory, as the masks of pruning are.
            self.mask = torch.empty_like(self.weight, dtype=torch.bool)
            self.mask.copy_(call.unmatrix(mask, self.weight))
        if self.options.reconstruct:
            solved = masked_least_squares(xx, xy, start, mask, self.options.damping)
        if self.options.channels:
            solved = solved * self._scales(solved, xx, yy)
        self.errors = (_error(now, xx, xy, yy), _error(solved, xx, xy, yy))
        write(self.weight, call.unmatrix(solved, self.weight))
        if self.bias is not None and self.around_mean:
            x, y = moments.x / moments.count, moments.y / moments.count
            write(self.bias, y - (solved @ x[..., None])[..., 0])

    @staticmethod
    def _scales(weight: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
        """What each output is to be multiplied by, to vary as the wanted one."""
        variance = torch.einsum("goi,gij,goj->go", weight, xx, weight)
        usable = (variance > 1e-12 * yy.max()) & (yy > 0)
        ratio = torch.where(usable, yy / torch.where(usable, variance, 1.0), 1.0)
        return ratio.sqrt()[..., None]


class BatchNormSite:
    """A BatchNorm layer whose running statistics are those of the images.

    Args:
        name: of the layer.
        mean: its running mean.
        variance: its running variance.
    """

    def __init__(self, name: str, mean: Tensor, variance: Tensor):
        self.name, self.mean, self.variance = name, mean, variance
        self._count = 0
        self._sum = torch.zeros_like(mean, dtype=torch.float64)
        self._squares = torch.zeros_like(self._sum)

    def add(self, call: LayerCall, dense: Callable[[], Tensor], /) -> None:
        """Take in one batch."""
        del dense  # these statistics are those of the pruned network
        values = call.input.transpose(0, 1).flatten(1)  # channels first
        self._count += values.shape[1]
        for channel, row in enumerate(values.split(64)):
            wide, places = row.double(), slice(channel * 64, channel * 64 + len(row))
            self._sum[places] += wide.sum(1)
            self._squares[places] += wide.square().sum(1)

    def finish(self) -> None:
        """Write the statistics: the mean, and the unbiased variance, as momentum-free training."""
        if self._count < 2:
            raise InvalidArgumentError(
                f"{self.name} gets one value a channel from these images, which has no variance: "
                "give more images"
            )
        mean = self._sum / self._count
        variance = (self._squares / self._count - mean.square()).clamp(min=0)
        if not bool(torch.isfinite(mean).all() and torch.isfinite(variance).all()):
            raise FailureError(
                f"what goes into {self.name} is NaN or infinite on these images: look at the "
                "images and at the network before it is pruned"
            )
        write(self.mean, mean)
        write(self.variance, variance * (self._count / (self._count - 1)))


def _error(weight: Tensor, xx: Tensor, xy: Tensor, yy: Tensor) -> float:
    """The mean squared error of the outputs, as a part of the mean square of the wanted ones."""
    fitted = torch.einsum("goi,gij,goj->go", weight, xx, weight)
    cross = torch.einsum("goi,gio->go", weight, xy)
    wanted = float(yy.sum())
    return float((yy - 2 * cross + fitted).sum()) / wanted if wanted > 0 else 0.0
