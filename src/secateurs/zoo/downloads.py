"""Where models come from, and where downloads and trained networks are kept."""

import http.client
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from secateurs._io.text import one_line, printable, storable
from secateurs.errors import FailureError, InvalidArgumentError, require

# Their errors need not be OSErrors, and none of them may be installed.
_NETWORK_PACKAGES = ("httpx", "httpcore", "huggingface_hub", "requests", "urllib3")

# Folders of other packages, any of which may be set where there is no home folder.
_FOLDERS_OF_OTHERS = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE")


@contextmanager
def downloading(what: str, *remedy: object, on_disk: bool = False) -> Generator[None]:
    """Turn a failed download in the body into a `FailureError` of one line.

    What the body prints goes to stderr, since stdout is for results.

    Args:
        what: the name of the download, such as "weights IMAGENET1K_V1 of resnet18".
        *remedy: what to do without a network, in parts of a `Message`.
        on_disk: whether it is a folder on the disk, so that nothing is downloaded.

    Raises:
        FailureError: the body raised an error of the network, or found a damaged download; or
            there is no folder for downloads.
    """
    if not on_disk:
        check_download_folder()
    try:
        with redirect_stdout(sys.stderr):
            yield
    except Exception as error:
        if not _from_network(error):
            raise
        raise FailureError(f"cannot get {what} ({one_line(error)}); ", *remedy) from error


def check_download_folder() -> None:
    """Refuse a download that torch and other packages would put into a folder called ``~``."""
    if Path(os.path.expanduser("~")).is_absolute():  # noqa: PTH111  # that of pathlib raises
        return
    if not any(os.environ.get(name) for name in _FOLDERS_OF_OTHERS):
        raise _no_home("keep downloads in", "XDG_CACHE_HOME")


def cache_folder() -> Path:
    """The user's cache folder for this package; the variable SECATEURS_CACHE overrides it.

    Raises:
        FailureError: the user has no home folder, as in a container whose user has no name.
    """
    override = os.environ.get("SECATEURS_CACHE")
    if not override:
        require("platformdirs", "the folder of cached networks")
    with suppress(RuntimeError):  # there is no home folder
        if override:
            return Path(override).expanduser()
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("secateurs"))
        if folder.is_absolute():  # older versions of platformdirs give one called "~" instead
            return folder
    raise _no_home("keep files in", "SECATEURS_CACHE")


def folder_named(name: str) -> Path | None:
    """The folder of a name that is written as a path (``./``, ``/``, ``~``), or that exists."""
    folder = Path(name).expanduser()
    return folder if name.startswith((".", "/", "~", "\\")) or folder.is_dir() else None


def check_folder_path(folder: Path, package: str) -> None:
    """Refuse a path that ``package`` cannot open, since it passes it to libraries as UTF-8."""
    if storable(str(folder)) != str(folder):
        raise InvalidArgumentError(
            f"{package} cannot read {printable(str(folder))}, whose name is not UTF-8: rename the "
            "folder, or link to it from another name"
        )


def _from_network(error: Exception) -> bool:
    if isinstance(error, OSError | http.client.HTTPException | EOFError):
        return True
    if isinstance(error, RuntimeError):  # torch.hub: a wrong hash; torchvision: no mirror answers
        text = str(error).lower()
        return "hash" in text or "download" in text or "not found" in text or "zip" in text
    return type(error).__module__.partition(".")[0] in _NETWORK_PACKAGES


def _no_home(what: str, variable: str) -> FailureError:
    return FailureError(
        f"this user has no home folder to {what}: set {variable} to a folder that can be written"
    )
