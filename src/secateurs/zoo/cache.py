"""Where downloads and the digits model are kept."""

import os
from pathlib import Path

import platformdirs

from secateurs.errors import FailureError

_OF_OTHERS = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")


def cache_folder() -> Path:
    """The user's cache folder for this package; the variable SECATEURS_CACHE overrides it.

    Raises:
        FailureError: The user has no home folder, as in a container that runs under a number
            without a name.
    """
    override = os.environ.get("SECATEURS_CACHE")
    try:
        if override:
            return Path(override).expanduser()
        folder = Path(platformdirs.user_cache_dir("secateurs"))
    except RuntimeError:
        folder = None
    if folder is None or not folder.is_absolute():
        raise FailureError(
            "this user has no home folder to keep files in: set SECATEURS_CACHE to a folder that"
            " can be written"
        )
    return folder


def check_download_folder() -> None:
    """Refuse a download that torch and its like would put into a folder called ``~``.

    Raises:
        FailureError: The user has no home folder, and no variable names another place.
    """
    if Path(os.path.expanduser("~")).is_absolute():  # noqa: PTH111  # pathlib's own raises
        return
    if not any(os.environ.get(name) for name in _OF_OTHERS):
        raise FailureError(
            "this user has no home folder to keep downloads in: set XDG_CACHE_HOME to a folder that"
            " can be written"
        )
