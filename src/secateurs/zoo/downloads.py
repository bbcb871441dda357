"""Where models come from: a folder on the disk, or a download, whose failures are one error."""

import http.client
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from secateurs._io.text import one_line, printable, storable
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.cache import check_download_folder

# Their errors need not be OSErrors, and none of them may be installed.
_NETWORK_PACKAGES = ("httpx", "httpcore", "huggingface_hub", "requests", "urllib3")


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


def is_folder_name(name: str) -> bool:
    """Whether ``name`` is a folder that exists, or is written as a path (``./``, ``/``, ``~``)."""
    return name.startswith((".", "/", "~", "\\")) or Path(name).expanduser().is_dir()


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
