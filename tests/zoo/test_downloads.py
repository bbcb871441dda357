import os
import sys
from pathlib import Path

import pytest

from secateurs.errors import FailureError
from secateurs.zoo import load_model, load_unlabelled
from secateurs.zoo.downloads import cache_folder, check_download_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs users by number")


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that no user has."""
    import pwd

    def nobody(number: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in [name for name in os.environ if name.startswith(("XDG_", "HF_", "TORCH_HOME"))]:
        monkeypatch.delenv(name)
    for name in ("HOME", "SECATEURS_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_home_it_says_what_to_set() -> None:
    with pytest.raises(FailureError, match=r"no home folder .* set SECATEURS_CACHE to a folder"):
        cache_folder()
    with pytest.raises(FailureError, match=r"no home folder .* set XDG_CACHE_HOME to a folder"):
        check_download_folder()


@pytest.mark.parametrize("name", ["HOME", "XDG_CACHE_HOME", "SECATEURS_CACHE"])
def test_what_is_set_counts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)
    if name != "SECATEURS_CACHE":
        check_download_folder()


def test_digits_need_no_folder() -> None:
    model = load_model("digits", weights="random")
    assert len(load_unlabelled("digits", model=model, limit=3).dataset) == 3


def test_somebody_elses_home_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEURS_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(FailureError, match="set SECATEURS_CACHE"):
        cache_folder()
