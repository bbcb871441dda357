"""`Original`: the values that a parameter had before it was pruned, and whether they still count.

A pruned weight holds original values and zeros. If it holds anything else, it has been trained
since, or loaded, or merged, or set afresh. To see that takes a look at every value; a look is saved
where torch's own count of writes says that nobody wrote since we did.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from secateurs.layout import as_integers, logical_pieces
from secateurs.sharding.presence import local_of
from secateurs.sharding.team import Team

# Values that are compared where no write was counted: those of optimizers with ``fused=True`` and
# those through ``.data`` are not, and they change nearly every value.
_PROBES = 16


class Original:
    """The values that one Parameter had before it was pruned.

    Args:
        values: a detached copy.
        parameter: the Parameter they are of; another one in its place has nothing to do with them.
    """

    def __init__(self, values: torch.Tensor, parameter: nn.Parameter):
        self.values = values
        self.parameter = parameter
        self._seen: _Mark | None = None
        self._trained = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy's count of writes is its own.
        return self.__dict__ | {"_seen": None}

    def belongs_to(self, parameter: torch.Tensor | None) -> bool:
        """Whether these are the values of a parameter, and not of one that stood there before."""
        return parameter is self.parameter and self.parameter.shape == self.values.shape

    @property
    def beside(self) -> torch.Tensor:
        """The values where the parameter is, and of its dtype, should it have gone alone."""
        return self.values.to(self.parameter.device, self.parameter.dtype)

    @property
    def trained(self) -> bool:
        """Whether the parameter holds anything but original values and zeros."""
        return look([self])[0]

    @property
    def was_trained(self) -> bool:
        """What the last `look` said."""
        return self._trained

    def written(self, trained: bool = False) -> None:
        """Note that the parameter holds what pruning has just written or seen."""
        self._trained, self._seen = trained, _mark(self.parameter)

    def doubt(self) -> str:
        """Why only a look at all values can tell: ``"written"``, ``"gradient"`` or nothing."""
        now = _mark(self.parameter)
        if self._seen is None or self._seen[:-1] != now[:-1]:
            return "written"
        return "gradient" if self._seen != now else ""


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
    asked = [o for o in originals if closely or _in_doubt(o, wait)]
    for original, trained in zip(asked, _compare(asked), strict=True):
        original.written(trained)
    found = [original._trained for original in originals]
    if team is None or not team.sharded or not originals:
        return found
    together = [count > 0 for count in team.sum(np.array(found, np.int64)).tolist()]
    for original, trained in zip(originals, together, strict=True):
        original._trained = trained
    return together


def differs(parameter: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Whether a parameter holds anything but these values and zeros, without waiting for it."""
    here, there = local_of(parameter.detach()), local_of(values.detach())
    if here.is_meta:  # it has no values
        return torch.zeros((), dtype=torch.bool)
    found = torch.zeros((), dtype=torch.bool, device=here.device)
    there = there.to(here.device, here.dtype)
    for now, then in logical_pieces(as_integers(here), as_integers(there)):
        # Twice the bits of a zero is zero, whatever its sign.
        found = found | ((now != then) & (now + now != 0)).any()
        if found.device.type == "cpu" and found:
            break
    return found


_Mark = tuple[Any, ...]


def _in_doubt(original: Original, wait: bool) -> bool:
    doubt = original.doubt()
    return doubt == "written" or (
        doubt == "gradient" and (wait or original.parameter.device.type == "cpu")
    )


@torch.no_grad()
def _compare(originals: Sequence[Original]) -> list[bool]:
    found = [differs(original.parameter, original.values) for original in originals]
    if len({flag.device for flag in found}) == 1:
        return torch.stack(found).tolist()  # a GPU is waited for once
    return list(map(bool, found))


def _mark(parameter: nn.Parameter) -> _Mark:
    """What is another after a write: torch's counts, the address, a few values; the gradient."""
    here = local_of(parameter.detach())
    grad = parameter.grad
    return (
        _version(parameter),
        _version(here),
        None if here.is_meta else here.data_ptr(),
        _probe(here) if here.device.type == "cpu" else None,
        None if grad is None else (id(grad), _version(grad)),
    )


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _probe(values: torch.Tensor) -> bytes:
    array = as_integers(values).numpy()
    return array.flat[:: max(array.size // _PROBES, 1)].tobytes()
