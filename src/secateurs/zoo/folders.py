"""When the name after ``hf:`` or ``timm:`` means a folder, and what stands in its configuration."""

from pathlib import Path
from typing import Any

from secateurs._files import read_regular
from secateurs._json import BrokenJSONError, parse_object
from secateurs._text import printable, storable
from secateurs.errors import FailureError, InvalidArgumentError


def is_folder_name(name: str) -> bool:
    """Whether ``name`` is a folder that exists, or is written as a path (``./``, ``/``, ``~``)."""
    return name.startswith((".", "/", "~", "\\")) or Path(name).expanduser().is_dir()


def check_path(folder: Path, package: str) -> None:
    """Refuse a path that ``package`` cannot open, since it hands it to libraries as UTF-8.

    Raises:
        InvalidArgumentError: the path is not UTF-8.
    """
    if storable(str(folder)) != str(folder):
        raise InvalidArgumentError(
            f"{package} cannot read {printable(str(folder))}, whose name is not UTF-8: rename the "
            "folder, or link to it from another name"
        )


def read_config(path: Path) -> dict[str, Any]:
    """A JSON file of a folder.

    Raises:
        FailureError: it cannot be read, or is no JSON object.
    """
    try:
        return parse_object(read_regular(path))
    except (OSError, BrokenJSONError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FailureError(
            f"cannot read {printable(str(path))} ({reason}); get it again"
        ) from error
