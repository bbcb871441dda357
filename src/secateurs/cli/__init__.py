"""The command line: ``secateurs sweep``, ``transfer``, ``prune`` and ``report``."""

from secateurs.cli.entry_point import main

__all__ = ["main"]
