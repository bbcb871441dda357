"""Rows of docs/coming-from.md, run against the packages that people come from."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

import secateurs as sc
from secateurs.training import Iterative, OneShot

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from.md"
INPUTS, LABELS = (
    torch.randn(16, 8, generator=torch.Generator().manual_seed(0)),
    torch.arange(16) % 4,
)


def rows(section: str) -> list[tuple[str, ...]]:
    """The cells of a section's table whose first two are code."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = [tuple(line.strip("| \n").split(" | ")) for line in re.findall(r"^\|.*$", text, re.M)]
    code = [row for row in cells if all(re.fullmatch(r"`[^`]+`", cell) for cell in row[:2])]
    assert len(code) > 3
    return [(row[0].strip("`"), row[1].strip("`"), *row[2:]) for row in code]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).relu())


def zeros_after(code: str) -> list[Tensor]:
    """Which weights are zero after a line of the page."""
    model = Net()
    scores = torch.rand(16, 8, generator=torch.Generator().manual_seed(1))
    names = {"model": model, "layer": model.layer, "head": model.head, "prune": prune, "sc": sc}
    eval(code, names | {"scores": scores, "mask": (scores > 0.5).float()})
    return [model.layer.weight == 0, model.head.weight == 0]


@pytest.mark.parametrize(("theirs", "ours", "outcome"), rows("torch.nn.utils.prune"))
def test_torch_prune(theirs: str, ours: str, outcome: str) -> None:
    expected, found = zeros_after(theirs), zeros_after(ours)
    assert sum(map(torch.sum, expected)) > 0
    if outcome == "same zeros":
        assert all(map(torch.equal, found, expected))
    else:
        assert outcome == "as many, other draws"
        assert [int(zero.sum()) for zero in found] == [int(zero.sum()) for zero in expected]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("theirs", "ours", "outcome"), rows("Lightning's ModelPruning"))
def test_lightning(theirs: str, ours: str, outcome: str) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.callbacks import ModelPruning

    from secateurs.training import LightningPruning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    names = {"ModelPruning": ModelPruning, "LightningPruning": LightningPruning}
    for code in (theirs, ours):
        module = Module()
        callback = eval(code, names | {"OneShot": OneShot, "Iterative": Iterative})
        options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            callbacks=[callback],
            enable_progress_bar=False,
            **options,
        )
        trainer.fit(module, DataLoader(TensorDataset(INPUTS, LABELS), batch_size=8))
        assert f"{sc.sparsity(module).ratio:.0%}" == outcome


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def assert_same_zeros(theirs: nn.Module, ours: nn.Module) -> None:
    for name in ("0.weight", "2.weight"):
        expected = theirs.get_parameter(name) == 0
        assert torch.equal(ours.get_parameter(name) == 0, expected)


def test_nncf() -> None:
    nncf = pytest.importorskip("nncf", reason="nncf is not installed")
    pruned = nncf.prune(
        convolutions(),
        mode=nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL,
        ratio=0.7,
        examples_inputs=torch.randn(1, 3, 8, 8),
    )
    stripped = nncf.strip(pruned, strip_format=nncf.StripFormat.IN_PLACE)
    assert_same_zeros(stripped, sc.global_prune(convolutions(), 0.7))


def test_fasterai() -> None:
    sparse = pytest.importorskip("fasterai.sparse.all", reason="fasterai is not installed")
    theirs = convolutions()
    sparse.Sparsifier(theirs, "weight", "global", sparse.large_final).sparsify_model(50)
    assert_same_zeros(theirs, sc.global_prune(convolutions(), 0.5, layers="conv2d"))


def test_torch_pruning_removes_what_is_zero_here() -> None:
    tp = pytest.importorskip("torch_pruning", reason="torch_pruning is not installed")
    theirs, x = convolutions(), torch.randn(1, 3, 8, 8)
    importance = tp.importance.MagnitudeImportance(p=1)
    pruner = tp.pruner.MagnitudePruner(
        theirs, x, importance=importance, pruning_ratio=0.5, ignored_layers=[theirs[2]]
    )
    pruner.step()
    ours = sc.global_prune(convolutions()[0], 0.5, granularity="filter")
    kept = (ours.weight != 0).flatten(1).any(1)
    assert theirs[0].out_channels == int(kept.sum())


def test_the_words_of_the_other_tables_are_options_here() -> None:
    model = convolutions()
    nn.functional.cross_entropy(
        model(torch.randn(2, 3, 8, 8)).mean((2, 3)), torch.tensor([0, 1])
    ).backward()
    for options in (
        {"scope": "layer"},
        {"exclude": "0"},
        {"score": "taylor"},
        {"score": "random", "seed": 0},
        {"score": "gradient"},
        {"granularity": "kernel", "layers": "conv2d"},
        {"granularity": "filter", "scope": "layer"},
    ):
        assert sc.sparsity(sc.global_prune(model, 0.5, **options)).zeros > 0
