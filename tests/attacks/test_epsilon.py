from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.attacks import parse_epsilon
from secateurs.errors import InvalidArgumentError


@pytest.mark.parametrize(
    "written",
    ["16/255", " 16 / 255 ", "16.0/255.0", 16 / 255, str(16 / 255), Fraction(16, 255)],
)
def test_one_meaning(written: float | str) -> None:
    assert parse_epsilon(written) == 16 / 255


def test_numpy_numbers_are_numbers() -> None:
    assert parse_epsilon(np.float32(0.25)) == 0.25
    assert type(parse_epsilon(np.float64(0.25))) is float


@given(st.integers(1, 127))
def test_grey_levels_as_fractions(levels: int) -> None:
    assert parse_epsilon(f"{levels}/255") == levels / 255


@given(st.floats(0.5 / 255, 0.5))
def test_plausible_numbers_stay_what_they_are(value: float) -> None:
    assert parse_epsilon(value) == parse_epsilon(repr(value)) == value


@given(st.integers(1, 254))
def test_grey_levels_alone_are_refused(levels: int) -> None:
    for written in (levels, float(levels), str(levels)):
        with pytest.raises(InvalidArgumentError, match=f"grey levels write {levels}/255$"):
            parse_epsilon(written)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_anything_else_is_one_error(written: object) -> None:
    try:
        assert 0 < parse_epsilon(written) <= 0.5  # type: ignore[arg-type]
    except InvalidArgumentError as error:
        assert str(error).startswith("eps ")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (0, "must be above 0, such as 16/255; got 0"),
        ("-1/255", "above 0"),
        (0.51, "at most 0.5, with which every image can become the same flat grey, got 0.51"),
        ("200/255", "at most 0.5"),
        (255, "runs from 0 to 1, got 255$"),
        (16 / 255 / 255, "divided by 255 twice"),
        ("16/0", "a number or a fraction such as 16/255, got '16/0'"),
        ("16/255/255", "a number or a fraction"),
        ("6%", "a number or a fraction"),
        ("inf", "a number or a fraction"),
        (float("nan"), "a number or a fraction"),
        (True, "a number or a fraction"),
        (None, "a number or a fraction"),
    ],
)
def test_implausible_values_say_what_to_write(written: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        parse_epsilon(written)  # type: ignore[arg-type]


def test_a_step_may_be_small_and_is_named() -> None:
    assert parse_epsilon("2/255", name="alpha") == 2 / 255
    assert parse_epsilon(1e-4, name="alpha") == 1e-4
    with pytest.raises(InvalidArgumentError, match=r"^alpha must be above 0"):
        parse_epsilon(0.0, name="alpha")
