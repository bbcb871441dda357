"""Find the units of stored tensors by their names and shapes."""

from collections.abc import Sequence

import torch

from secateurs.checkpoint.contents import Entry
from secateurs.parameters.layer_names import Shape, experts_in, layer_of, outputs_last


class Layouts:
    """The units of the tensors of a checkpoint.

    Args:
        entries: all tensors. Biases, and the other tensors of the same experts, show which
            dimension the outputs are.
    """

    def __init__(self, entries: Sequence[Entry]):
        self._shapes = {name: entry.shape for entry in entries for name in entry.names}
        self._holders = {name: experts_in(name, shape) for name, shape in self._shapes.items()}
        self._stacks: dict[str | None, list[Shape]] = {}
        for entry in entries:
            for holder in {self._holders[name] for name in entry.names}:
                self._stacks.setdefault(holder, []).append(entry.shape)
        known = [(layer_of(name), self._known(name)) for name in self._shapes]
        rows = {layer for layer, columns in known if columns is False}
        self._columns = {layer for layer, columns in known if columns} - rows

    def unit(self, entry: Entry, granularity: str) -> tuple[int, int]:
        """The size of a unit, and whether its elements are contiguous in memory.

        Returns:
            The number of elements of one unit; and 1 if they are contiguous, otherwise the number
            of columns of the matrix whose columns are the units.
        """
        shape, kernels = entry.shape, granularity == "kernel"
        if granularity == "weight" or len(shape) < 2 or (kernels and self._is_stack(entry)):
            return 1, 1
        if kernels:
            return torch.Size(shape[2:]).numel(), 1
        return self.inputs(entry)

    def inputs(self, entry: Entry) -> tuple[int, int]:
        """How many inputs each output has, and how far apart consecutive ones are."""
        shape = entry.shape
        if len(shape) > 1 and self.outputs_last(entry):
            return shape[-2], shape[-1]
        return torch.Size(shape[2 if self._is_stack(entry) else 1 :]).numel(), 1

    def is_guessed(self, entry: Entry) -> bool:
        """Whether it is a stack of experts, and nothing shows which dimension their outputs are."""
        return self._is_stack(entry) and self._known_of(entry) is None

    def outputs_last(self, entry: Entry) -> bool:
        """Whether the outputs of a matrix, or of a stack of matrices, are the last dimension."""
        known = self._known_of(entry)
        if known is None and len(entry.shape) == 2 and entry.name.endswith("weight"):
            # A square matrix is treated as those of the same name in other blocks.
            return layer_of(entry.name) in self._columns
        return bool(known)

    def _is_stack(self, entry: Entry) -> bool:
        """Whether it stacks the matrices of experts, by one of its names."""
        return any(self._holders[name] is not None for name in entry.names)

    def _known_of(self, entry: Entry) -> bool | None:
        """As `_known`, by the first of its names that shows it."""
        known = map(self._known, entry.names)
        return next((one for one in known if one is not None), None)

    def _known(self, name: str) -> bool | None:
        """Whether a tensor's outputs are its last dimension; None if nothing shows it."""
        shape, holder = self._shapes[name], self._holders[name]
        if holder is not None:
            beside = self._stacks[holder]
            return outputs_last(shape, bias=self._shapes.get(f"{name}_bias"), beside=beside)
        module, _, attribute = name.rpartition(".")
        if len(shape) != 2 or attribute != "weight":
            return None
        return outputs_last(shape, bias=self._shapes.get(f"{module}.bias" if module else "bias"))
