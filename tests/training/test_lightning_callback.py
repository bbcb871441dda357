"""Lightning's Trainer prunes, goes on over several calls of fit, and resumes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset
from training_cases import LABELS, assert_held, images, network

import secateurs as sc
from secateurs.training import Cubic, GradientRegrowth, Iterative, OneShot

lightning = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from secateurs.training import LightningPruning  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(lightning.LightningModule):
    def __init__(self, seed: int = 0):
        super().__init__()
        self.network = network(seed)

    def training_step(self, batch: Any, index: int) -> Tensor:
        x, y = batch
        return nn.functional.cross_entropy(self.network(x), y)

    def test_step(self, batch: Any, index: int) -> None:
        del batch, index

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def batches() -> DataLoader:
    return DataLoader(TensorDataset(images(), LABELS), batch_size=2)


def fit(
    module: Classifier, callback: LightningPruning, folder: Path, epochs: int, **options: Any
) -> Any:
    path = options.pop("ckpt_path", None)
    checkpoints = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, every_n_epochs=1)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback, checkpoints],
        logger=CSVLogger(folder, "log"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, batches(), ckpt_path=path)
    return trainer


def test_three_calls_of_fit_and_a_resume(tmp_path: Path) -> None:
    schedule = Iterative(0.8, rounds=3, every=2)  # steps 2, 4, 6; three steps an epoch
    module, callback = Classifier(), LightningPruning(schedule, seed=1, score="random")
    found: list[float] = []
    for call in range(3):
        trainer = fit(module, callback, tmp_path / str(call), 1)
        assert callback.pruner is not None
        assert callback.pruner.steps == 3 * (call + 1)
        assert_held(module, trainer.optimizers[0], callback.pruner.masks)
        found.append(sc.sparsity(module).ratio)
    assert found == sorted(found)
    assert found[0] > 0.3
    assert found[-1] == pytest.approx(0.8, abs=2e-3)
    log = (tmp_path / "2" / "log" / "version_0" / "metrics.csv").read_text()
    assert "sparsity" in log.splitlines()[0]
    assert str(found[-1])[:6] in log


def test_a_resumed_fit_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    def callback() -> LightningPruning:
        regrow = GradientRegrowth(every=2, until=8)
        return LightningPruning(Cubic(0.7, end=6, every=2), regrow=regrow, seed=1)

    module = Classifier()
    fit(module, callback(), tmp_path, 3)
    saved = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    assert len(saved) == 3
    again, resumed = Classifier(seed=1), callback()
    fit(again, resumed, tmp_path / "again", 3, ckpt_path=saved[0])
    assert resumed.pruner is not None
    assert resumed.pruner.steps == 9
    for one, two in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    copy = Classifier(seed=3)  # a callback that has another module goes on with this one's state
    fit(copy, resumed, tmp_path / "copy", 3, ckpt_path=saved[0])
    assert resumed.pruner.steps == 9
    for one, two in zip(again.parameters(), copy.parameters(), strict=True):
        assert torch.equal(one, two)
    plain = Classifier(seed=2)  # the weights load into a model that knows nothing of pruning
    plain.load_state_dict(torch.load(saved[2], weights_only=False)["state_dict"])
    assert sc.sparsity(plain) == sc.sparsity(module)


def test_epochs_and_steps_that_accumulate_batches_are_counted(tmp_path: Path) -> None:
    module = Classifier()
    callback = LightningPruning(OneShot(0.5, at=2), unit="epoch")
    fit(module, callback, tmp_path, 2, accumulate_grad_batches=3)
    assert callback.pruner is not None
    assert callback.pruner.steps == 2
    assert sc.sparsity(module).ratio == 0.5
    callback = LightningPruning(OneShot(0.6, at=2))
    fit(Classifier(), callback, tmp_path / "again", 2, accumulate_grad_batches=3)
    assert callback.pruner is not None
    assert callback.pruner.steps == 2


def test_the_checkpoint_of_a_tested_module_is_not_for_the_trained_one(tmp_path: Path) -> None:
    module, callback = Classifier(), LightningPruning(Cubic(0.8, end=9, every=1))
    trainer = fit(module, callback, tmp_path, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    (first, _) = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    other = Classifier(seed=1)
    trainer.test(other, batches(), ckpt_path=first, verbose=False)
    assert callback.state_dict()["steps"] == 3  # what a checkpoint of the other would have
    assert callback.pruner is not None
    assert callback.pruner.steps == 6
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    fit(module, callback, tmp_path / "again", 1)
    assert callback.pruner.steps == 9
    fit(other, callback, tmp_path / "other", 1)
    assert callback.pruner.steps == 6


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(sc.InvalidArgumentError, match=re.escape("unit must be one of step, epoch")):
        LightningPruning(OneShot(0.5), unit="batch")  # type: ignore[arg-type]
