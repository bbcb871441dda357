"""Layers that are repaired: weights by least squares, channels, and BatchNorm's statistics."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.repair.changes import write
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.least_squares import ChannelMoments, Moments, masked_least_squares
from secateurs.repair.obs_update import obs_update, pattern_of
from secateurs.repair.repair_options import RepairOptions

# How many values are enough for a layer: this many, or so many for each input.
_LEAST_VALUES, _VALUES_AN_INPUT = 20_000, 50


@dataclass(frozen=True)
class LayerOptions:
    """How layers are repaired.

    Attributes:
        steps: names in `LAYERWISE`.
        repair: the options of the repair, such as the damping.
        images: how many images there are.
    """

    steps: Collection[str]
    repair: RepairOptions
    images: int

    @property
    def solves(self) -> bool:
        """Whether kept weights are solved for."""
        return "reconstruct" in self.steps or "sparsegpt" in self.steps


class WeightSite:
    """A convolution or linear layer whose kept weights are solved for.

    Args:
        name: of the weight.
        weight: the Parameter.
        bias: its bias; None if it has none.
        dense: the dense network's weight.
        mask: True is kept, in the shape of the weight.
        around_mean: whether the bias, or a BatchNorm that follows, gives the outputs the right
            means whatever the weights are.
        options: how.

    Attributes:
        mask: as it was handed in, or as it was chosen.
        values: how many values of each output channel were used.
        inputs: how many inputs an output has.
        errors: the squared error of the outputs divided by the variance of the dense layer's,
            before and after.
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

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        """Take in one batch."""
        output = dense()
        if not self._calls:
            positions = call.positions(output)
            values = max(_LEAST_VALUES, _VALUES_AN_INPUT * call.matrix(self.mask).shape[-1])
            most = max(1, min(self.options.repair.most_values, values) // self.options.images)
            if call.is_convolution and positions > most:
                source = torch.Generator().manual_seed(positions)
                order = torch.randperm(positions, generator=source, device="cpu")
                self._chosen = order[:most].sort().values.to(output.device)
        self._calls = [call]
        for rows, values in call.blocks(output, self._chosen):
            self._moments.add(rows, values)

    def finish(self) -> None:
        """Solve it, and write weight and bias."""
        call = self._calls.pop()
        moments, self._moments = self._moments, Moments()
        self.values, self.inputs = moments.count, moments.x.shape[-1]
        xx, xy, yy = self.centred(moments)
        now = call.matrix(self.weight.detach()).double()
        solved = self._solved(call, now, xx, xy)
        if "channels" in self.options.steps:
            solved = solved * self._scales(solved, xx, yy)
        self.errors = (_error(now, xx, xy, yy), _error(solved, xx, xy, yy))
        write(self.weight, call.unmatrix(solved, self.weight))
        if self.bias is not None and self.around_mean:
            x, y = moments.x / moments.count, moments.y / moments.count
            write(self.bias, y - (solved @ x[..., None])[..., 0])

    def _solved(self, call: LayerCall, now: Tensor, xx: Tensor, xy: Tensor) -> Tensor:
        """The weight as a matrix, with its mask chosen and its kept weights solved for as asked.

        Raises:
            FailureError: the damping is too small or too large for numbers of 64 bits.
        """
        start, mask = call.matrix(self.dense).double(), call.matrix(self.mask)
        solved, damping = now, self.options.repair.damping
        try:
            if "sparsegpt" in self.options.steps:
                solved, mask = obs_update(xx, xy, start, mask, damping, neighbours=pattern_of(mask))
                # In the weight's order of memory, as the masks of pruning are.
                self.mask = torch.empty_like(self.weight, dtype=torch.bool)
                self.mask.copy_(call.unmatrix(mask, self.weight))
            if "reconstruct" in self.options.steps:
                solved = masked_least_squares(xx, xy, start, mask, damping)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            solved = torch.full_like(now, torch.nan)
        if not bool(torch.isfinite(solved).all()):
            raise FailureError(
                f"the weights of {self.name} cannot be solved for with ",
                Argument("damping", damping), ": write ", Argument("damping", 0.1),
            )  # fmt: skip
        return solved

    def centred(self, moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
        """As `Moments.centred`.

        Raises:
            FailureError: NaN or infinity among the values.
        """
        xx, xy, yy = moments.centred(self.around_mean)
        if not bool(torch.isfinite(xx).all() and torch.isfinite(xy).all()):
            raise FailureError(
                f"what goes into or comes out of {self.name} is NaN or infinite on these images: "
                "look at the images and at the network before it is pruned"
            )
        return xx, xy, yy

    def outcome(self) -> dict[str, Any]:
        """What it wrote and found; called when it is finished."""
        # Copies, since a part of a packed weight would be saved with the whole weight.
        bias = None if self.bias is None else self.bias.detach().clone()
        found = {name: getattr(self, name) for name in ("values", "inputs", "errors")}
        written = {"weight": self.weight.detach().clone(), "bias": bias}
        return {**written, "mask": self.mask.clone(), **found}

    def put(self, outcome: Mapping[str, Any]) -> None:
        """Write and record what an earlier run found."""
        write(self.weight, outcome["weight"])
        if self.bias is not None:
            write(self.bias, outcome["bias"])
        self.mask = torch.empty_like(self.mask).copy_(outcome["mask"])
        self.values, self.inputs = outcome["values"], outcome["inputs"]
        self.errors = outcome["errors"]

    @staticmethod
    def _scales(weight: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
        """The factor for each output that gives it the wanted output's variance."""
        variance = torch.einsum("goi,gij,goj->go", weight, xx, weight)
        usable = (variance > 1e-12 * yy.max()) & (yy > 0)
        ratio = torch.where(usable, yy / torch.where(usable, variance, 1.0), 1.0)
        return ratio.sqrt()[..., None]


class BatchNormSite:
    """A BatchNorm layer whose running statistics are set by `matched_statistics`.

    Args:
        name: of the layer.
        mean: its running mean.
        variance: its running variance.
    """

    def __init__(self, name: str, mean: Tensor, variance: Tensor):
        self.name, self.mean, self.variance = name, mean, variance
        self._pruned, self._dense = ChannelMoments(), ChannelMoments()
        self._calls: list[LayerCall] = []

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        """Take in one batch."""
        self._calls = [dense]
        self._pruned.add(call.input)
        self._dense.add(dense.input)

    def finish(self) -> None:
        """Write the statistics."""
        if self._pruned.count < 2:
            raise InvalidArgumentError(
                f"{self.name} gets one value a channel from these images, which has no variance: "
                "give more images"
            )
        dense = self._calls.pop()
        (mean, variance), (wanted, spread) = self._pruned.mean_variance, self._dense.mean_variance
        if not all(bool(torch.isfinite(one).all()) for one in (mean, variance, wanted, spread)):
            raise FailureError(
                f"what goes into {self.name} is NaN or infinite on these images: look at the "
                "images and at the network before it is pruned"
            )
        epsilon = float(dense.argument("eps", 1e-5))
        running = dense.argument("running_mean"), dense.argument("running_var")
        new = matched_statistics((mean, variance), (wanted, spread), running, epsilon)
        write(self.mean, new[0])
        write(self.variance, new[1])

    def outcome(self) -> dict[str, Any]:
        """What it wrote; called when it is finished."""
        return {"mean": self.mean, "variance": self.variance}

    def put(self, outcome: Mapping[str, Any]) -> None:
        """Write what an earlier run found."""
        write(self.mean, outcome["mean"])
        write(self.variance, outcome["variance"])


LayerSite = WeightSite | BatchNormSite
"""A layer that a pass repairs, and whose outcome can be saved."""

Statistics = tuple[Tensor, Tensor]
"""Mean and variance of each channel."""


def matched_statistics(
    pruned: Statistics, dense: Statistics, running: Statistics, epsilon: float
) -> Statistics:
    """The running statistics that give BatchNorm's outputs the dense network's mean and variance.

    With the dense network's running statistics m, v, and the means a, d and variances A, D of the
    inputs of the pruned and of the dense layer on the same images, in each channel

    (v' + eps) = (v + eps) A / D and m' = a - (d - m) sqrt((v' + eps) / (v + eps)).

    A few images are enough, since only differences between the two networks on the same images
    count. Where nothing is pruned, the statistics do not change.

    Args:
        pruned: mean and variance of the pruned layer's inputs, (a, A).
        dense: those of the dense layer's inputs, (d, D).
        running: the dense layer's running statistics, (m, v).
        epsilon: eps.

    Returns:
        m' and v', in float64.
    """
    (mean, variance), (wanted, spread) = pruned, dense
    running_mean, running_variance = (one.double() for one in running)
    scale = running_variance + epsilon
    # The scale of a channel that is constant on these images is unknown.
    ratio = torch.where(spread > 1e-12 * scale, variance / spread.clamp(min=1e-300), 1.0)
    new = (scale * ratio - epsilon).clamp(min=0)
    return mean - (wanted - running_mean) * ((new + epsilon) / scale).sqrt(), new


def _error(weight: Tensor, xx: Tensor, xy: Tensor, yy: Tensor) -> float:
    """The mean squared error of the outputs, divided by the mean square of the wanted ones."""
    fitted = torch.einsum("goi,gij,goj->go", weight, xx, weight)
    cross = torch.einsum("goi,gio->go", weight, xy)
    wanted = float(yy.sum())
    return float((yy - 2 * cross + fitted).sum()) / wanted if wanted > 0 else 0.0
