"""Repairs of layers of which each alone is pruned, all in one pass over the images."""

import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateurs._io.text import listed
from secateurs.errors import Argument, InvalidArgumentError, RepairWarning
from secateurs.originals.module_state import parameter_of
from secateurs.parameters.target import Target
from secateurs.repair.calibration import calibrating
from secateurs.repair.changes import write
from secateurs.repair.layer_sites import LayerOptions, WeightSite, matched_statistics
from secateurs.repair.layer_uses import LayerUses, layer_uses
from secateurs.repair.layerwise import (
    STATISTICS,
    PrunedTarget,
    bias_of,
    called_batch_norms,
    solvable_parts,
    weight_sites,
)
from secateurs.repair.least_squares import Moments
from secateurs.repair.lockstep import Lockstep, Site
from secateurs.repair.repair_options import LAYERWISE, RepairOptions

Masks = Mapping[str, Callable[[], Tensor]]
"""For each key a function that makes a mask: True is kept, in the shape of the weight."""


def repair_single_layers(
    model: nn.Module,
    images: Tensor | Sequence[Tensor],
    steps: Collection[str],
    targets: Mapping[str, tuple[Target, Masks]],
    keep: Callable[[str, dict[str, Tensor]], None],
    options: RepairOptions,
) -> tuple[str, ...]:
    """Repair every layer under several masks, while all other layers stay dense.

    As all layers before it are dense, one pass of the images gives the moments of each layer's
    inputs and wanted outputs, and the layer is solved for each mask from these. ``"batchnorm"``
    sets the statistics of the BatchNorm that follows the layer from them.

    Args:
        model: the dense network; afterwards as it was.
        images: as for `secateurs.repair`.
        steps: some of `LAYERWISE`.
        targets: by name the weights and their masks.
        keep: is called with each key, and the repaired values by name.
        options: how.

    Returns:
        The names of weights that are not repaired, because they are not used exactly once.

    Raises:
        InvalidArgumentError: there are no images, or the model does not take them.
        FailureError: a value becomes NaN or infinite.
    """
    if not targets:
        return ()
    with calibrating(model, images, options.batch_size) as batches:
        how = LayerOptions(steps, options, sum(map(len, batches)))
        uses = layer_uses(model, batches[0][:1])
        norms = called_batch_norms(model, uses, "repair") if "batchnorm" in steps else {}
        sites: dict[int, Site] = {}
        left: list[str] = []
        for name, (target, masks) in targets.items():
            found = _layer_sites(target, masks, uses, norms, keep, how)
            sites |= {id(site.weight): site for site in found}
            left += [] if found else [name]
        Lockstep(model, sites, None, uses, options.memory).run(batches)
    if left:
        warnings.warn(
            RepairWarning(
                f"{listed(left)} cannot be solved layer by layer (used several "
                "times or never, or by another function than a convolution or linear layer): "
                "measured as pruned, not repaired"
            ),
            stacklevel=4,
        )
    return tuple(left)


def check_single_layer_steps(steps: Sequence[str], granularity: str) -> tuple[str, ...]:
    """The steps, checked.

    Raises:
        InvalidArgumentError: a step repairs no single layer, or not at this granularity.
    """
    for step in steps:
        if step not in LAYERWISE:
            raise InvalidArgumentError(
                Argument("repair"), f" of single layers takes {', '.join(LAYERWISE)}, got {step!r}"
            )
    if "sparsegpt" in steps and granularity != "weight":
        raise InvalidArgumentError(
            f"'sparsegpt' chooses single weights, not units of {granularity}: leave it out of ",
            Argument("repair"), ", or write ", Argument("granularity", "weight"),
        )  # fmt: skip
    return tuple(dict.fromkeys(steps))


@contextmanager
def _put_back(tensors: Iterable[Tensor]) -> Generator[None]:
    """Put the values of tensors back after a ``with`` block."""
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, values in before:
            write(tensor, values)


class _Layer:
    """A weight, its bias and the BatchNorm that follows: what a repair of one layer changes.

    Args:
        tensors: these, by name.
        masks: of the weight.
        parts: how many sites solve for the weight.
        keep: see `repair_single_layers`.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        masks: Masks,
        parts: int,
        keep: Callable[[str, dict[str, Tensor]], None],
    ):
        self.tensors, self.masks, self.parts = tensors, masks, parts
        self._keep = keep
        self._solved: list[dict[str, list[tuple[Tensor, Tensor]]]] = []

    def solved(self, values: dict[str, list[tuple[Tensor, Tensor]]]) -> None:
        """Collect the values of one site: for each key, tensors of the model and their values.

        After the last site of the weight, ``keep`` gets the values of all of them.
        """
        self._solved.append(values)
        if len(self._solved) < self.parts:
            return
        for key in self.masks:
            with _put_back(self.tensors.values()):
                for values in self._solved:
                    for tensor, value in values[key]:
                        write(tensor, value)
                found = {n: t.detach().cpu().clone() for n, t in self.tensors.items()}
            self._keep(key, found)


class _SingleLayerSite(WeightSite):
    """A layer that is solved under several masks, and afterwards is as it was.

    Args:
        *args: as for `WeightSite`, with any mask.
        layer: collects the values.
        rows: the rows of the weight that this site solves for.
        norm: the BatchNorm that follows; None if there is none or it stays.
        **options: as for `WeightSite`.
    """

    def __init__(
        self, *args: Any, layer: _Layer, rows: slice, norm: _BatchNorm | None, **options: Any
    ):
        super().__init__(*args, **options)
        self._layer, self._rows, self._norm = layer, rows, norm

    def finish(self) -> None:
        """Solve it under each mask."""
        calls, moments = self._calls, self._moments
        weight, bias = self.weight, self.bias
        tensors = [weight] if bias is None else [weight, bias]
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for key, make in self._layer.masks.items():
            with _put_back(tensors):
                self.mask = make()[self._rows].to(weight.device)
                write(weight, self.dense * self.mask)
                self._calls, self._moments = list(calls), moments
                if self.options.solves or "channels" in self.options.steps:
                    super().finish()
                values = [(tensor, tensor.detach().clone()) for tensor in tensors]
                if self._norm is not None:
                    solved = calls[-1].matrix(weight.detach()).double()
                    covariance, _, spread = self.centred(moments)
                    known = covariance, spread
                    values += _norm_statistics(self._norm, moments, known, solved, bias)
            found[key] = values
        self._calls, self._moments, self.mask = [], Moments(), torch.empty(0)
        self._layer.solved(found)


def _layer_sites(
    target: Target,
    masks: Masks,
    uses: LayerUses,
    norms: Mapping[int, tuple[str, _BatchNorm]],
    keep: Callable[[str, dict[str, Tensor]], None],
    how: LayerOptions,
) -> list[WeightSite]:
    """The sites of a weight; none if it is not used exactly once."""
    parts = solvable_parts(target, uses)
    if not parts:
        return []
    prefix, bias = target.name.removesuffix(target.attribute), bias_of(target)
    tensors = {target.name: target.parameter, prefix + bias: parameter_of(target.module, bias)}
    name, norm = norms.get(uses.before_batch_norm.get(id(parts[0]), 0), ("", None))
    if norm is not None:
        for statistic in STATISTICS:
            tensors[f"{name}.{statistic}"] = parameter_of(norm, statistic)
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    layer = _Layer(present, masks, len(parts), keep)
    each = target.parameter.shape[0] // len(parts)
    rows = (slice(start, start + each) for start in range(0, each * len(parts), each))

    def site(*args: Any, **options: Any) -> WeightSite:
        return _SingleLayerSite(*args, layer=layer, rows=next(rows), norm=norm, **options)

    all_kept = torch.ones((), dtype=torch.bool).expand(target.parameter.shape)
    weight = PrunedTarget(target, all_kept)
    return weight_sites(weight, parts, {}, norm is not None, how, site)


def _norm_statistics(
    norm: _BatchNorm,
    moments: Moments,
    centred: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None,
) -> list[tuple[Tensor, Tensor]]:
    """The statistics of the BatchNorm that follows a layer; weight is (groups, outputs, inputs).

    The layer's outputs have the mean w^T E[x] + b and the variance w^T C w, with C the covariance
    of its inputs. ``centred`` is C and the variance of the dense layer's outputs.
    """
    covariance, spread = centred
    mean = (weight @ (moments.x / moments.count)[..., None])[..., 0].flatten()
    if bias is not None:
        mean = mean + bias.detach().double()
    variance = torch.einsum("goi,gij,goj->go", weight, covariance, weight).clamp(min=0).flatten()
    wanted = (moments.y / moments.count).flatten()
    tensors = [parameter_of(norm, one) for one in STATISTICS]
    running = [one for one in tensors if one is not None]
    new = matched_statistics(
        (mean, variance), (wanted, spread.flatten()), (running[0], running[1]), norm.eps
    )
    return list(zip(running, new, strict=True))
