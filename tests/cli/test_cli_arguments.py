"""What people type, and what the commands are given."""

import shlex
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import Run
from hypothesis import given
from hypothesis import strategies as st

from secateurs.cli import option_types
from secateurs.cli.help_examples import EXAMPLES
from secateurs.cli.parser import make_app, options_of, parse
from secateurs.criteria import score_names
from secateurs.errors import InvalidArgumentError
from secateurs.masks.granularity import GRANULARITIES
from secateurs.pruning import PRUNE_TYPES
from secateurs.selection.selection_options import SelectionOptions
from secateurs.zoo.digits_family import FAMILY
from secateurs.zoo.models import DIGITS_NAMES


def read(*words: str) -> dict[str, Any]:
    """The options that a command is given for some words, by name."""
    _, bound, _ = make_app().parse_args(list(words), print_error=False, exit_on_error=False)
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        found |= asdict(value) if is_dataclass(value) else {name: value}
    return found


@pytest.mark.parametrize(
    ("typed", "name", "meant"),
    [
        ("sweep --p-prune 0 0.1 0.2", "p_prune", (0, 0.1, 0.2)),
        ("sweep --p_prune 0 0.5", "p_prune", (0, 0.5)),
        ("sweep --p-prune 0,0.5 --limit 3", "p_prune", (0, 0.5)),
        ("sweep --p-prune=0.5 0.7,0.9", "p_prune", (0.5, 0.7, 0.9)),
        ("sweep --p-prune 0.5 -b 3 --p_prune 0.7", "p_prune", (0.5, 0.7)),
        ("sweep --mean -0.5 -.5", "mean", (-0.5, -0.5)),
        ("sweep --granularity weight,kernel filter", "granularity", ("weight", "kernel", "filter")),
        ("sweep --include a,b c", "include", ("a", "b", "c")),
        ("sweep --include=-x*", "include", ("-x*",)),
        ("sweep --data_root my_data --title c_d", "data_root", Path("my_data")),
        ("sweep -o=a=b -b=3", "output", Path("a=b")),
        ("sweep -oout -b3", "batch_size", 3),
        ("sweep --limit 3 --limit 4", "limit", 4),
        ("sweep --amp --overwrite", "resume", False),
        ("sweep --overwrite --resume", "resume", True),
        ("sweep --amp", "amp", True),
        ("sweep --title=", "title", ""),
        ("transfer --models a b=c --seeds 0,3", "surrogates", ("a", "b=c")),
        ("transfer --models a b=c --seeds 0,3", "seeds", (0, 3)),
        ("transfer --redraw step 4", "redraw", ("step", "4")),
        ("prune in.pt --p-prune 0.5", "p_prune", 0.5),
        ("prune --p-prune 0.5 in.pt --layers conv linear", "layers", ("conv", "linear")),
        ("prune -- --in.pt", "source", Path("--in.pt")),
        ("report my_folder b", "folders", [Path("my_folder"), Path("b")]),
        ("report a --x p-prune", "x", "p_prune"),
    ],
)
def test_spellings(typed: str, name: str, meant: object) -> None:
    assert read(*typed.split())[name] == meant


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("sweep --p-prune", "--p-prune needs at least one value"),
        ("sweep --p-prune --limit 3", "--p-prune needs at least one value"),
        ("sweep --p-prune 1 --include", "--include needs at least one value"),
        ("sweep --output", "--output needs a value"),
        ("sweep --draws 1.5", "--draws takes whole numbers such as 3, got '1.5'"),
        ("transfer --seeds 0 1.5", "--seeds takes whole numbers such as 3, got '1.5'"),
        ("sweep --amp=maybe", "--amp takes no value, got 'maybe'"),
        ("sweep --no-amp", "no such option: --no-amp; did you mean --amp?"),
        ("report", "FOLDERS is missing"),
    ],
)
def test_what_is_refused(typed: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse(typed.split())
    assert str(caught.value) == f"{complaint}; see secateurs {typed.split()[0]} --help"


WORDS = st.one_of(
    st.sampled_from(["--p-prune", "--p_prune", "--include=a,b", "--limit", "--out_put=a_b", "-b"]),
    st.sampled_from(
        ["sweep", "0", "0.5,1", "-1", "conv*", "", ",", "=", "a=b", "-x", "-o=a", "--"]
    ),
    st.text(max_size=4),
)


@given(st.lists(WORDS, max_size=8))
def test_whatever_is_typed_is_understood_or_refused_in_words(words: list[str]) -> None:
    try:
        parse(["sweep", *words])
    except InvalidArgumentError as error:
        assert str(error)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from([" ", ",", ", "]))
def test_any_list_of_numbers_arrives(values: list[float], between: str) -> None:
    typed = between.join(map(str, values)).split(" ")
    found = read("sweep", "--p_prune", *typed, "--limit", "3")
    assert found["p_prune"] == tuple(values) and found["limit"] == 3


def test_what_is_not_written_is_left_to_the_library() -> None:
    grid = option_types.PruningGrid(p_prune=(0.5,), scope=("layer",))
    assert option_types.given(grid) == {"p_prune": [0.5], "scope": ["layer"]}
    assert option_types.given(grid, "scope") == {"p_prune": [0.5]}


@pytest.mark.parametrize(
    ("choices", "known"),
    [
        (get_args(option_types.Granularity), GRANULARITIES),
        (get_args(option_types.PruneType), PRUNE_TYPES),
        (option_types.DIGITS_FAMILY, FAMILY),
        (option_types.DIGITS_NETWORKS, DIGITS_NAMES),
    ],
)
def test_the_choices_are_those_of_the_library(choices: Any, known: Any) -> None:
    assert set(choices) == set(known)


@pytest.mark.parametrize("command", ["sweep", "transfer", "prune"])
def test_commands_have_all_options_of_a_selection(command: str) -> None:
    known = {f"--{field.name}" for field in fields(SelectionOptions)} - {"--seed"}
    assert known <= set(options_of(command))


@pytest.mark.parametrize(
    ("command", "data_free"), [("sweep", False), ("transfer", True), ("prune", True)]
)
def test_help_names_the_criteria(run: Run, command: str, data_free: bool) -> None:
    shown = " ".join(run(command, "--help").out.replace("│", " ").split())
    assert f"candidates: {', '.join(score_names(data_free=data_free))}." in shown


@pytest.mark.parametrize("command", ["sweep", "transfer", "prune", "report"])
def test_every_option_is_explained(run: Run, command: str) -> None:
    shown = run(command, "--help").out
    assert "Usage: secateurs" in shown
    for option in options_of(command):
        assert option in shown or not option.startswith("-")
    for argument in make_app()[command].assemble_argument_collection(parse_docstring=True):
        assert argument.parameter.help or is_dataclass(argument.hint), argument.name


def test_help_and_version_succeed(run: Run) -> None:
    for words in (["--help"], ["-h"], ["sweep", "--help"], ["report", "-h"]):
        said = run(*words)
        assert (said.code, said.err) == (0, "") and "Usage: secateurs" in said.out
    version = run("--version")
    assert (version.code, version.err) == (0, "") and version.out.startswith("secateurs ")


def test_nothing_at_all_prints_help_and_is_no_success(run: Run) -> None:
    said = run()
    assert (said.code, said.err) == (2, "") and "sweep" in said.out


def test_the_examples_in_the_help_are_commands() -> None:
    app = make_app()
    assert EXAMPLES.keys() == {name for name in app if not name.startswith("-")}
    for command, lines in EXAMPLES.items():
        for line in lines:
            program, *words = shlex.split(line)
            assert (program, words[0]) == ("secateurs", command)
            app.parse_args(words, print_error=False, exit_on_error=False)


def test_help_ends_with_examples(run: Run) -> None:
    help_text = run("prune", "--help").out
    assert "\nExamples:\n  secateurs prune model.safetensors --p-prune 0.5" in help_text


def test_completion_is_installed_for_the_shell(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert run("--install-completion", "--shell", "bash").code == 0
    installed = tmp_path / ".local/share/bash-completion/completions/secateurs"
    assert "--p-prune" in installed.read_text()
