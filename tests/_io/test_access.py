"""New files are open to nobody who could not read what they are made from or replace."""

import os
import stat
from collections.abc import Generator
from pathlib import Path

import pytest

from secateurs._io import file_access
from secateurs._io.durable import replace_files
from secateurs._io.file_access import create, keep_access, make_folder
from secateurs.errors import FailureError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Generator[int]:
    """The modes that new files do not get."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def made(path: Path, bits: int) -> os.stat_result:
    path.write_bytes(b"old")
    path.chmod(bits)
    return path.stat()


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o664, 0o755, 0o444])
def test_a_new_file_is_like_a_copy(tmp_path: Path, umask: int, bits: int) -> None:
    like = made(tmp_path / "in", bits)
    with create(tmp_path / "new", like, None) as file:
        assert mode(tmp_path / "new") == bits & ~umask, "from the first byte"
        file.write(b"new")
        file.seek(0)
        assert file.read() == b"new"


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o664, 0o755, 0o444])
def test_what_replaces_a_file_has_its_mode(tmp_path: Path, umask: int, bits: int) -> None:
    like, old = made(tmp_path / "in", 0o644), made(tmp_path / "old", bits)
    with create(tmp_path / "new", like, old) as file:
        assert mode(tmp_path / "new") == 0o600 & ~umask, "as long as it is written"
        keep_access(file, old)
    assert mode(tmp_path / "new") == bits


def test_a_name_that_is_taken_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "new").symlink_to("victim")
    with pytest.raises(FileExistsError):
        create(tmp_path / "new", None, None)
    assert (tmp_path / "victim").read_text() == "theirs"


@pytest.mark.parametrize(
    ("bits", "expected"), [(0o640, 0o600), (0o660, 0o600), (0o664, 0o644), (0o755, 0o755)]
)
def test_another_group_may_do_what_everybody_may(
    tmp_path: Path, bits: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "in", bits)
    found = list((tmp_path / "in").stat())
    found[stat.ST_GID] += 1
    theirs = os.stat_result(found)
    before = os.umask(0o002)
    with create(tmp_path / "new", theirs, None):
        assert mode(tmp_path / "new") == expected
    os.umask(before)
    # As the system refuses everybody but its administrator.
    monkeypatch.setattr(file_access.os, "fchown", refuse)
    with create(tmp_path / "newer", None, theirs) as file:
        keep_access(file, theirs)
    assert mode(tmp_path / "newer") == expected


def refuse(*_: object) -> None:
    raise PermissionError


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_root_replaces_stays_its_owners(tmp_path: Path) -> None:
    made(tmp_path / "results.csv", 0o600)
    os.chown(tmp_path / "results.csv", 12345, 23456)
    replace_files({tmp_path / "results.csv": b"new"})
    found = (tmp_path / "results.csv").stat()
    assert (found.st_uid, found.st_gid, mode(tmp_path / "results.csv")) == (12345, 23456, 0o600)


@pytest.mark.parametrize("bits", [0o700, 0o750, 0o755, 0o555])
def test_a_new_folder_is_no_more_open(tmp_path: Path, umask: int, bits: int) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in").chmod(bits)
    make_folder(tmp_path / "to" / "new", tmp_path / "in")
    assert mode(tmp_path / "to" / "new") == (bits | 0o700) & ~umask
    (tmp_path / "to" / "new" / "file").touch()


def test_results_keep_their_modes(tmp_path: Path) -> None:
    before = os.umask(0o022)
    private, fresh = tmp_path / "results.csv", tmp_path / "new.csv"
    made(private, 0o600)
    leftover = tmp_path / f".new.csv.{os.getpid()}.tmp"
    leftover.write_bytes(b"of a process that had the same number")
    replace_files({private: b"new", fresh: b"new"})
    os.umask(before)
    assert (mode(private), mode(fresh)) == (0o600, 0o644)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"new"}


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    other, protected = tmp_path / "a.csv", tmp_path / "b.csv"
    made(protected, 0o444)
    with pytest.raises(FailureError, match=r"b\.csv is read-only, and would be replaced: choose"):
        replace_files({other: b"new", protected: b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]
    assert protected.read_bytes() == b"old"
