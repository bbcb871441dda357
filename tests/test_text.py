import pytest

from hostile import HIDDEN, NAMES
from secateurs._text import printable


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_what_cannot_be_seen_is_written_out(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable() and not HIDDEN.search(shown)
    assert shown.encode() and printable(shown) == shown
    assert shown.startswith("[bold" if name.startswith("[") else "conv")


@pytest.mark.parametrize(
    "name", ["größe", "模型.weight", "C:\\new\\table", "a b", "a\u3000b", "👍", "é"]
)
def test_what_can_be_seen_stays(name: str) -> None:
    assert printable(name) == name


def test_different_names_stay_different() -> None:
    assert len({printable(name) for name in NAMES.values()}) == len(NAMES)
