"""Result files that another program or hand has changed: rows, or one short line."""

import json
import math
import os
import random
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from result_rows import make_row
from secateurs.errors import FailureError, SecateursError
from secateurs.results import Results, Row, TransferRow, read_rows
from transfer_rows import make_transfer_row

DEEP = "[" * 100_000
FILES = ["results.jsonl", "results.csv"]


def folder_of(path: Path, *rows: Any, config: dict[str, Any] | None = None) -> Path:
    with Results(path, type(rows[0])) as results:
        if config is not None:
            results.open(config)
        results.add_all(rows)
    return path


def written(path: Path, row: Any = None, **changes: Any) -> Path:
    """A folder whose first of two rows holds these values."""
    values = (row or make_row()).as_dict()
    lines = [json.dumps(each) + "\n" for each in (values | changes, values)]
    (path / "results.jsonl").write_text("".join(lines))
    return path


def check_one_line(error: BaseException) -> None:
    assert len(str(error)) < 700
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("top1", 101.0),
        ("top1", math.inf),
        ("top1", "NaN"),
        ("top1", True),
        ("top1", [1]),
        ("achieved", 1e300),
        pytest.param("duration", 10**400, id="duration-401 digits"),
        ("top1_std", -5.0),
        ("loss", {}),
        ("count", 3.5),
        ("count", -1),
        ("count", True),
        ("count", 10**30),
        ("count", "9" * 5000),
        ("count", "x" * 100_000),
        ("seed", "1.5"),
        ("amp", [1]),
        ("amp", 3),
        ("model", None),
        ("model", 5),
        ("model", {"a": 1}),
        ("draws", None),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_row(
    tmp_path: Path, column: str, value: Any
) -> None:
    with pytest.raises(FailureError, match=rf"row 1 of .*jsonl: column {column} ") as caught:
        read_rows(written(tmp_path, **{column: value}))
    check_one_line(caught.value)
    with Results(tmp_path) as results, pytest.raises(FailureError, match=f"column {column} "):
        results.add(make_row())


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 0, "NaN"])
def test_a_loss_may_be_anything(tmp_path: Path, loss: Any) -> None:
    assert str(read_rows(written(tmp_path, loss=loss))[0].loss) == str(float(loss))


def test_a_column_of_another_version_is_kept_whatever_it_holds(tmp_path: Path) -> None:
    path = written(tmp_path, p_prune=0.9, other={"a": [math.nan, math.inf]})
    with Results(path) as results:
        results.add(make_row(0.5))
    first = json.loads((path / "results.jsonl").read_text().splitlines()[0])
    assert first["other"] == {"a": ["NaN", "Infinity"]}
    assert len(read_rows(path)) == len(read_rows(path / "results.csv")) == 3


def test_rows_that_are_a_link_to_nowhere_are_not_taken_for_none(tmp_path: Path) -> None:
    folder_of(tmp_path, make_row(), config={})
    (tmp_path / "results.jsonl").unlink()
    (tmp_path / "results.jsonl").symlink_to("absent")
    with pytest.raises(SecateursError, match="no results at"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targeted_hits": "011"}, "targeted_hits .* disagrees with the count of 4 images"),
        ({"untargeted_hits": "01100"}, "untargeted_hits .* disagrees"),
        ({"untargeted_hits": "01x0"}, "untargeted_hits .* one digit an image, 0 or 1"),
        ({"count": 5}, "disagrees with the count of 5"),
        ({"targeted_hits": ""}, "targeted_hits .* disagrees"),
        ({"targeted": 75.0}, "column targeted .* holds 75.0, but the hits give 50.0"),
        ({"targeted": None}, "column targeted .* holds None"),
        ({"untargeted": 0.0}, "column untargeted .* holds 0.0, but the hits give 50.0"),
        ({"targeted_attack": False}, "disagrees|None"),
        ({"count": 0}, "column count .* from 1"),
    ],
)
def test_hits_must_agree_with_the_images_and_the_percentages(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = written(tmp_path, make_transfer_row("0110"), **changes)
    with pytest.raises(FailureError, match=words) as caught:
        read_rows(path, TransferRow)
    check_one_line(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"correct1": "1;2;999"}, "correct1 .* disagrees with the count of 300 images"),
        ({"correct1": "x"}, "correct1 .* a whole number a draw"),
        ({"correct5": ""}, "correct5 .* a whole number a draw"),
        ({"count": 400}, "column top1 .* but correct1 gives"),
        ({"top1": 12.0}, "column top1 .* holds 12.0, but correct1 gives 83.0"),
    ],
)
def test_right_answers_must_agree_with_the_images_and_the_accuracy(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(FailureError, match=words) as caught:
        read_rows(written(tmp_path, **changes))
    check_one_line(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_byte_order_mark_and_what_is_no_utf_8(tmp_path: Path, name: str) -> None:
    rows = [make_row(0.1), make_row(0.2, model="café"), make_row(0.3)]
    file = folder_of(tmp_path, *rows) / name
    content = file.read_bytes()
    file.write_bytes(b"\xef\xbb\xbf" + content)
    assert read_rows(file) == rows
    file.write_bytes(content.replace("é".encode(), b"\xe9"))
    with pytest.raises(FailureError, match=r"byte \d+ is no UTF-8") as caught:
        read_rows(file)
    check_one_line(caught.value)


@pytest.mark.parametrize("line", [DEEP, "[" * 200 + "]" * 200, '{"a": %s}' % ("9" * 5000), "[1]"])
def test_odd_json_is_a_broken_row(tmp_path: Path, line: str) -> None:
    file = folder_of(tmp_path, make_row()) / "results.jsonl"
    file.write_text(line + "\n" + file.read_text())
    with pytest.raises(FailureError, match=r"row 1 of .*results\.jsonl is broken \(") as caught:
        read_rows(tmp_path)
    check_one_line(caught.value)


def test_a_csv_row_that_is_too_long(tmp_path: Path) -> None:
    file = folder_of(tmp_path, make_row()) / "results.csv"
    file.write_text(file.read_text().replace(",imagenet,", ",image,net,"))
    with pytest.raises(FailureError, match=r"row 1 of .* more cells than there are columns"):
        read_rows(file)


@pytest.mark.parametrize("text", [DEEP, '{"a": ' * 300 + "1" + "}" * 300, "\xff\xfe{", "[]"])
def test_an_odd_configuration_is_one_line_and_can_be_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with Results(tmp_path) as results:
        with pytest.raises(SecateursError, match=r"config\.json is not a config.*over") as caught:
            results.open({"model": "m"})
        check_one_line(caught.value)
        assert results.open({"model": "m"}, overwrite=True) is False


def test_long_differences_of_configurations_are_shortened(tmp_path: Path) -> None:
    folder_of(tmp_path, make_row(), config={"model": "m"})
    odd = {f"{'x' * 5000}{number}\x1b[2J": "y" * 100_000 for number in range(50)}
    (tmp_path / "config.json").write_text(json.dumps(odd))
    with Results(tmp_path) as results, pytest.raises(SecateursError, match="and 43 more") as caught:
        results.open({"model": "m"})
    assert len(str(caught.value)) < 2000
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("text", [DEEP, "[1]", "{", "\xff", '{"a": %s}' % ("9" * 5000)])
def test_odd_progress_is_left_aside_with_a_warning(tmp_path: Path, text: str) -> None:
    with Results(tmp_path) as results:
        results.open({"model": "m"})
        (tmp_path / "progress.json").write_bytes(text.encode("latin-1"))
        with pytest.warns(UserWarning, match=r"progress\.json cannot be used .* measured again"):
            assert results.load_progress() is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", ["results.jsonl", "results.csv", "config.json", "progress.json"])
def test_pipes_are_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SecateursError, match="no results at"):
        read_rows(tmp_path / name)
    with Results(tmp_path) as results, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the progress
        try:
            results.open({})
            results.load_progress()
            results.add(make_row())
        except SecateursError as error:
            assert name in ("results.jsonl", "config.json")
            assert "it is a pipe, not a regular file" in str(error) or "without config" in str(
                error
            )


# --- formulas and names -----------------------------------------------------------------

FORMULAS = [
    "=1+2",
    "+1",
    "-1",
    "@a",
    "\tx",
    "\r=x",
    "'=x",
    "''+x",
    "'x",
    "'",
    "",
    "a=1",
    "-Infinity",
]


@pytest.mark.parametrize("name", [*FILES, ""])
def test_what_begins_as_a_formula_comes_back(tmp_path: Path, name: str) -> None:
    rows = [make_row(place / 100, model=text, data=text) for place, text in enumerate(FORMULAS)]
    assert read_rows(folder_of(tmp_path, *rows) / name) == rows


def test_spreadsheets_find_no_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    row = make_row(model="=cmd|' /C calc'!A0", exclude="@x", loss=-math.inf, top1=0.0)
    cells = (folder_of(tmp_path, row) / "results.csv").read_text().splitlines()[1].split(",")
    assert cells[0] == "'=cmd|' /C calc'!A0"
    assert "'@x" in cells
    assert "-Infinity" in cells
    assert not [cell for cell in cells if cell[:1] in "=+@" and cell]


@pytest.mark.skipif(sys.platform == "win32", reason="needs bytes as names")
@pytest.mark.parametrize("name", ["", *FILES])
def test_names_that_are_not_utf_8_are_stored_as_escapes(tmp_path: Path, name: str) -> None:
    odd = os.fsdecode(b"caf\xe9")
    row = make_row(data=odd, model="\ud800")
    assert (row.data, row.model) == ("caf\\xe9", "\\ud800")
    folder = folder_of(tmp_path / odd, row, config={"data": odd})
    assert read_rows(folder / name) == [row]
    for file in folder.iterdir():
        file.read_bytes().decode()
    with Results(folder) as results:
        assert results.open({"data": odd}) is True
        with pytest.raises(SecateursError, match=r'data: there "caf.+xe9", now "cafe"'):
            results.open({"data": "cafe"})


# --- csv and jsonl say the same ---------------------------------------------------------


def test_nan_and_infinity_are_stored_alike_however_a_row_came(tmp_path: Path) -> None:
    folder_of(tmp_path, make_row(0.1, loss=math.nan), config={"run": 1})
    folder_of(tmp_path, make_row(0.2, loss=math.inf))
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    with Results(tmp_path) as results:
        assert results.open({"run": 1}) is True
    assert before == {name: (tmp_path / name).read_bytes() for name in FILES}
    assert before["results.csv"].count(b",NaN,") == before["results.csv"].count(b",Infinity,") == 1


@pytest.mark.parametrize("strike", [1, 2])
def test_ctrl_c_between_the_renames_leaves_both_files_alike(
    tmp_path: Path, strike: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path, make_row(0.1))
    original, renames = Path.replace, 0

    def interrupted(self: Path, target: Any) -> Any:
        nonlocal renames
        renames += 1
        if renames == strike:
            if strike == 2:
                original(self, target)
            raise KeyboardInterrupt
        return original(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        folder_of(tmp_path, make_row(0.2))
    rows = read_rows(tmp_path)
    assert rows == read_rows(tmp_path / "results.csv") == [make_row(0.1), make_row(0.2)]
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


# --- mutations --------------------------------------------------------------------------

PIECES = [
    *(b"NaN", b"null", b"-1", b"1e999", b"9" * 400, b"[" * 300, b"{}", b"[]", b'""', b"true"),
    *(b"\xff", b"\xef\xbb\xbf", b"\x00", b"\n", b",", b'"', b"\\ud800", b"0", b"}"),
]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out, doubled, or replaced by something odd."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        stop = min(len(content), start + rng.choice([0, 1, 2, 8, 40]))
        piece = rng.choice([b"", rng.randbytes(1), content[start:stop] * 2, rng.choice(PIECES)])
        content = content[:start] + piece + content[stop:]
    return content


def read_all(folder: Path) -> None:
    with Results(folder) as results:
        results.open({"run": 1, "p_prune": [0.1, 0.5]})
        results.rows()
        results.load_progress()


READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("results.jsonl", read_rows),
    ("results.csv", read_rows),
    ("results.jsonl", lambda file: read_all(file.parent)),
    ("config.json", lambda file: read_all(file.parent)),
    ("progress.json", lambda file: read_all(file.parent)),
]


@pytest.mark.parametrize("place", range(len(READERS)))
@pytest.mark.parametrize("kind", [Row, TransferRow])
def test_mutations_give_rows_or_one_line(tmp_path: Path, place: int, kind: Any) -> None:
    name, read = READERS[place]
    rows = [make_row(0.1), make_row(0.5)]
    if kind is TransferRow:
        rows = [make_transfer_row("0110"), make_transfer_row("1110", seed=1)]
        read = partial(read_rows, kind=TransferRow) if read is read_rows else read
    rng, file = random.Random(place), tmp_path / name
    folder_of(tmp_path, *rows, config={"run": 1, "p_prune": [0.1, 0.5]})
    with Results(tmp_path, kind) as results:
        results.save_progress({"dense": {"done": [[0, 8]], "achieved": 0.0}})
    whole, refused = {path: path.read_bytes() for path in tmp_path.iterdir()}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the progress
        for _ in range(12):
            for path, content in whole.items():
                path.write_bytes(mutated(content, rng) if path == file else content)
            try:
                read(file)
            except SecateursError as error:
                refused += 1
                assert len(str(error)) < 2000
                assert "\n" not in str(error)
    assert refused or name == "progress.json"
