"""The command line: ``secateurs sweep``, ``transfer``, ``prune`` and ``report``."""

from secateurs.cli.main import main

__all__ = ["main"]
