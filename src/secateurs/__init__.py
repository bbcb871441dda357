"""Exact, fast, restorable weight pruning for PyTorch."""

from secateurs._version import __version__

__all__ = ["__version__"]
