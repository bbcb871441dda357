"""What the command line says about weights that do not compete, and that its advice works."""

import shlex
from pathlib import Path

import pytest
import torch
from command_line import LOADING, Outcome, Run
from safetensors.torch import load_file, save_file
from torch import nn

from secateurs.cli.coverage_text import coverage_line
from secateurs.cli.wording import in_options, warnings_as_lines
from secateurs.errors import CoverageWarning
from secateurs.parameters.coverage import Coverage, Left

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList([nn.Bilinear(64, 64, 4), nn.Bilinear(64, 64, 1)])
        self.fc = nn.Linear(64, 10)
        self.preprocess = {"img_size": 8, "crop_pct": 1.0, "mean": 0.0, "std": 1.0}

    def forward(self, x):
        x = x.flatten(1)
        return self.fc(x) + sum(table(x, x).sum() for table in self.tables)

def build():
    torch.manual_seed(0)
    return Net()
"""
LOW = "3.0% of the model's weights compete for pruning (640 of 21,135); the largest that do not: "
LARGEST = "tables.*.weight (97%, Bilinear) and 2 smaller"
ADVICE = "; to prune them write --include '*' 'tables.*.weight'"


def options_of(line: str) -> list[str]:
    return shlex.split(line.rpartition(" to prune them write ")[2])


@pytest.fixture
def sweep(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "coverage_network.py").write_text(NETWORK)
    monkeypatch.setenv("COLUMNS", "300")

    def sweep(*words: object) -> Outcome:
        arch = "coverage_network:build"
        asked = ("--data", "digits", "--limit", 20, "--p-prune", 0, 0.5, "--workers", 0)
        done = run("sweep", "--arch", arch, *asked, *words)
        assert done.code == 0, done
        return done

    return sweep


def test_a_sweep_says_what_stays_and_how_to_prune_it(sweep) -> None:
    done = sweep("--score", "magnitude", "random", "--draws", 2)
    first, *rest = LOADING.sub("", done.err).splitlines()
    assert first == f"secateurs: only {LOW}{LARGEST}{ADVICE}"
    assert not [line for line in rest if "compete" in line or "warning" in line]
    last = done.out.splitlines()[-1]
    assert last == f"97% of the weights stay: {LARGEST}{ADVICE}"

    again = sweep(*options_of(last))
    assert again.rows[1]["targets"] == 640 + 64 * 64 * 5
    assert "compete" not in again.err and "stay" not in again.out


def test_what_is_left_out_by_option_is_not_offered(sweep) -> None:
    for words in (("--exclude", "tables"), ("--include", "fc")):
        done = sweep(*words)
        assert "compete for" not in done.err and "to prune" not in done.out
        assert "3% of the weights compete" in done.out


def stored(tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, "in.safetensors")


def test_a_pruned_file_says_what_stays_and_how_to_prune_it(run: Run) -> None:
    lstm = nn.LSTM(20, 20, 2)
    tensors = {f"lstm.{name}": p.detach() for name, p in lstm.named_parameters()}
    stored({**tensors, "fc.weight": torch.randn(10, 20), "norm.running_mean": torch.ones(9999)})
    words = ("prune", "in.safetensors", "--p-prune", 1, "-o", "out.safetensors")
    done = run(*words)
    assert done.code == 0
    line = done.out.splitlines()[-1]
    assert line == (
        "97% of the weights stay: lstm.weight_hh_l* (46%), lstm.weight_ih_l* (46%), "
        "lstm.bias_hh_l* (2.3%) and 1 smaller; to prune them write "
        "--include '*' 'lstm.weight_hh_l*' 'lstm.weight_ih_l*'"
    )
    # The rest is named by size.
    assert "the others stay: norm.running_mean, lstm.weight_" in done.err
    assert line in run(*words[:-2], "--dry-run").out

    done = run(*words, *options_of(line))
    zero = {name for name, t in load_file("out.safetensors").items() if not t.any()}
    assert zero == {n for n in (*tensors, "fc.weight") if "weight" in n}
    assert "stay:" not in done.out


@pytest.mark.parametrize("words", [("--include", "fc"), ("--exclude", "embed", "lm_head")])
def test_nothing_is_said_where_it_was_asked_for(run: Run, words: tuple[str, ...]) -> None:
    stored({"embed.weight": torch.randn(90, 9), "fc.weight": torch.randn(9, 9),
            "lm_head.weight": torch.randn(9, 9)})  # fmt: skip
    done = run("prune", "in.safetensors", "--p-prune", 1, "-o", "out.safetensors", *words)
    assert done.code == 0 and "stay:" not in done.out


def test_packed_integers_of_a_file_are_counted_but_not_offered(run: Run) -> None:
    stored({"q.weight_packed": torch.ones(90, 9, dtype=torch.int32), "fc.weight": torch.ones(9, 9),
            "places": torch.ones(99, 99, dtype=torch.int64)})  # fmt: skip
    done = run("prune", "in.safetensors", "--p-prune", 1, "-o", "out.safetensors")
    assert done.out.splitlines()[-1] == (
        "91% of the weights stay: q.weight_packed (91%); q.weight_packed cannot be pruned once "
        "quantised: prune before"
    )


def test_python_is_warned_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from secateurs.checkpoint import prune_checkpoint

    monkeypatch.chdir(tmp_path)
    stored({"embed.weight": torch.randn(90, 9), "fc.weight": torch.randn(9, 9)})
    with pytest.warns(CoverageWarning, match=r"91%.*write include=\['\*', 'embed\.weight'\]") as c:
        prune_checkpoint("in.safetensors", "out.safetensors", 0.5)
    assert c[0].filename == __file__


def test_a_line_names_the_weights_that_stay_unless_they_are_few() -> None:
    left = Left("embed", 20), Left("lin", 10, "Linear", "linear")
    line = coverage_line(Coverage(70, 100, left), ["conv2d"], ["*", "x"])
    assert line == (
        "30% of the weights stay: embed (20%), lin (10%, Linear); to prune them write "
        "--layers conv2d linear --include '*' x embed"
    )
    assert coverage_line(Coverage(91, 100, (Left("bias", 9),))) == ""
    assert coverage_line(Coverage(10, 100, (), known=90)) == ""


def test_each_warning_is_a_line_and_what_competes_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import warnings

    with warnings_as_lines(in_options):
        for _ in range(2):
            warnings.warn(CoverageWarning("low", ["conv"], ["*", "a b"]), stacklevel=1)
        warnings.warn("other", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "secateurs: low; to prune them write --layers conv --include '*' 'a b'",
        "secateurs: warning: other",
    ]
