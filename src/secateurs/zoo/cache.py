"""The folder in which downloads and trained models are kept."""

import os
from pathlib import Path

from secateurs.errors import FailureError, require

_OF_OTHERS = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")


def cache_folder() -> Path:
    """The user's cache folder for this package; the variable SECATEURS_CACHE overrides it.

    Raises:
        FailureError: The user has no home folder, as in a container whose user has no name.
    """
    override = os.environ.get("SECATEURS_CACHE")
    if override:
        try:
            return Path(override).expanduser()
        except RuntimeError:
            raise _no_home("keep files in", "SECATEURS_CACHE") from None
    require("platformdirs", "the folder of cached networks")
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("secateurs"))
    except RuntimeError:  # newer versions; older ones give a folder called "~"
        folder = Path("~")
    if not folder.is_absolute():
        raise _no_home("keep files in", "SECATEURS_CACHE")
    return folder


def check_download_folder() -> None:
    """Refuse a download that torch and other packages would put into a folder called ``~``."""
    if Path(os.path.expanduser("~")).is_absolute():  # noqa: PTH111  # that of pathlib raises
        return
    if not any(os.environ.get(name) for name in _OF_OTHERS):
        raise _no_home("keep downloads in", "XDG_CACHE_HOME")


def _no_home(what: str, variable: str) -> FailureError:
    return FailureError(
        f"this user has no home folder to {what}: set {variable} to a folder that can be written"
    )
