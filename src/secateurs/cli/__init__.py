"""The command line: ``secateurs sweep``, ``secateurs prune`` and ``secateurs report``."""

from secateurs.cli.main import main

__all__ = ["main"]
