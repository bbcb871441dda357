"""The command of a run, kept in its folder."""

from pathlib import Path

import pytest

from secateurs.errors import InvalidArgumentError
from secateurs.results import Results, kind_of_rows, read_any_rows
from secateurs.results.run_command import COMMAND, RunCommand, read_command, running

SWEEP = RunCommand("sweep", ["--data", "a \udce9folder", "--p-prune", "0", "0.5"])


def open_folder(
    folder: Path, command: RunCommand | None, *, seed: int = 0, **options: bool
) -> None:
    """Begin a run, from the command line or, without a command, from Python."""
    with Results(folder) as results:
        if command is None:
            results.open({"seed": seed}, **options)
        else:
            with running(command):
                results.open({"seed": seed}, **options)
        results.save_progress({})


def test_a_run_begins_with_its_command(tmp_path: Path) -> None:
    assert read_command(tmp_path) is None
    open_folder(tmp_path, SWEEP)
    assert read_command(tmp_path) == SWEEP
    assert read_any_rows(tmp_path) == [] and kind_of_rows(tmp_path) is None

    with pytest.raises(InvalidArgumentError, match="another configuration"):
        open_folder(tmp_path, RunCommand("sweep", ["--seed", "1"]), seed=1)
    assert read_command(tmp_path) == SWEEP
    open_folder(tmp_path, RunCommand("sweep", ["--workers", "2"]))
    assert read_command(tmp_path) == RunCommand("sweep", ["--workers", "2"])
    open_folder(tmp_path, None)
    assert read_command(tmp_path) == RunCommand("sweep", ["--workers", "2"])
    open_folder(tmp_path, None, overwrite=True)
    assert read_command(tmp_path) is None  # another run, and no command's


def test_an_unchanged_command_is_not_written_again(tmp_path: Path) -> None:
    open_folder(tmp_path, SWEEP)
    before = (tmp_path / COMMAND).stat()
    open_folder(tmp_path, SWEEP)
    assert (tmp_path / COMMAND).stat() == before


def test_a_command_is_written_as_a_shell_reads_it() -> None:
    assert str(RunCommand("sweep", ["-d", "a b"])) == "secateurs sweep -d 'a b'"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"command": "sweep", "options": [1]}'])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / COMMAND).write_text(text)
    with pytest.raises(InvalidArgumentError, match="holds no options of a run"):
        read_command(tmp_path)
