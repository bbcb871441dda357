"""Running the command line inside the test process."""

from pathlib import Path

import pytest
from command_line import Outcome, Run, write_pictures

from secateurs.cli import main


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: Path,
) -> Run:
    """Runs ``secateurs`` with some words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECATEURS_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Outcome(caught.value.code, said.out, said.err)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty digits as files in one folder a class."""
    return write_pictures(tmp_path / "pictures")
