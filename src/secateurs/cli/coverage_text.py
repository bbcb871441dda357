"""Say which weights do not compete, in the words of the command line."""

from collections.abc import Sequence

from secateurs._io.text import printable
from secateurs.cli.wording import as_option
from secateurs.errors import Argument
from secateurs.parameters.coverage import Coverage, percent

_WORTH_A_LINE = 0.1


def coverage_line(found: Coverage, layers: Sequence[str] = (), include: Sequence[str] = ()) -> str:
    """Which weights stay, and what to write to prune them; "" if they are few.

    Args:
        found: the weights that compete, and the others.
        layers: the values of ``--layers``.
        include: the values of ``--include``.
    """
    left = found.total - found.competing - found.known
    if not left or left < _WORTH_A_LINE * found.total:
        return ""
    kinds, names = found.remedies(by_layer=bool(layers))
    stays = f"{percent(1 - found.share)} of the weights stay: {found.largest()}"
    line = "; ".join((stays, *found.barred()))
    remedies = [
        as_option(Argument(name, [*before, *more]))
        for name, before, more in (
            ("layers", layers, kinds),
            ("include", include or ("*",), names),
        )
        if more
    ]
    return printable(line + (f"; to prune them write {' '.join(remedies)}" if remedies else ""))
