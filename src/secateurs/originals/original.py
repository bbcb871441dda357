"""`Original`: the values that a parameter had before it was pruned, and whether it changed since.

A pruned weight is its original times a mask, or what repair made of that. If it holds anything
else, it was trained, loaded, merged or set since. To find that, all values must be compared;
torch's count of writes to a tensor mostly shows that nothing was written, and saves that.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from secateurs._tensors.blocks import in_threads, threads_for
from secateurs._tensors.memory_order import as_integers
from secateurs.distributed.dtensor import local_of, stored_of
from secateurs.distributed.process_group import ProcessGroup
from secateurs.originals.comparison import differs

# How many values are compared if no write was counted. torch counts no writes by optimizers with
# ``fused=True``, nor through ``.data``; these change nearly every value.
_PROBES = 16
_OF_NUMPY = (torch.float32, torch.float64, torch.float16)


class Original:
    """The values that one Parameter had before it was pruned, or a buffer before it was repaired.

    Args:
        values: a detached copy.
        parameter: the Parameter, or the buffer, whose values they are.

    Attributes:
        repaired: a copy of the values that repair gave the parameter; None if it was not repaired.
    """

    def __init__(self, values: torch.Tensor, parameter: torch.Tensor):
        self.values = values
        self.parameter = parameter
        self.repaired: torch.Tensor | None = None
        self.note_mask(None)
        self._at_comparison: tuple[tuple[Any, ...], _GradientNow | None] | None = None
        self._trained = False
        self._unwritten = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy has its own count of writes. A mask shares memory with others, which would be
        # copied with it.
        mask = None if self.mask is None else self.mask.clone()
        return self.__dict__ | {"_at_comparison": None, "_mask": mask}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.note_mask(self._mask)

    def belongs_to(self, parameter: torch.Tensor | None) -> bool:
        """Whether these are the original values of a parameter, and of its present shape."""
        return parameter is self.parameter and self.parameter.shape == self.values.shape

    def moved(
        self,
        values: torch.Tensor,
        parameter: torch.Tensor,
        repaired: torch.Tensor | None = None,
    ) -> "Original":
        """The original of a parameter that was moved, converted or copied.

        Args:
            values: the original values, converted in the same way.
            parameter: the new parameter.
            repaired: the repaired values, converted in the same way; default those of this one.
        """
        moved = Original(values, parameter)
        moved.repaired = self.repaired if repaired is None else repaired
        moved._mask, moved._mask_version = self._mask, self._mask_version
        return moved

    @property
    def beside(self) -> torch.Tensor:
        """The values on the parameter's device and in its dtype, also if it alone was converted."""
        return self.values.to(self.parameter.device, self.parameter.dtype)

    @property
    def mask(self) -> torch.Tensor | None:
        """The mask that the parameter was pruned by; None if unknown or overwritten."""
        mask = self._mask
        return mask if mask is not None and version_of(mask) == self._mask_version else None

    @property
    def trained(self) -> bool:
        """Whether the parameter holds anything but the original values times the mask."""
        return update_trained([self])[0]

    @property
    def was_trained(self) -> bool:
        """The result of the last `update_trained`."""
        return self._trained

    @property
    def was_unwritten(self) -> bool:
        """Whether the last `update_trained` found no sign of a write."""
        return self._unwritten

    def differs(self) -> torch.Tensor:
        """`trained`, by comparing all values: a bool tensor, without waiting for a GPU."""
        expected = self.values if self.repaired is None else self.repaired
        return differs(self.parameter, expected, self.mask)

    def note_repaired(self) -> None:
        """Note that the parameter holds what repair gave it, which is no training."""
        self.repaired = self.parameter.detach().clone()
        self.note_compared()

    def note_pruned(self, mask: torch.Tensor | None) -> None:
        """Note that the parameter now holds the original values times a mask; see `note_mask`."""
        self.note_mask(mask)
        self.repaired = None
        self.note_compared()

    def note_mask(self, mask: torch.Tensor | None) -> None:
        """Note which elements of the parameter are pruned.

        Args:
            mask: True is kept; broadcasts to this rank's part of the parameter. None if unknown:
                then every zero counts as pruned.
        """
        # A copy would slow down a redraw. If the mask is overwritten, torch counts the write.
        self._mask = None if mask is None or mask.is_inference() else mask
        self._mask_version = 0 if self._mask is None else version_of(self._mask)

    def note_compared(self, trained: bool = False) -> None:
        """Note the result of a comparison of all values, and the counts of writes now."""
        grad = self.parameter.grad
        self._trained = trained
        known = None if self._at_comparison is None else self._at_comparison[1]
        if grad is None or known is None or not known.is_still(grad):
            known = None if grad is None else _GradientNow(grad)
        self._at_comparison = _writes(self.parameter), known

    def sign_of_write(self) -> str:
        """What has happened since the last comparison.

        Returns:
            ``"written"`` if the parameter may have been written to, ``"gradient"`` if only its
            gradient changed, else an empty string.
        """
        if self._at_comparison is None or self._at_comparison[0] != _writes(self.parameter):
            return "written"
        grad, known = self.parameter.grad, self._at_comparison[1]
        same = grad is None if known is None else grad is not None and known.is_still(grad)
        return "" if same else "gradient"


class _GradientNow:
    """Recognises whether a parameter still has the same gradient, not written to since.

    It has no weak reference to the gradient: with one, torch cannot convert a module whose
    parameters it swaps, as those of FSDP. It has one to the memory, so that none that is allocated
    later is taken for it.
    """

    __slots__ = ("_id", "_memory", "_version")

    def __init__(self, grad: torch.Tensor):
        self._id, self._version = id(grad), version_of(grad)
        stored = stored_of(grad)
        dense = stored.layout is torch.strided  # a sparse tensor has no single memory
        self._memory = StorageWeakRef(stored.untyped_storage()) if dense else None

    def is_still(self, grad: torch.Tensor) -> bool:
        """Whether this is the gradient; False where that is not known."""
        if self._memory is None or id(grad) != self._id or version_of(grad) != self._version:
            return False
        return stored_of(grad).untyped_storage()._cdata == self._memory.cdata


def valid_of(originals: Sequence[Original]) -> Original | None:
    """Choose the valid one of several originals of a tied Parameter; None if there are none.

    They differ if a submodule that shares the Parameter was pruned on its own later.
    """
    if all(original.values is originals[0].values for original in originals[1:]):
        return originals[0] if originals else None
    return next((original for original in originals if not original.trained), originals[0])


def update_trained(
    originals: Sequence[Original],
    group: ProcessGroup | None = None,
    *,
    compare_all: bool = False,
    wait: bool = True,
) -> list[bool]:
    """Find which parameters were trained since they were pruned, and note it in the originals.

    Args:
        originals: of the parameters.
        group: the ranks that hold the model, by default this process alone. All ranks must call
            this together; a parameter that was trained on one rank counts as trained on all.
        compare_all: whether to compare all values, whatever torch counted.
        wait: whether to wait for a GPU if the only sign of a write is a new gradient.
    """
    asked = [o for o in originals if _needs_comparison(o, wait) or compare_all]
    for original, trained in zip(asked, _compare(asked), strict=True):
        original.note_compared(trained)
    if not originals:
        return []
    holders = (group or ProcessGroup()).holders
    found = np.array([original._trained for original in originals], np.int64)
    together = [count > 0 for count in holders.sum(found).tolist()]
    for original, trained in zip(originals, together, strict=True):
        original._trained = trained
    return together


def _needs_comparison(original: Original, wait: bool) -> bool:
    sign = original.sign_of_write()
    original._unwritten = not sign
    return sign == "written" or (
        sign == "gradient" and (wait or original.parameter.device.type == "cpu")
    )


def _compare(originals: Sequence[Original]) -> list[bool]:
    if not all(original.parameter.is_cpu for original in originals):
        found = [original.differs() for original in originals]
        if len({flag.device for flag in found}) == 1:
            return torch.stack(found).tolist()  # a GPU is waited for once
        return list(map(bool, found))
    count = threads_for(sum(original.parameter.numel() for original in originals))
    shares = [originals[first::count] for first in range(count)]
    outcomes = in_threads(lambda share: [bool(o.differs()) for o in share], shares)
    return [outcomes[i % count][i // count] for i in range(len(originals))]


def _writes(parameter: torch.Tensor) -> tuple[Any, ...]:
    """What changes with a write: torch's count, the address, a few values."""
    values = parameter.detach()
    count = version_of(parameter)
    if values.is_cpu and type(values) is torch.Tensor:  # the usual case, decided quickly
        return count, values.data_ptr(), _probe(values)
    here = local_of(values)
    address = None if here.is_meta else here.data_ptr()
    return count, version_of(here), address, _probe(here) if here.is_cpu else None


def version_of(tensor: torch.Tensor) -> int:
    """How often torch has counted a write to a tensor; -1 for one of inference mode."""
    return -1 if tensor.is_inference() else tensor._version


def _probe(values: torch.Tensor) -> bytes:
    array = (values if values.dtype in _OF_NUMPY else as_integers(values)).numpy()
    return array.flat[:: max(array.size // _PROBES, 1)].tobytes()
