"""The options of a selection check themselves once, and show themselves."""

import inspect
from typing import get_type_hints

import pytest
from torch import nn

from secateurs import InvalidArgumentError, SelectionOptions
from secateurs.selection.selection_options import SelectionKeywords


def test_the_keywords_are_the_fields() -> None:
    fields = {
        name: p.annotation for name, p in inspect.signature(SelectionOptions).parameters.items()
    }
    assert get_type_hints(SelectionKeywords) == fields


def test_equal_options_are_equal_values() -> None:
    one = SelectionOptions(include=["a", nn.Linear], exclude=iter("b"), layers="conv")
    assert one == SelectionOptions(include=("a", nn.Linear), exclude=("b",), layers="conv")
    assert len({one, SelectionOptions(), SelectionOptions(granularity="weight")}) == 2
    assert repr(SelectionOptions(scope="layer", exclude=["a"], score=len, seed=0)) == (
        "SelectionOptions(scope='layer', score=len, exclude=('a',), seed=0)"
    )
    assert repr(SelectionOptions()) == "SelectionOptions()"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"granularity": "weights"}, r"granularity must be one of .*; did you mean weight\?"),
        ({"scope": "net"}, "scope must be one of global, layer, N:M; got 'net'"),
        ({"score": "magnitud"}, r"score must be one of .*; did you mean magnitude\?"),
        ({"layers": "con2d"}, r"layers must be one of .*; did you mean conv2d"),
        ({"include": 3}, r"include takes names and nn\.Module types, got 3"),
        ({"exclude": [nn.Linear(1, 1)]}, r"exclude takes names and nn\.Module types, got Linear"),
        ({"seed": 0.5}, r"seed must be an integer, got 0\.5"),
    ],
)
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{words}"):
        SelectionOptions(**options)  # type: ignore[arg-type]
