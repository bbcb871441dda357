from pathlib import Path

import pytest
from torch import nn

from secateurs import InvalidArgumentError, RepairWarning
from secateurs.errors import SecateursError
from secateurs.repair import allocate, read_ratios, write_ratios

LONG = "x" * 10_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"0": 0.25, "1.weight": 1}'),
        ("a.csv", "0,0.25\n\n1.weight, 1\n"),
        ("A.CSV", "\ufefflayer,ratio\r\n0,0.25\r\n1.weight,1\r\n"),
    ],
)
def test_a_file_allocates(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert read_ratios(path) == {"0": 0.25, "1.weight": 1.0}
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for given in (path, str(path)):
        with pytest.warns(RepairWarning, match=r"^1\.weight loses everything"):
            chosen = allocate(model, None, given).chosen
        assert {n: int(mask.sum()) for n, mask in chosen.items()} == {"0.weight": 4, "1.weight": 8}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "0,0.5", r"a\.txt is neither \.json nor \.csv"),
        ("a.csv", "", r"a\.csv gives no ratio"),
        ("a.json", "{}", r"a\.json gives no ratio"),
        ("a.csv", "a,b\nconv,half", r"^line 2 of .* must be a name and a ratio.*got 'conv,half'"),
        ("a.csv", "conv,0.5,1", r"^line 1 of .* must be a name and a ratio"),
        ("a.csv", "conv,0.5\nconv,0.6", "^line 2 of .* names 'conv' again"),
        ("a.csv", "conv,50", r"^the ratio in line 1 of .* for 50 per cent write 0\.5"),
        ("a.csv", "conv,nan", "^the ratio in line 1 of .* must be from 0 to 1"),
        ("a.json", '{"conv": "half"}', "^the ratio of 'conv' in .* must be a number"),
        ("a.json", f'{{"{LONG}": "{LONG}"}}', "^the ratio of 'xxx.* must be a number .*got 'xxx"),
        ("a.csv", f"{LONG},0.5\n{LONG},0.5", "^line 2 of .* names 'xxx"),
        ("a.csv", f"a,0\n{LONG}", "^line 2 of .* must be a name and a ratio.*got 'xxx"),
        ("a.csv", 20 * LONG, "as the ratios of layers: field larger than field limit"),
        ("a.json", '{"conv": 0.5, "conv": 0.6}', "conv"),
        ("a.json", "[0.5]", "as the ratios of layers"),
        ("a.json", '{"a": 1,\n"b" 1}', "in line 2, column 5; mend it, or get it again"),
        ("a.csv", b"\xff,0.5", r"cannot read .*a\.csv as the ratios of layers: it is no text"),
        ("missing/a.csv", None, r"cannot read .*a\.csv as the ratios of layers: No such file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str | bytes | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SecateursError, match=words) as caught:
        read_ratios(tmp_path / name)
    assert len(str(caught.value)) < 500


def test_a_name_that_is_no_file_is_an_allocation() -> None:
    with pytest.raises(InvalidArgumentError, match=r"allocation must be one of global.*got 'json'"):
        allocate(nn.Linear(2, 2), 0.5, "json")


def test_ratios_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_ratios("~/ratios.json", {"fc": 0.5})
    assert read_ratios("~/ratios.json") == {"fc": 0.5}
