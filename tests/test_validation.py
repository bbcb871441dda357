from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from secateurs._validation import (
    as_integer,
    check_choice,
    check_count,
    check_not_negative,
    check_path,
    check_positive,
    check_ratio,
    check_seed,
    make_generator,
    nearest,
)
from secateurs.errors import FailureError, InvalidArgumentError, SecateursError


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, 0.3, 5e-324, np.float64(0.25)])
def test_ratios_from_0_to_1_pass_as_floats(value: float) -> None:
    checked = check_ratio("p_prune", value)
    assert isinstance(checked, float)
    assert checked == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1.2, r"p_prune must be from 0 to 1 inclusive, got 1\.2; for 1\.2 per cent write 0\.012"),
        (50, r"got 50; for 50 per cent write 0\.5$"),
        (-0.1, r"from 0 to 1 inclusive, got -0\.1$"),
        (101, r"from 0 to 1 inclusive, got 101$"),
        (float("nan"), r"from 0 to 1 inclusive, got nan$"),
        (float("inf"), r"from 0 to 1 inclusive, got inf$"),
        ("half", r"must be a number from 0 to 1, got 'half'; for a half write p_prune=0\.5"),
        (True, r"must be a number from 0 to 1, got True"),
        (None, r"must be a number from 0 to 1, got None"),
        ([0.5], r"must be a number from 0 to 1, got \[0\.5\]"),
        (0.5j, r"must be a number from 0 to 1, got 0\.5j"),
    ],
)
def test_other_ratios_are_refused(value: object, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        check_ratio("p_prune", value)  # type: ignore[arg-type]


def test_a_choice_is_returned_or_refused_with_the_nearest_one() -> None:
    assert check_choice("scope", "layer", ("global", "layer")) == "layer"
    with pytest.raises(
        InvalidArgumentError,
        match=r"^scope must be one of global, layer; got 'layers'; did you mean layer\?$",
    ):
        check_choice("scope", "layers", ("global", "layer"))
    with pytest.raises(InvalidArgumentError, match=r"got None$"):
        check_choice("scope", None, ("global", "layer"))


def test_nearest_is_silent_when_nothing_is_near() -> None:
    assert nearest("xyz", ("global", "layer")) == ""
    assert nearest("wieght", ("kernel", "weight")) == "; did you mean weight?"


def test_nearest_knows_what_other_libraries_say() -> None:
    assert nearest("local", ("global", "layer")) == "; did you mean layer?"
    assert nearest("ratio", ("generator", "p_prune")) == "; did you mean p_prune?"


class Index:
    """Says that it is an integer, as Python wants it said."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize(
    "value",
    [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor([3]), Index()],
)
def test_integers_of_any_kind_become_pythons(value: object) -> None:
    for found in (as_integer(value), check_count("steps", value), check_seed("seed", value)):
        assert type(found) is int
        assert found == 3
    generator = make_generator(None, value)  # type: ignore[arg-type]
    assert generator is not None
    assert generator.initial_seed() == 3


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), torch.tensor(True), 3.0, np.float64(3), torch.tensor(3.0), "3", None,
     torch.tensor([1, 2]), np.array([1, 2]), 3j, [3]],
)  # fmt: skip
def test_what_is_no_integer_is_refused(value: object) -> None:
    assert as_integer(value) is None
    with pytest.raises(InvalidArgumentError, match=r"^steps must be a whole number from 1, got "):
        check_count("steps", value)
    with pytest.raises(InvalidArgumentError, match=r"^seed must be an integer, got "):
        check_seed("seed", value)


def test_counts_below_the_least_and_seeds_that_no_generator_takes() -> None:
    assert check_count("ti", np.int64(0), 0) == 0
    with pytest.raises(InvalidArgumentError, match="must be a whole number from 1, got 0"):
        check_count("steps", 0)
    assert check_seed("seed", 2**100) == 2**100
    assert make_generator(None, -1) is not None
    with pytest.raises(InvalidArgumentError, match="seed must fit into 64 bits"):
        make_generator(None, 2**64)


def test_a_seed_makes_a_fresh_cpu_generator() -> None:
    first, second = make_generator(None, 7), make_generator(None, 7)
    assert first is not None
    assert second is not None
    assert first.device.type == "cpu"
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))


def test_a_generator_is_used_as_it_is() -> None:
    generator = torch.Generator()
    assert make_generator(generator, None) is generator
    assert make_generator(None, None) is None


@pytest.mark.parametrize(
    ("generator", "seed", "needed_for", "words"),
    [
        (torch.Generator(), 0, None, "give generator or seed, not both"),
        (0, None, None, r"generator must be a torch.Generator, got int; .* write seed="),
        (None, 0.5, None, r"seed must be an integer, got 0\.5"),
        (None, True, None, "seed must be an integer, got True"),
        (None, "0", None, "seed must be an integer, got '0'"),
        (None, None, "p_bern=0.5", r"^p_bern=0\.5 draws random numbers: hand in seed=0"),
    ],
)
def test_wrong_sources_of_randomness(
    generator: object, seed: object, needed_for: str | None, words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        make_generator(generator, seed, needed_for=needed_for)  # type: ignore[arg-type]


def test_the_errors_are_the_ones_people_catch() -> None:
    assert issubclass(InvalidArgumentError, SecateursError)
    assert issubclass(InvalidArgumentError, ValueError)
    assert issubclass(FailureError, SecateursError)
    assert issubclass(FailureError, RuntimeError)


def test_a_ratio_may_be_a_numpy_scalar() -> None:
    assert check_ratio("p_prune", np.float32(0.5)) == 0.5
    with pytest.raises(InvalidArgumentError, match="p_prune must be from 0 to 1"):
        check_ratio("p_prune", np.float64(1.5))


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float16(0.5), Fraction(1, 2)])
def test_numbers_of_any_kind_become_pythons(value: float) -> None:
    for found in (
        check_ratio("p_prune", value),
        check_positive("damping", value, 0.1),
        check_not_negative("power", value),
    ):
        assert type(found) is float
        assert found == 0.5


@pytest.mark.parametrize("value", [True, "1", None, 1j, float("nan"), float("inf"), -1, 10**400])
def test_what_is_no_finite_number_above_0_is_refused(value: object) -> None:
    words = r"damping must be a number above 0, got .*; write damping=0\.1$"
    with pytest.raises(InvalidArgumentError, match=words):
        check_positive("damping", value, 0.1)
    with pytest.raises(InvalidArgumentError, match="power must be a number from 0 on, got "):
        check_not_negative("power", value)


def test_zero_is_not_positive_and_not_negative() -> None:
    assert check_not_negative("power", 0) == 0.0
    with pytest.raises(InvalidArgumentError, match="damping must be a number above 0, got 0;"):
        check_positive("damping", 0, 0.1)


LONG = 10**5000
"""Python refuses to write numbers of so many digits."""


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_ratio("p_prune", LONG),
        lambda: check_count("steps", -LONG),
        lambda: make_generator(None, LONG),
        lambda: check_choice("scope", LONG, ("global", "layer")),  # type: ignore[arg-type]
        lambda: check_choice("scope", [LONG], ("global", "layer")),  # type: ignore[arg-type]
        lambda: check_ratio("p_prune", Fraction(3, 2)),  # type: ignore[arg-type]
    ],
)
def test_refusals_are_short_whatever_was_given(check: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check()
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "out is an empty path: write '.'"),
        ("~nobody-of-this-name/masks", r"no home folder of that user: .* write '\./~nobody"),
        ("a\0b", r"out must be a path as text, got 'a\\x00b'"),
        (3, "out must be a path as text, got 3"),
        (b"a", "out must be a path as text, got b'a'"),
    ],
)
def test_paths_that_name_no_file(given: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        check_path("out", given)
