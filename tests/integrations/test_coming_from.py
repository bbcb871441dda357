"""Rows of docs/coming-from.md, run against the packages that people come from."""

import re
from collections.abc import Sequence
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
    """The rows of a section's table with code on both sides, and an outcome."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = [tuple(line.strip("| \n").split(" | ")) for line in re.findall(r"^\|.*$", text, re.M)]
    ran = [row for row in cells if len(row) == 3]
    code = [row for row in ran if all(re.fullmatch(r"`[^`]+`", cell) for cell in row[:2])]
    assert len(code) > 2
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


class Convolutions(nn.Module):
    """Three convolutions, one of 1 x 1 kernels, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
        self.pointwise, self.head = nn.Conv2d(16, 8, 1), nn.Linear(128, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pointwise(self.conv2(self.conv1(x).relu())).flatten(1))


def convolutions() -> Convolutions:
    model = Convolutions()
    nn.functional.cross_entropy(model(IMAGES), torch.tensor([0, 1])).backward()  # for Taylor
    return model.eval()


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
WEIGHTS = ("conv1.weight", "conv2.weight", "pointwise.weight", "head.weight")
ONE_MORE = ("same, or one more in a ranking", "same, but for one more here in a ranking")


def zeros_of(model: nn.Module) -> list[Tensor]:
    return [model.get_parameter(name) == 0 for name in WEIGHTS]


def run(code: str, **names: Any) -> tuple[Convolutions, Any]:
    """The model that a line of the page prunes, and what the line returns."""
    model = convolutions()
    return model, eval(code, {"model": model, "x": IMAGES[:1], "sc": sc, "nn": nn, **names})


def units(zeros: Sequence[Tensor], ours: str) -> list[set[int]]:
    """The pruned units of each ranking of a line of this library."""
    if "kernel" in ours or "filter" in ours:
        start = 2 if "kernel" in ours else 1
        zeros = [each.flatten(start).all(-1) if each.dim() > start else each for each in zeros]
    rankings = zeros if 'scope="layer"' in ours else [torch.cat([z.flatten() for z in zeros])]
    return [set(each.flatten().nonzero().flatten().tolist()) for each in rankings]


@pytest.mark.parametrize(("theirs", "ours", "outcome"), rows("NNCF"))
def test_nncf(theirs: str, ours: str, outcome: str) -> None:
    nncf = pytest.importorskip("nncf", reason="nncf is not installed")
    pytest.importorskip("torchao", reason="torchao, which nncf.strip needs, is not installed")
    _, pruned = run(theirs, nncf=nncf)
    stripped = nncf.strip(pruned, strip_format=nncf.StripFormat.IN_PLACE)
    expected, found = units(zeros_of(stripped), ours), units(zeros_of(run(ours)[0]), ours)
    assert outcome == ONE_MORE[0] and sum(map(len, expected)) > 0
    for there, here in zip(expected, found, strict=True):
        assert len(there ^ here) <= 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("theirs", "ours", "outcome"), rows("fasterai"))
def test_fasterai(theirs: str, ours: str, outcome: str) -> None:
    sparse = pytest.importorskip("fasterai.sparse.all", reason="fasterai is not installed")
    words = ("Sparsifier", "large_final", "random")
    there_model, _ = run(theirs, **{word: getattr(sparse, word) for word in words})
    here_model, _ = run(ours)
    expected, found = units(zeros_of(there_model), ours), units(zeros_of(here_model), ours)
    assert sum(map(len, expected)) > 0
    if outcome == "same zeros":
        assert expected == found
        return
    for there, here in zip(expected, found, strict=True):
        assert len(here) - len(there) == bool(here)
        assert there < here or not here or outcome == "one more here in a ranking, other draws"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("theirs", "ours", "outcome"), rows("Torch-Pruning"))
def test_torch_pruning(theirs: str, ours: str, outcome: str) -> None:
    tp = pytest.importorskip("torch_pruning", reason="torch_pruning is not installed")
    smaller, _ = run(theirs, tp=tp)
    dense, zeroed = convolutions(), run(ours)[0]
    inputs = torch.arange(3)
    for name in WEIGHTS[:3]:
        kept = zeroed.get_parameter(name).flatten(1).any(1).nonzero().flatten()
        left = smaller.get_parameter(name)
        assert len(left) == len(kept)
        if outcome == "removed there, zero here":
            assert torch.equal(left, dense.get_parameter(name)[kept][:, inputs])
        inputs = kept


def test_the_words_of_the_other_tables_are_options_here() -> None:
    model = convolutions()
    for options in (
        {"scope": "layer"},
        {"exclude": "conv1"},
        {"score": "taylor"},
        {"score": "random", "seed": 0},
        {"score": "gradient"},
        {"granularity": "kernel", "layers": "conv2d"},
        {"granularity": "filter", "scope": "layer"},
    ):
        assert sc.sparsity(sc.global_prune(model, 0.5, **options)).zeros > 0
