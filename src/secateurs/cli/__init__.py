"""The command line: ``secateurs sweep`` and ``secateurs report``."""

from secateurs.cli.main import main

__all__ = ["main"]
