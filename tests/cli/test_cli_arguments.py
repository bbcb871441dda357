import pytest
from command_line import Run
from hypothesis import given
from hypothesis import strategies as st

from secateurs.cli.options import numbers, spelled_out
from secateurs.errors import InvalidArgumentError

SEVERAL = {"--p-prune", "--include"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sweep", "sweep"),
        ("sweep --p_prune 0 0.5", "sweep --p-prune 0 --p-prune 0.5"),
        ("--p-prune 0,0.5 --limit 3", "--p-prune 0 --p-prune 0.5 --limit 3"),
        ("--p-prune=0.5 0.7,0.9", "--p-prune 0.5 --p-prune 0.7 --p-prune 0.9"),
        ("--p-prune 0 -b 3 0.5", "--p-prune 0 -b 3 0.5"),
        ("--p-prune -0.5 -.5", "--p-prune -0.5 --p-prune -.5"),
        ("-o=out -b=3 --p-prune 0 -o=a=b 1", "-o out -b 3 --p-prune 0 -o a=b 1"),
        ("--include=-x*", "--include=-x*"),
        ("--data_root my_data --a_b=c_d", "--data-root my_data --a-b=c_d"),
        ("report my_folder", "report my_folder"),
        ("--p-prune 1 -- --p_prune 0 1", "--p-prune 1 -- --p_prune 0 1"),
    ],
)
def test_spellings(typed: str, meant: str) -> None:
    assert spelled_out(typed.split(), SEVERAL) == meant.split()


def test_values_may_hold_spaces_and_empty_ones_are_left_to_their_reader() -> None:
    assert spelled_out(["--p-prune", "0, 0.5"], SEVERAL) == ["--p-prune", "0", "--p-prune", "0.5"]
    assert spelled_out(["--p-prune", ""], SEVERAL) == ["--p-prune", ""]
    assert spelled_out(["--p-prune="], SEVERAL) == ["--p-prune", ""]
    with pytest.raises(InvalidArgumentError, match=r"--p-prune takes numbers such as 0\.5, got ''"):
        numbers("--p-prune", [""])


@pytest.mark.parametrize("typed", ["--p-prune", "--p-prune --limit 3", "--p-prune 1 --include"])
def test_an_option_without_values_is_refused(typed: str) -> None:
    with pytest.raises(InvalidArgumentError, match="needs at least one value"):
        spelled_out(typed.split(), SEVERAL)


WORDS = st.one_of(
    st.sampled_from(["--p-prune", "--p_prune", "--include=a,b", "--limit", "--out_put=a_b", "-b"]),
    st.sampled_from(
        ["sweep", "0", "0.5,1", "-1", "conv*", "", ",", "=", "a=b", "-x", "-o=a", "--"]
    ),
    st.text(max_size=4),
)


@given(st.lists(WORDS, max_size=8))
def test_what_is_spelled_out_stays_as_it_is(words: list[str]) -> None:
    try:
        once = spelled_out(words, SEVERAL)
    except InvalidArgumentError as error:
        assert "needs at least one value" in str(error)
        return
    assert spelled_out(once, SEVERAL) == once


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from([" ", ",", ", "]))
def test_any_list_of_numbers_arrives(values: list[float], between: str) -> None:
    typed = between.join(map(str, values)).split(" ")
    words = spelled_out(["sweep", "--p_prune", *typed, "--limit", "3"], SEVERAL)
    assert words[:1] + words[-2:] == ["sweep", "--limit", "3"]
    assert set(words[1:-2:2]) == {"--p-prune"}
    assert numbers("--p-prune", words[2:-2:2]) == values


def test_help_and_version_succeed(run: Run) -> None:
    for words in (["--help"], ["-h"], ["sweep", "--help"], ["report", "-h"]):
        said = run(*words)
        assert (said.code, said.err) == (0, "") and "Usage: secateurs" in said.out
    version = run("--version")
    assert (version.code, version.err) == (0, "") and version.out.startswith("secateurs ")


def test_nothing_at_all_prints_help_and_is_no_success(run: Run) -> None:
    said = run()
    assert (said.code, said.err) == (2, "") and "sweep" in said.out
