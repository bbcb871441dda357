"""Folders after ``hf:`` or ``timm:`` in a model's name."""

from pathlib import Path

from secateurs._io.text import printable, storable
from secateurs.errors import InvalidArgumentError


def is_folder_name(name: str) -> bool:
    """Whether ``name`` is a folder that exists, or is written as a path (``./``, ``/``, ``~``)."""
    return name.startswith((".", "/", "~", "\\")) or Path(name).expanduser().is_dir()


def check_path(folder: Path, package: str) -> None:
    """Refuse a path that ``package`` cannot open, since it passes it to libraries as UTF-8.

    Raises:
        InvalidArgumentError: the path is not UTF-8.
    """
    if storable(str(folder)) != str(folder):
        raise InvalidArgumentError(
            f"{package} cannot read {printable(str(folder))}, whose name is not UTF-8: rename the "
            "folder, or link to it from another name"
        )
