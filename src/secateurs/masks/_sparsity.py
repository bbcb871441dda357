"""How sparse a model or a set of masks is, layer by layer and in total."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from secateurs._io.text import counted, printable
from secateurs._tensors.device_keys import fetched
from secateurs.distributed.process_group import ProcessGroup
from secateurs.distributed.shard import Shard, shard_of
from secateurs.errors import require
from secateurs.masks.granularity import Units
from secateurs.originals.module_state import fits, mask_of
from secateurs.parameters.layer_choice import LayerChoice, Layers, Patterns
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import countable_targets
from secateurs.parameters.target import Target
from secateurs.parameters.weight_counts import elements_in

_SHOWS = "secateurs.report.notebook"
"""What shows the counts; it is imported when they are shown, since pruning needs no plots."""


@dataclass(frozen=True)
class LayerSparsity:
    """The count of one parameter.

    Attributes:
        name: its qualified name.
        shape: its shape.
        zeros: how many of its elements are zero, or pruned.
        total: how many elements it has.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    total: int

    @property
    def ratio(self) -> float:
        """``zeros / total``; 0.0 for an empty parameter."""
        return self.zeros / self.total if self.total else 0.0


@dataclass(frozen=True)
class Sparsity:
    """Counts for each layer, in the model's order; ``print`` shows them as a table.

    Attributes:
        layers: the counts of each parameter that competes.
        model_total: how many weights the whole model has: the elements of all its floating-point
            parameters, biases and normalisation included, and of torch's quantised layers. None
            where the model is not known, as for masks.
    """

    layers: tuple[LayerSparsity, ...]
    model_total: int | None = field(default=None, compare=False)

    @property
    def zeros(self) -> int:
        """Zero elements in all layers together."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def total(self) -> int:
        """Elements in all layers together."""
        return sum(layer.total for layer in self.layers)

    @property
    def ratio(self) -> float:
        """``zeros / total``, from 0.0 to 1.0."""
        return self.zeros / self.total if self.total else 0.0

    @property
    def coverage(self) -> float:
        """The layers' share of the model's weights; 1.0 if the model is not known."""
        return self.total / self.model_total if self.model_total else 1.0

    @property
    def overall(self) -> float:
        """``zeros / model_total``: `ratio` times `coverage`."""
        return self.zeros / self.model_total if self.model_total else self.ratio

    def __repr__(self) -> str:
        counts = f"ratio={self.ratio:.4g}, zeros={self.zeros:,} of {self.total:,}"
        of_model = (
            f", overall={self.overall:.4g} of the model's {self.model_total:,}"
            if self.model_total is not None
            else ""
        )
        return f"Sparsity({counts} in {counted(len(self), 'parameter')}{of_model})"

    def __getitem__(self, name: str) -> LayerSparsity:
        """The counts of one parameter by its qualified name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def __iter__(self) -> Iterator[LayerSparsity]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def plot(self, *, title: str | None = None) -> Any:
        """Draw the kept part of each layer as bars, with matplotlib.

        Args:
            title: the text above the figure; default none.

        Returns:
            A matplotlib figure.

        Raises:
            InvalidArgumentError: there are no layers.
            FailureError: matplotlib is not installed.
        """
        return import_module(_SHOWS).layers_figure([_counts(x) for x in self], title=title)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each layer.

        Raises:
            FailureError: pandas is not installed.
        """
        require("pandas", "a DataFrame")
        columns = ["name", "shape", "zeros", "total", "ratio"]
        rows = [[getattr(layer, name) for name in columns] for layer in self.layers]
        return import_module("pandas").DataFrame(rows, columns=columns)

    def _repr_html_(self) -> str:
        return import_module(_SHOWS).layers_html([_counts(row) for row in self._rows])

    @property
    def _rows(self) -> list[LayerSparsity]:
        """The layers, all of them together, and the whole model."""
        rows = [*self.layers, LayerSparsity("total", (), self.zeros, self.total)]
        if self.model_total is not None and self.model_total != self.total:
            rows.append(LayerSparsity("whole model", (), self.zeros, self.model_total))
        return rows

    def __str__(self) -> str:
        rows = [replace(row, name=printable(row.name)) for row in self._rows]
        width = max(len(row.name) for row in rows)
        lines = [f"{'':{width}}  {'shape':>20} {'zero':>12} {'of':>12} {'ratio':>7}"]
        for row in rows:
            shape = " x ".join(map(str, row.shape))
            counts = f"{row.zeros:>12,} {row.total:>12,} {row.ratio:>7.2%}"
            lines.append(f"{row.name:{width}}  {shape:>20} {counts}")
        return "\n".join(lines)


def _counts(layer: LayerSparsity) -> tuple[str, tuple[int, ...], int, int]:
    return layer.name, layer.shape, layer.zeros, layer.total


def sparsity(
    model: nn.Module,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> Sparsity:
    """Count the zeros of a model's prunable parameters, and their share of the model.

    Zeros of other parameters are not counted. Of a layer under gradient pruning, the weights that
    the backward pass takes as zero are counted. All ranks of a sharded model must call together,
    and get the counts of the whole model. Layers of a chosen kind whose weights cannot be pruned
    (computed ones, integers, scripted ones, lazy layers that never ran) are left out.

    Args:
        model: the network.
        layers: see `secateurs.find_targets`, as for ``include`` and ``exclude``.
        include: see ``layers``.
        exclude: see ``layers``.

    Returns:
        The counts for each prunable parameter and in total.

    Raises:
        InvalidArgumentError: the options select nothing.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
        >>> sparsity(model).ratio
        0.25
        >>> model = torch.nn.Sequential(torch.nn.Embedding(30, 10), torch.nn.Linear(10, 9))
        >>> sparsity(model)
        Sparsity(ratio=0, zeros=0 of 90 in 1 parameter, overall=0 of the model's 399)
    """
    contents = ModelContents(model)
    holders = contents.group.holders
    holders.agree("sparsity", {"layers": layers, "include": include, "exclude": exclude})
    targets = countable_targets(contents, LayerChoice(layers, include, exclude))
    kept = count_nonzero([_local_counted(target) for target in targets], holders)
    rows = zip(targets, kept, strict=True)
    counts = tuple(_layer(t.name, tuple(t.parameter.shape), *one) for t, one in rows)
    return Sparsity(counts, elements_in(contents))


def _local_counted(target: Target) -> tuple[torch.Tensor, Shard]:
    """The tensor whose zeros are counted: the parameter, or what its backward pass makes of it."""
    mask, values = mask_of(target.module, target.attribute), _comparable(target.local)
    if mask is None or not fits(mask, target.parameter):
        return values, target.shard
    return shard_of(mask, target.name, target.group).of(mask) & (values != 0), target.shard


def count_masks(masks: Mapping[str, tuple[torch.Tensor, Units]], group: ProcessGroup) -> Sparsity:
    """Count the elements that masks prune.

    Args:
        masks: for each name, a bool for each unit on this rank, True if it is kept; and the units.
        group: the ranks that together hold one copy of the model; all must call together.
    """
    kept = count_nonzero([(keep, units.shard) for keep, units in masks.values()], group)
    rows = zip(masks.items(), kept, strict=True)
    return Sparsity(tuple(_layer(name, units.shape, *one) for (name, (_, units)), one in rows))


def count_nonzero(
    tensors: Sequence[tuple[torch.Tensor, Shard]], group: ProcessGroup
) -> list[tuple[int, int]]:
    """Count the elements of each tensor that are not zero.

    Args:
        tensors: the elements on this rank, and which of the whole tensor's they are.
        group: the ranks that together hold one copy of the model; all must call together.

    Returns:
        For each whole tensor, how many elements are not zero, and how many it has.
    """
    found = map(int, fetched([local.count_nonzero() for local, shard in tensors if shard.counted]))
    counts = [next(found) if shard.counted else 0 for _, shard in tensors]
    sums = group.sum(np.array(counts)).tolist()
    sizes = [torch.Size(shard.shape).numel() for _, shard in tensors]
    return list(zip(sums, sizes, strict=True))


def _comparable(values: torch.Tensor) -> torch.Tensor:
    float8 = values.element_size() == 1 and values.is_floating_point()
    return values.float() if float8 else values


def _layer(name: str, shape: tuple[int, ...], kept: int, counted: int) -> LayerSparsity:
    """The zeros of a parameter of which ``counted`` units, all of one size, were counted."""
    total = torch.Size(shape).numel()
    zeros = total - kept * (total // counted) if total else 0
    return LayerSparsity(name, shape, zeros, total)
