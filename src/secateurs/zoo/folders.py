"""When the name after ``hf:`` or ``timm:`` means a folder."""

from pathlib import Path


def is_folder_name(name: str) -> bool:
    """Whether ``name`` is a folder that exists, or is written as a path (``./``, ``/``, ``~``)."""
    return name.startswith((".", "/", "~", "\\")) or Path(name).expanduser().is_dir()
