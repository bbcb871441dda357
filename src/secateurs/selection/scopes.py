"""Scopes: who competes with whom."""

import math
import re
from dataclasses import dataclass
from typing import Self

from secateurs._validation import check_choice, check_ratio
from secateurs.errors import Argument, InvalidArgumentError

SCOPES = ("global", "layer", "N:M")
"""The scopes; N and M stand for numbers, as in ``"2:4"``."""


@dataclass(frozen=True)
class NOfM:
    """The scope ``"N:M"``: of every M consecutive inputs of an output, N are kept.

    Attributes:
        kept: N, from 1.
        of: M, more than N.
    """

    kept: int
    of: int

    @property
    def pruned(self) -> int:
        """How many of M are candidates."""
        return self.of - self.kept

    @property
    def ratio(self) -> float:
        """The ratio of units that are candidates."""
        return self.pruned / self.of

    def takes(self, ratio: float) -> bool:
        """Whether a ratio is that of this scope, or 0, which prunes nothing."""
        return ratio == 0 or math.isclose(ratio, self.ratio, abs_tol=1e-4)

    @classmethod
    def read(cls, scope: object) -> Self | None:
        """The numbers of an N:M scope; None for the other scopes.

        Raises:
            InvalidArgumentError: it is no scope, or keeps none or all.
        """
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", scope) if isinstance(scope, str) else None
        if found is None:
            check_choice("scope", scope, SCOPES[:2] if scope == "N:M" else SCOPES)
            return None
        kept, of = map(int, found.groups())
        if not 0 < kept < of:
            raise InvalidArgumentError(
                Argument("scope", scope),
                f" keeps {kept} of every {of} inputs, so it must be at least 1 and less than {of}: "
                "for half of them write ",
                Argument("scope", "2:4"),
            )
        return cls(kept, of)


def ratio_in(scope: str, p_prune: float | None) -> float:
    """The ratio of units that are candidates in a scope.

    Args:
        scope: checked. N:M fixes the ratio.
        p_prune: a ratio. With N:M None, or that ratio, or 0, which prunes nothing.

    Raises:
        InvalidArgumentError: it is no ratio, or another than that of the scope.
    """
    fixed = NOfM.read(scope)
    if p_prune is None:
        if fixed is not None:
            return fixed.ratio
        raise InvalidArgumentError(
            Argument("p_prune"), " must be given: for a half write ", Argument("p_prune", 0.5)
        )
    ratio = check_ratio("p_prune", p_prune)
    if fixed is None:
        return ratio
    if not fixed.takes(ratio):
        raise InvalidArgumentError(
            Argument("scope", scope),
            f" prunes {fixed.ratio:.6g} of all units, not {ratio:g}: write ",
            Argument("p_prune", round(fixed.ratio, 6)),
            ", or another scope",
        )
    return fixed.ratio if ratio else 0.0
