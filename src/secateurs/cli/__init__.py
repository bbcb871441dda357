"""The command line, ``secateurs``."""

from secateurs.cli.early_interrupt import end_at_interrupt

__all__ = ["main"]

TYPE_CHECKING = False  # importing typing for it would take longer than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(arguments: "Sequence[str] | None" = None) -> "NoReturn":
    """Run the command line and exit; see `secateurs.cli.entry_point.main`."""
    if arguments is None:
        end_at_interrupt()
    from secateurs.cli import entry_point

    entry_point.main(arguments)
