import ast
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from result_rows import make_row
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.results import Results, folder, read_rows

CONFIG = {"model": "torchvision:resnet18", "p_prune": (0.0, 0.5), "data": {"name": "d", "n": 300}}


def test_rows_come_back_in_order_and_a_repeated_one_takes_its_place(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add_all([make_row(0.1, 80.0), make_row(0.2, 70.0)])
        results.add(make_row(0.3, 60.0))
        results.add(make_row(0.2, 71.0))
        assert [(row.p_prune, row.top1) for row in results.rows()] == [
            (0.1, 80.0),
            (0.2, 71.0),
            (0.3, 60.0),
        ]
    assert read_rows(tmp_path / "results.csv") == read_rows(tmp_path)


def test_the_same_configuration_continues(tmp_path: Path) -> None:
    with Results(tmp_path / "new" / "folder") as results:
        assert results.open(CONFIG) is False
        results.add(make_row())
    with Results(tmp_path / "new" / "folder") as results:
        assert results.open(CONFIG) is True
        assert results.rows() == [make_row()]


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.open(CONFIG)
        results.add(make_row())
    changed = {
        "model": "torchvision:resnet18",
        "p_prune": [0.1],
        "data": {"name": "d"},
        "amp": True,
    }
    with Results(tmp_path) as results:
        with pytest.raises(InvalidArgumentError) as caught:
            results.open(changed)
        assert results.rows() == [make_row()]
    message = str(caught.value)
    assert "amp: there not set, now true" in message
    assert "data.n: there 300, now not set" in message
    assert "p_prune: there [0.0, 0.5], now [0.1]" in message
    assert "model:" not in message and "data.name" not in message
    assert "another output, or overwrite=True" in message and "\n" not in message


def test_lists_that_may_grow_do_and_nothing_else_does(tmp_path: Path) -> None:
    more = CONFIG | {"p_prune": [0.5, 0.7, 0.0]}
    with Results(tmp_path) as results:
        results.open(CONFIG)
        results.add(make_row())
        with pytest.raises(InvalidArgumentError, match="p_prune: there"):
            results.open(more)
        assert results.open(more, growing=["p_prune"]) is True
        assert results.rows() == [make_row()]
        # What it has grown to is what it is from now on.
        assert results.open(more) is True
        with pytest.raises(InvalidArgumentError, match="p_prune: there"):
            results.open(CONFIG, growing=["p_prune"])
        for other in ({"model": "x"}, {"p_prune": 0.5}, {"p_prune": [0.5, 0.7]}):
            with pytest.raises(InvalidArgumentError, match=f"{next(iter(other))}: there"):
                results.open(more | other, growing=["p_prune"])


def test_a_new_run_begins_before_its_configuration_is_there(tmp_path: Path) -> None:
    seen: list[bool] = []

    def begin() -> None:
        seen.append((tmp_path / "config.json").exists())

    with Results(tmp_path) as results:
        opened = [results.open(CONFIG, begin=begin, overwrite=again) for again in (False, True)]
        assert opened == [False, False] and results.open(CONFIG, begin=begin) is True
    assert seen == [False, False]


def test_opening_finished_results_writes_nothing(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.open(CONFIG)
        results.add(make_row())
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    with Results(tmp_path) as results:
        assert results.open(CONFIG) is True
        results.add(make_row())
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_a_folder_without_rows_or_progress_is_free_for_another_configuration(
    tmp_path: Path,
) -> None:
    with Results(tmp_path) as results:
        results.open(CONFIG)
    assert read_rows(tmp_path) == []
    with Results(tmp_path) as results:
        assert results.open({"other": 1}) is False
        results.save_progress({"seen": 1})
        with pytest.raises(InvalidArgumentError, match="another configuration"):
            results.open(CONFIG)


def test_overwrite_starts_afresh(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.open(CONFIG)
        results.add(make_row())
        results.save_progress({"seen": 10})
        (tmp_path / "mine.txt").write_text("stays")
        assert results.open({"other": 1}, overwrite=True) is False
        assert results.rows() == []
        assert results.load_progress() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "mine.txt"]


def test_results_without_a_configuration_are_not_taken_over(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add(make_row())
        with pytest.raises(InvalidArgumentError, match=r"without config\.json"):
            results.open(CONFIG)


@pytest.mark.parametrize("text", ["", "[1]", '{"model": '])
def test_a_broken_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with Results(tmp_path) as results:
        with pytest.raises(InvalidArgumentError, match=r"config\.json is not a configuration"):
            results.open(CONFIG)
        results.open(CONFIG, overwrite=True)


def test_progress_is_kept_replaced_and_cleared(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        assert results.load_progress() is None
        results.save_progress({"seen": 10, "tally": [1, 2]})
        results.save_progress({"seen": 20})
        assert results.load_progress() == {"seen": 20}
        (tmp_path / "progress.json").write_text('{"seen": ')
        assert results.load_progress() is None
        results.clear_progress()
        results.clear_progress()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_torn_last_line_is_left_out_and_mended(tmp_path: Path, cut: int) -> None:
    first, second = make_row(0.1), make_row(0.2, model="scissors ✂✂✂")
    with Results(tmp_path) as results:
        results.open(CONFIG)
        results.add_all([first, second])
    file = tmp_path / "results.jsonl"
    file.write_bytes(file.read_bytes().rstrip()[:-cut])
    assert read_rows(tmp_path) == [first]
    with Results(tmp_path) as results:
        results.open(CONFIG)
        assert read_rows(tmp_path / "results.csv") == [first]
        results.add(second)
        assert results.rows() == [first, second]


def test_a_line_torn_inside_a_character_is_left_out(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add_all([make_row(0.1), make_row(0.2, model="✂")])
    file = tmp_path / "results.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[: content.index("✂".encode()) + 1])
    assert read_rows(tmp_path) == [make_row(0.1)]


def test_a_torn_csv_row_is_left_out(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add_all([make_row(0.1), make_row(0.2)])
    file = tmp_path / "results.csv"
    file.write_bytes(file.read_bytes()[:-200])
    assert read_rows(file) == [make_row(0.1)]


def test_a_broken_line_before_the_last_is_not_skipped(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add_all([make_row(0.1), make_row(0.2)])
    file = tmp_path / "results.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0][:50] + "\n" + lines[1])
    with pytest.raises(FailureError, match=r"row 1 of .*results\.jsonl is broken"):
        read_rows(tmp_path)


def test_a_broken_last_line_with_a_newline_is_not_a_torn_one(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add_all([make_row(0.1), make_row(0.2)])
    file = tmp_path / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-30] + b"\n")
    with pytest.raises(FailureError, match=r"row 2 of .*results\.jsonl is broken"):
        read_rows(tmp_path)


def test_columns_of_a_newer_version_are_kept(tmp_path: Path) -> None:
    values = make_row(0.1).as_dict() | {"invented_later": 7}
    (tmp_path / "results.jsonl").write_text(json.dumps(values) + "\n")
    with Results(tmp_path) as results:
        results.add(make_row(0.2))
        assert results.rows() == [make_row(0.1), make_row(0.2)]
    assert json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0]) == values
    assert (
        (tmp_path / "results.csv").read_text().splitlines()[0].endswith("versions,invented_later")
    )
    assert read_rows(tmp_path / "results.csv") == [make_row(0.1), make_row(0.2)]


def test_leftover_temporary_files_go(tmp_path: Path) -> None:
    (tmp_path / ".results.jsonl.123.tmp").write_text("torn")
    (tmp_path / ".progress.json.7.tmp").write_text("torn")
    (tmp_path / "mine.tmp").write_text("stays")
    with Results(tmp_path) as results:
        results.open(CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "mine.tmp"]


def test_one_writer_a_folder(tmp_path: Path) -> None:
    with Results(tmp_path) as first:
        first.open(CONFIG)
        second = Results(tmp_path)
        for write in (
            lambda: second.open(CONFIG),
            lambda: second.open(CONFIG, overwrite=True),
            lambda: second.add(make_row()),
            lambda: second.save_progress({}),
            second.clear_progress,
        ):
            with pytest.raises(FailureError, match=r"another run is writing in .*output"):
                write()
        assert second.rows() == []
        first.add(make_row())
    second.open(CONFIG)
    second.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "results.csv",
        "results.jsonl",
    ]


def test_another_process_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from secateurs.results import Results\n"
        "try: Results(sys.argv[1]).open({})\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with Results(tmp_path) as results:
        results.open({})
        shown = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert shown.stdout.startswith("FailureError another run is writing in")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.open({})
    context = multiprocessing.get_context("fork")
    started, done = context.Event(), context.Event()
    worker = context.Process(target=lambda: (started.set(), done.wait(60)))
    worker.start()
    try:
        assert started.wait(60)
        # What a killed parent leaves: its descriptor closed by the system, the worker alive.
        results._lock._forget()
        with Results(tmp_path) as other:
            other.open({})
    finally:
        done.set()
        worker.join()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match=r"it is a file; give a folder as output"):
        Results(tmp_path / "file")
    with pytest.raises(FailureError, match=r"cannot write .*another output"):
        Results(tmp_path / "file" / "below")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FailureError, match="permission denied; give another output"):
        Results(tmp_path)


def test_reading_makes_nothing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.csv"):
        with pytest.raises(InvalidArgumentError, match=f"no results at {path};"):
            read_rows(path)
    assert list(tmp_path.iterdir()) == []


def test_imports_the_standard_library_only() -> None:
    own = Path(folder.__file__).parent
    for file in (*own.glob("*.py"), *(own.parent / "_io").glob("*.py"), own.parent / "errors.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert (
                    name.split(".")[0] in sys.stdlib_module_names
                    or name == "secateurs.errors"
                    or name.startswith(("secateurs.results", "secateurs._io"))
                ), f"{file.name} imports {name}"
