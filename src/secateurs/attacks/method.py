"""A method of attack, written as the names of its components: ``mi-ti-di-logit``."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateurs._io.text import quoted
from secateurs._validation import as_real, check_choice, check_count, nearest
from secateurs.attacks.losses import LOSSES
from secateurs.attacks.transforms import DIVERSITY
from secateurs.errors import InvalidArgumentError

_COMPONENT = re.compile(r"([a-z]+)(\d*\.?\d*)")
# The field that a component sets, and its value without a number.
_COUNTED: dict[str, tuple[str, float]] = {
    "mi": ("momentum", 1.0),
    "ti": ("ti", 5),
    "si": ("si", 5),
    "admix": ("admix", 3),
}
_NAMES = ("mi", "ni", "ti", "di", "rdi", "si", "admix", *LOSSES)


@dataclass(frozen=True, kw_only=True)
class Method:
    """The components of an iterative attack; ``str`` is a name that `parse_method` reads.

    Attributes:
        loss: the loss that is maximised, a name in `LOSSES`.
        momentum: mu of MI, g <- mu g + grad / mean |grad| for each image; 0 for none.
        nesterov: NI, the gradient is taken at x + alpha mu g.
        ti: side of the kernel that smooths the gradient, odd; 0 for none.
        di: input diversity, ``di`` or ``rdi``; None for none.
        si: number of scaled copies x / 2^i that the gradient is the mean over; 1 for none.
        admix: number of other images that are mixed in, one at a time, each at all scales of
            ``si``; 0 for none. Admix as it was published is ``Method(admix=3, si=5)``.

    Raises:
        InvalidArgumentError: a value is of the wrong kind or out of range.

    Example:
        >>> print(Method(momentum=1.0, ti=5, di="di", loss="logit"))
        mi-ti-di-logit
    """

    loss: str = "logit"
    momentum: float = 0.0
    nesterov: bool = False
    ti: int = 0
    di: str | None = None
    si: int = 1
    admix: int = 0

    def __post_init__(self) -> None:
        check_choice("loss", self.loss, tuple(LOSSES))
        if self.di is not None:
            check_choice("di", self.di, tuple(DIVERSITY))
        mu = as_real(self.momentum)
        if mu is None or not 0 <= mu <= 10:
            raise InvalidArgumentError(
                f"momentum must be a number such as 1.0, or 0 for none; got {quoted(self.momentum)}"
            )
        object.__setattr__(self, "momentum", mu)
        if self.nesterov and not mu:
            raise InvalidArgumentError(
                "nesterov looks ahead along the momentum, which is 0: write momentum=1.0"
            )
        for name, least in (("ti", 0), ("si", 1), ("admix", 0)):
            object.__setattr__(self, name, check_count(name, getattr(self, name), least))
        if self.ti and (self.ti % 2 == 0 or self.ti < 3):
            raise InvalidArgumentError(
                f"ti is the side of a kernel: an odd number such as 5, or 0 for none; got {self.ti}"
            )

    @property
    def is_random(self) -> bool:
        """Whether two gradients at one point may differ: by input diversity, or by Admix."""
        return self.di is not None or self.admix > 0

    def __str__(self) -> str:
        parts = ["ni"] if self.nesterov else []
        if self.momentum and (self.momentum != 1 or not self.nesterov):
            parts.insert(0, _counted("mi", self.momentum))
        parts += [_counted("ti", self.ti)] if self.ti else []
        parts += [self.di] if self.di else []
        parts += [_counted("si", self.si)] if self.si > 1 else []
        parts += [_counted("admix", self.admix)] if self.admix else []
        return "-".join([*parts, self.loss])


def parse_method(name: str) -> Method:
    """Read a method from the names of its components, in any order, joined by ``-``.

    Args:
        name: exactly one loss, ``ce``, ``logit`` or ``margin``, and any of

            - ``mi`` (momentum 1) or ``ni`` (momentum 1, looking ahead); ``mi0.9`` and ``mi0.9-ni``
              for another momentum;
            - ``ti`` (a kernel of side 5), ``ti15`` for side 15;
            - ``di`` or ``rdi``;
            - ``si`` (5 scales), ``si3`` for 3;
            - ``admix`` (3 other images), ``admix2`` for 2; published as ``admix-si``.

    Returns:
        The method; its ``str`` has the components in the order of this list, the loss last.

    Raises:
        InvalidArgumentError: an unknown component, one given twice, no loss or two.

    Example:
        >>> parse_method("mi-ti-di-logit")
        Method(loss='logit', momentum=1.0, nesterov=False, ti=5, di='di', si=1, admix=0)
    """
    if not isinstance(name, str):
        raise InvalidArgumentError(
            "a method is written as names joined by '-', such as mi-ti-di-logit; "
            f"got {quoted(name)}"
        )
    values: dict[str, Any] = {}
    for part in name.lower().split("-"):
        key, value = _component(part, name)
        if key in values:
            raise InvalidArgumentError(
                f"method {quoted(name)} sets {key} twice, the second as {quoted(part)}"
            )
        values[key] = value
    if "loss" not in values:
        raise InvalidArgumentError(
            f"method {name!r} names no loss: add one of {', '.join(LOSSES)}, such as {name}-logit"
        )
    if values.get("nesterov"):
        values.setdefault("momentum", 1.0)
    return Method(**values)


def _component(part: str, method: str) -> tuple[str, Any]:
    """The field of `Method` that one name sets, and its value."""
    if part in LOSSES:
        return "loss", part
    if part in DIVERSITY:
        return "di", part
    if part == "ni":
        return "nesterov", True
    match = _COMPONENT.fullmatch(part)
    if match and match[1] in _COUNTED:
        key, usual = _COUNTED[match[1]]
        try:
            number = match[2] or repr(usual)
            return key, float(number) if "." in number else int(number)
        except ValueError:
            pass  # a dot alone
    raise InvalidArgumentError(
        f"unknown component {quoted(part)} in method {quoted(method)}{nearest(part, _NAMES)}; "
        f"there are {', '.join(_NAMES)}"
    )


def _counted(name: str, value: float) -> str:
    if value == _COUNTED[name][1]:
        return name
    # Without an exponent, whose minus sign would be read as the end of the component.
    return name + (
        str(value) if isinstance(value, int) else np.format_float_positional(value, trim="0")
    )
