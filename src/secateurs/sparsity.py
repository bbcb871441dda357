"""How sparse a model or a set of masks is, layer by layer and in total."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from secateurs.targets import Layers, Patterns, find_targets

BACKWARD_SUFFIX = "_backward_mask"


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
    """Counts for each layer, in the model's order; ``print`` shows them as a table."""

    layers: tuple[LayerSparsity, ...]

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
        total = LayerSparsity("total", (), self.zeros, self.total)
        width = max(len(name) for name, _, _ in [*rows, ("total", (), total)])
        lines = [f"{'':{width}}  {'shape':>20} {'zero':>12} {'of':>12} {'ratio':>7}"]
        for name, shape, layer in [*rows, ("total", (), total)]:
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
    """Count the zeros of a model's target weights.

    For a layer under gradient pruning it counts what the backward pass takes as zero.

    Args:
        model: the network.
        layers: see `secateurs.targets.find_targets`, as for ``include`` and ``exclude``.
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
    """
    counts: list[LayerSparsity] = []
    for target in find_targets(model, layers=layers, include=include, exclude=exclude):
        values = target.parameter.detach()
        mask = target.module._buffers.get(target.attribute + BACKWARD_SUFFIX)
        if mask is None:
            kept = int(torch.count_nonzero(values if values.element_size() > 1 else values.float()))
        else:
            kept = count_kept(mask, tuple(values.shape))
        total = values.numel()
        counts.append(LayerSparsity(target.name, tuple(values.shape), total - kept, total))
    return Sparsity(tuple(counts))


def count_kept(mask: torch.Tensor, shape: tuple[int, ...]) -> int:
    """Count the true elements of a mask that broadcasts to ``shape``."""
    total = torch.Size(shape).numel()
    return int(torch.count_nonzero(mask)) * (total // mask.numel()) if total else 0
