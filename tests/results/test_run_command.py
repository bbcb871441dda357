"""The command of a run, kept in its folder."""

from pathlib import Path

import pytest

from secateurs.errors import InvalidArgumentError
from secateurs.results import kind_of_rows, read_any_rows
from secateurs.results.run_command import COMMAND, RunCommand, read_command, write_command

SWEEP = RunCommand("sweep", ["--data", "a \udce9folder", "--p-prune", "0", "0.5"])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_command(tmp_path) is None
    (tmp_path / "command.txt").write_text("secateurs sweep --amp\n")
    write_command(tmp_path, SWEEP)
    assert read_command(tmp_path) == SWEEP


def test_folders_of_earlier_versions(tmp_path: Path) -> None:
    (tmp_path / "command.txt").write_bytes(
        b"secateurs sweep --data 'a \xe9folder' --p-prune 0 0.5\n"
    )
    assert read_command(tmp_path) == SWEEP
    assert str(RunCommand("sweep", ["-d", "a b"])) == "secateurs sweep -d 'a b'"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"command": "sweep", "options": [1]}'])
def test_a_broken_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / COMMAND).write_text(text)
    with pytest.raises(InvalidArgumentError, match="holds no options of a run"):
        read_command(tmp_path)


def test_the_folder_of_a_run_without_rows(tmp_path: Path) -> None:
    write_command(tmp_path, RunCommand("budget", []))
    assert read_any_rows(tmp_path) == [] and kind_of_rows(tmp_path) is None
