"""How sparse a model or a set of masks is, layer by layer and in total."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from secateurs._tensors.device_keys import fetched
from secateurs.distributed.process_group import ProcessGroup
from secateurs.distributed.shard import Shard, shard_of
from secateurs.masks.granularity import Units
from secateurs.originals.module_state import fits, mask_of
from secateurs.parameters.coverage_count import count_coverage
from secateurs.parameters.layer_choice import LayerChoice, Layers, Patterns
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import countable_targets
from secateurs.parameters.target import Target


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
        """The share of the model's weights that these layers are; 1.0 if the model is not known."""
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
        return f"Sparsity({counts} in {len(self)} parameters{of_model})"

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

    def __str__(self) -> str:
        rows = [(layer.name, layer.shape, layer) for layer in self.layers]
        rows.append(("total", (), LayerSparsity("total", (), self.zeros, self.total)))
        if self.model_total is not None and self.model_total != self.total:
            model = LayerSparsity("whole model", (), self.zeros, self.model_total)
            rows.append((model.name, (), model))
        width = max(len(name) for name, _, _ in rows)
        lines = [f"{'':{width}}  {'shape':>20} {'zero':>12} {'of':>12} {'ratio':>7}"]
        for name, shape, layer in rows:
            dims = " x ".join(map(str, shape))
            lines.append(
                f"{name:{width}}  {dims:>20} {layer.zeros:>12,} {layer.total:>12,} "
                f"{layer.ratio:>7.2%}"
            )
        return "\n".join(lines)


def sparsity(
    model: nn.Module,
    *,
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> Sparsity:
    """Count the zeros of a model's target weights, and say what share of the model these are.

    Zeros of weights that do not compete are not counted. For a layer under gradient pruning it
    counts what the backward pass takes as zero. All ranks of a sharded model must call together,
    and get the counts of the whole model. Layers of a chosen kind whose weights cannot be pruned
    (computed ones, integers, scripted ones, lazy layers that never ran) are left out.

    Args:
        model: the network.
        layers: see `secateurs.find_targets`, as for ``include`` and ``exclude``.
        include: see ``layers``.
        exclude: see ``layers``.

    Returns:
        The counts for each target weight and in total.

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
        Sparsity(ratio=0, zeros=0 of 90 in 1 parameters, overall=0 of the model's 399)
    """
    contents = ModelContents(model)
    holders = contents.group.holders
    holders.agree("sparsity", {"layers": layers, "include": include, "exclude": exclude})
    targets = countable_targets(contents, LayerChoice(layers, include, exclude))
    kept = count_nonzero([_local_zeros(target) for target in targets], holders)
    rows = zip(targets, kept, strict=True)
    counts = tuple(_layer(t.name, tuple(t.parameter.shape), *one) for t, one in rows)
    return Sparsity(counts, count_coverage(contents, targets)[1])


def _local_zeros(target: Target) -> tuple[torch.Tensor, Shard]:
    """What to count of a parameter: its values, or the mask of its backward pass."""
    mask = mask_of(target.module, target.attribute)
    if mask is None or not fits(mask, target.parameter):
        return target.local, target.shard
    shard = shard_of(mask, target.name, target.group)
    return shard.of(mask), shard


def count_masks(masks: Mapping[str, tuple[torch.Tensor, Units]], group: ProcessGroup) -> Sparsity:
    """Count what masks set to zero.

    Args:
        masks: for each name True where a unit on this rank is kept, and the units.
        group: the ranks that it takes to hold the model once; all must call together.
    """
    kept = count_nonzero([(keep, units.shard) for keep, units in masks.values()], group)
    rows = zip(masks.items(), kept, strict=True)
    return Sparsity(tuple(_layer(name, units.shape, *one) for (name, (_, units)), one in rows))


def count_nonzero(
    tensors: Sequence[tuple[torch.Tensor, Shard]], group: ProcessGroup
) -> list[tuple[int, int]]:
    """Count what is not zero in each tensor.

    Args:
        tensors: what lies here, and which part of the whole it is.
        group: the ranks that it takes to hold the model once; all must call together.

    Returns:
        For each tensor as a whole how many are not zero, and of how many.
    """
    found = map(int, fetched([_nonzero(local) for local, shard in tensors if shard.counted]))
    here = [next(found) if shard.counted else 0 for _, shard in tensors]
    together = group.sum(np.array(here)).tolist()
    sizes = [torch.Size(shard.shape).numel() for _, shard in tensors]
    return list(zip(together, sizes, strict=True))


def _nonzero(values: torch.Tensor) -> torch.Tensor:
    eight_bits = values.element_size() == 1 and values.is_floating_point()
    return torch.count_nonzero(values.float() if eight_bits else values)


def _layer(name: str, shape: tuple[int, ...], kept: int, counted: int) -> LayerSparsity:
    """The zeros of a parameter, of which each counted element stands for as many as it covers."""
    total = torch.Size(shape).numel()
    zeros = total - kept * (total // counted) if total else 0
    return LayerSparsity(name, shape, zeros, total)
