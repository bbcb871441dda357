"""`Original`: the values that a parameter had before it was pruned, and whether they still count.

A pruned weight is its original times a mask, or what repair made of that. If it holds anything
else, it has been trained since, or loaded, or merged, or set afresh. To see that takes a look at
every value; a look is saved where torch's own count of writes says that nobody wrote since we did.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from secateurs._tensors.blocks import in_threads, threads_for
from secateurs._tensors.memory_order import as_integers
from secateurs.distributed.dtensor import is_part, local_of
from secateurs.distributed.process_group import Team
from secateurs.originals.comparison import differs

# Values that are compared where no write was counted: those of optimizers with ``fused=True`` and
# those through ``.data`` are not, and they change nearly every value.
_PROBES = 16
_OF_NUMPY = (torch.float32, torch.float64, torch.float16)


class Original:
    """The values that one Parameter had before it was pruned, or a buffer before it was repaired.

    Args:
        values: a detached copy.
        parameter: the Parameter they are of; another one in its place has nothing to do with them.

    Attributes:
        repaired: a copy of the values that repair gave the parameter; None if it was not repaired.
    """

    def __init__(self, values: torch.Tensor, parameter: torch.Tensor):
        self.values = values
        self.parameter = parameter
        self.repaired: torch.Tensor | None = None
        self._note_mask(None)
        self._seen: tuple[Any, Any, Any] | None = None
        self._trained = False
        self._settled = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy's count of writes is its own. A mask lies in memory with others, all of which it
        # would take along.
        mask = None if self.mask is None else self.mask.clone()
        return self.__dict__ | {"_seen": None, "_mask": mask}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._note_mask(self._mask)

    def belongs_to(self, parameter: torch.Tensor | None) -> bool:
        """Whether these are the values of a parameter, and not of one that stood there before."""
        return parameter is self.parameter and self.parameter.shape == self.values.shape

    def moved(
        self,
        values: torch.Tensor,
        parameter: torch.Tensor,
        repaired: torch.Tensor | None = None,
    ) -> "Original":
        """What is kept of a parameter that was moved or converted, or copied.

        Args:
            values: the original values, moved likewise.
            parameter: the parameter now.
            repaired: the repaired values, moved likewise; default those of this one.
        """
        moved = Original(values, parameter)
        moved.repaired = self.repaired if repaired is None else repaired
        moved._mask, moved._mask_version = self._mask, self._mask_version
        return moved

    @property
    def beside(self) -> torch.Tensor:
        """The values where the parameter is, and of its dtype, should it have gone alone."""
        return self.values.to(self.parameter.device, self.parameter.dtype)

    @property
    def mask(self) -> torch.Tensor | None:
        """The mask that the parameter was pruned by, if it is known and was not overwritten."""
        mask = self._mask
        return mask if mask is not None and _version(mask) == self._mask_version else None

    @property
    def trained(self) -> bool:
        """Whether the parameter holds anything but the original values times the mask."""
        return look([self])[0]

    @property
    def was_trained(self) -> bool:
        """What the last `look` said."""
        return self._trained

    @property
    def was_settled(self) -> bool:
        """Whether the last `look` found no trace of a write, neither in counts nor in values."""
        return self._settled

    def differs(self) -> torch.Tensor:
        """The same as one bool, by a look at all values, without waiting for a GPU."""
        expected = self.values if self.repaired is None else self.repaired
        return differs(self.parameter, expected, self.mask)

    def was_repaired(self) -> None:
        """Note that the parameter holds what repair gave it, which is no training."""
        self.repaired = self.parameter.detach().clone()
        self.seen()

    def written(self, mask: torch.Tensor | None) -> None:
        """Note that the parameter holds the original values times a mask now.

        Args:
            mask: True is kept; broadcasts to the part of the parameter that lies here. None if it
                is not known: then zeros anywhere look like pruning.
        """
        self._note_mask(mask)
        self.repaired = None
        self.seen()

    def _note_mask(self, mask: torch.Tensor | None) -> None:
        # Not copied, which would slow a redraw: where it is overwritten, torch counts that.
        self._mask = None if mask is None or mask.is_inference() else mask
        self._mask_version = 0 if self._mask is None else _version(self._mask)

    def seen(self, trained: bool = False) -> None:
        """Note what a look at all values has found."""
        grad = self.parameter.grad
        self._trained = trained
        self._seen = (
            _writes(self.parameter),
            None if grad is None else weakref.ref(grad),
            None if grad is None else _version(grad),
        )

    def doubt(self) -> str:
        """Why only a look at all values can tell: ``"written"``, ``"gradient"`` or nothing."""
        if self._seen is None or self._seen[0] != _writes(self.parameter):
            return "written"
        _, known, count = self._seen
        grad = self.parameter.grad
        same = grad is (None if known is None else known())
        return "" if same and (grad is None or _version(grad) == count) else "gradient"


def valid_of(originals: Sequence[Original]) -> Original | None:
    """The valid one of what the places of one Parameter keep, None if they keep nothing.

    They differ where a part of a model, which shares the Parameter, was pruned on its own later.
    """
    if all(original.values is originals[0].values for original in originals[1:]):
        return originals[0] if originals else None
    return next((original for original in originals if not original.trained), originals[0])


def look(
    originals: Sequence[Original],
    team: Team | None = None,
    *,
    closely: bool = False,
    wait: bool = True,
) -> list[bool]:
    """See which parameters were trained since they were pruned.

    Args:
        originals: what is kept of them.
        team: the ranks among which the parameters are divided; all ranks must call together. What
            was trained on one rank was trained.
        closely: whether to compare all values, whatever torch counted.
        wait: whether to wait for a GPU where there is no more than a new gradient.
    """
    asked = [o for o in originals if _in_doubt(o, wait) or closely]
    for original, trained in zip(asked, _compare(asked), strict=True):
        original.seen(trained)
    found = [original._trained for original in originals]
    if team is None or not team.sharded or not originals:
        return found
    together = [count > 0 for count in team.sum(np.array(found, np.int64)).tolist()]
    for original, trained in zip(originals, together, strict=True):
        original._trained = trained
    return together


def _in_doubt(original: Original, wait: bool) -> bool:
    doubt = original.doubt()
    original._settled = not doubt
    return doubt == "written" or (
        doubt == "gradient" and (wait or original.parameter.device.type == "cpu")
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
    """What is another after a write: torch's counts, the address, a few values."""
    here = parameter.detach()
    counts = _version(parameter)
    if here.is_cpu and type(here) is torch.Tensor:  # the usual case, with as little as it needs
        return counts, here.data_ptr(), _probe(here)
    if is_part(here):
        here = local_of(here)
        counts = (counts, _version(here))
    address = None if here.is_meta else here.data_ptr()
    return counts, address, _probe(here) if here.is_cpu else None


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _probe(values: torch.Tensor) -> bytes:
    array = (values if values.dtype in _OF_NUMPY else as_integers(values)).numpy()
    return array.flat[:: max(array.size // _PROBES, 1)].tobytes()
