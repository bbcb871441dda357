"""What the library says in Python, said with options."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from command_line import RANDOM, Run
from safetensors.torch import save_file

from secateurs.cli.wording import as_option, in_options
from secateurs.errors import Advice, Argument, InvalidArgumentError


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        (Argument("exclude", "nope*"), "--exclude 'nope*'"),
        (Argument("exclude", ["*", "b"]), "--exclude '*' b"),
        (Argument("p_prune"), "--p-prune"),
        (Argument("p_prune", 0.5), "--p-prune 0.5"),
        (Argument("overwrite", True), "--overwrite"),
        (Argument("exclude", "-a"), "--exclude=-a"),
        (Argument("exclude", ["-a", "b"]), "--exclude=-a --exclude=b"),
        (Argument("seed", 3), "--seeds 3"),
    ],
)
def test_arguments_as_options(argument: Argument, shown: str) -> None:
    assert as_option(argument, ["--seeds"]) == shown


def test_a_command_that_has_the_option_itself_names_it() -> None:
    assert as_option(Argument("seed", 3), ["--seed", "--seeds"]) == "--seed 3"


def test_advice_for_python_is_left_out() -> None:
    error = InvalidArgumentError("wrong", Advice(" (call it)", " (--see)"))
    assert (str(error), in_options(error)) == ("wrong (call it)", "wrong (--see)")


@pytest.mark.parametrize("name", ["it's", "\"both'", "a b", "$HOME", "a\\b", "[x]", "größe"])
def test_a_shell_reads_back_what_was_meant(name: str) -> None:
    assert shlex.split(as_option(Argument("exclude", name))) == ["--exclude", name]
    assert shlex.split(as_option(Argument("exclude", [name, "b"]))) == ["--exclude", name, "b"]


PYTHON = re.compile(
    r"\b[a-z_]+=|\b(p_prune|p_bern|prune_type|img_size|num_classes|data_root|"
    r"skip_corrupt|hold_one_out|search_images)\b|\bmodel\.|\bsc\.|\bNone\b|\bTrue\b"
)
"""What has no meaning on a command line."""

PRUNE = ("prune", "in.safetensors", "-o", "out.safetensors", "--p-prune", "0.5")
DIGITS = ("--data", "digits", "--limit", "6", "--steps", "2")
NETS = ("--surrogates", "digit_nets:hidden", "digit_nets:convolved")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("sweep", "--p-prune", "50"), "--p-prune must be from 0 to 1 inclusive, got 50.0"),
        (("sweep", "--p-bern", "2"), "--p-bern must be from 0 to 1 inclusive"),
        (("sweep", "--draws", "0"), "--draws must be a whole number from 1, got 0"),
        (("sweep", "--seed", "9" * 20), "--seed must fit into 64 bits"),
        (("sweep", "--score", "magnitud"), "--score must be one of magnitude"),
        (("sweep", "--granularity", "neuron"), "got 'neuron'; did you mean filter?"),
        ((*RANDOM, "--layers", "conv2"), "--layers must be one of"),
        ((*RANDOM, "--include", "nope*"), "--include 'nope*' matches no parameter"),
        ((*RANDOM, "--exclude", "nope*"), "--exclude 'nope*' matches no parameter"),
        ((*RANDOM, "--prune-type", "gradient", "--include", "*bias"), "write --exclude"),
        ((*RANDOM, "--img-size", "0"), "--img-size must be a whole number from 1"),
        ((*RANDOM, "--crop-pct", "2"), "--crop-pct must be above 0"),
        ((*RANDOM, "--mean", "1", "2"), "--mean must be 1 or 3 numbers"),
        ((*RANDOM, "--std", "0"), "--std must be above 0"),
        ((*RANDOM, "--num-classes", "0"), "--num-classes must be a whole number from 1"),
        ((*RANDOM, "--split", "vla"), "--split"),
        ((*RANDOM, "--device", "foo"), "write --device cpu"),
        ((*RANDOM, "-o", "in.safetensors"), "give a folder as --output"),
        ((*RANDOM, "-o", "rows"), "give another --output, or --overwrite"),
        (
            ("sweep", "--arch", "digit_nets:hidden", "--data", "digits", "--weights", "random"),
            "--weights random is unknown to digit_nets:hidden",
        ),
        ((*PRUNE, "--p-bern", "0.5"), "--p-bern 0.5 draws random numbers: write --seed 0"),
        ((*PRUNE, "--score", "random"), "--score random draws random numbers: write --seed 0"),
        ((*PRUNE, "--include", "nope"), "--include nope matches no tensor"),
        ((*PRUNE, "--exclude", "fc"), "name others with --include or --layers all"),
        ((*PRUNE, "--include", "count"), "write --exclude count"),
        ((*PRUNE, "--key", "ema"), "leave --key ema out"),
        (("prune", "nan.safetensors", *PRUNE[2:]), "write --exclude fc.weight"),
        (("prune", "sets.pt", "-o", "x.pt", *PRUNE[4:]), "write --key"),
        (("transfer", *DIGITS, *NETS, "--eps", "16"), "--eps is a share of the pixel range"),
        (("transfer", *DIGITS, *NETS, "--steps", "0"), "--steps must be a whole number from 1"),
        (("transfer", *DIGITS, *NETS, "--recipe", "dpw"), "--recipe must be one of"),
        (("transfer", *DIGITS, *NETS, "--redraw", "0"), "--redraw must be"),
        (("transfer", *DIGITS, *NETS, "--seeds", "2", "2"), "give at least one seed"),
        (("transfer", *DIGITS, *NETS, "--search", "--search-images", "0"), "--search-images must"),
        (("transfer", *DIGITS, *NETS, "--search", "--search-images", "6"), "fewer --search-images"),
        (("transfer", *DIGITS, *NETS[:2], "--hold-one-out"), "--hold-one-out leaves out one"),
        (("transfer", *DIGITS, *NETS[:2]), "nothing to score: name --targets"),
        (("transfer", *DIGITS, *NETS, "--include", "nope.*"), "--include 'nope.*' matches no"),
        (("report", "nowhere"), "give the output folder of a sweep"),
    ],
    ids=lambda words: " ".join(words)[:60] if isinstance(words, tuple) else None,
)
def test_no_command_names_arguments_as_python_does(
    run: Run, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    tensors = {"fc.weight": torch.randn(8, 8), "count": torch.ones(3, dtype=torch.int64)}
    save_file(tensors, tmp_path / "in.safetensors")
    save_file({"fc.weight": torch.full((8, 8), torch.nan)}, tmp_path / "nan.safetensors")
    torch.save({"net": {"a.weight": torch.ones(4, 4)}, "ema": {"a.weight": torch.ones(4, 4)}},
               tmp_path / "sets.pt")  # fmt: skip
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "config.json").write_text("[")
    said = run(*words)
    last = said.err.splitlines()[-1]
    assert said.code in (1, 2) and complaint in last, said.err
    assert not PYTHON.search(last), last
