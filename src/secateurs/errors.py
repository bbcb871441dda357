"""The two errors this package raises on purpose, and its warning.

The command line turns them into one line on stderr; nothing else is caught quietly.
"""


class SecateursError(Exception):
    """Base class: something went wrong that a person can mend."""


class InvalidArgumentError(SecateursError, ValueError):
    """What was asked for cannot be right as it was written (exit code 2)."""


class FailureError(SecateursError, RuntimeError):
    """What was asked for makes sense, but could not be carried out (exit code 1)."""


class LostTrainingWarning(UserWarning):
    """Values that were learned, or loaded, are gone, since the caller went back to older ones."""
