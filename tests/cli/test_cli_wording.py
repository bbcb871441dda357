"""What the library says in Python, said with options."""

import shlex

import pytest
from command_line import Run

from secateurs.cli.wording import in_options


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("exclude='nope*' matches nothing", "--exclude 'nope*' matches nothing"),
        (
            "with include=['a[0-9]'], exclude=['*', 'b']:",
            "with --include 'a[0-9]', --exclude '*' b:",
        ),
        ("name others with layers= or include= (x)", "name others with --layers or --include (x)"),
        ("the model's: use score='magnitude'", "the model's: use --score magnitude"),
        ("write exclude='-a'", "write --exclude=-a"),
        ("write exclude=['-a', 'b']", "write --exclude=-a --exclude=b"),
        # These have no form in a shell, or are what somebody else wrote.
        ("write exclude=Linear, layers=['default', Own]", None),
        ("cannot read 'exclude=\\'a\\'': it is \"layers=\"", None),
        ("cannot read a/exclude='b'", None),
        ("write exclude='cut off…", None),
        ("write pre_exclude='x', sc.score='x'", None),
    ],
)
def test_arguments_are_shown_as_options(said: str, shown: str | None) -> None:
    assert in_options(said) == (said if shown is None else shown)


@pytest.mark.parametrize("name", ["it's", "\"both'", "a b", "$HOME", "a\\b", "[x]", "größe"])
def test_a_shell_reads_back_what_was_meant(name: str) -> None:
    assert shlex.split(in_options(f"exclude={name!r}")) == ["--exclude", name]
    assert shlex.split(in_options(f"exclude={[name, 'b']!r}")) == ["--exclude", name, "b"]


@pytest.mark.parametrize("command", [("sweep",), ("transfer",)])
def test_commands_speak_of_their_options(run: Run, command: tuple[str, ...]) -> None:
    said = run(*command, "--exclude", "nope*").complaint
    assert "--exclude 'nope*' matches no parameter" in said and "exclude=" not in said
