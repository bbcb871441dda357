"""Lightning's Trainer prunes, goes on over several calls of fit, and resumes."""

import re
import signal
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

from lightning.pytorch import callbacks  # noqa: E402
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

    def validation_step(self, batch: Any, index: int) -> None:
        del batch, index
        self.log("pruned", sc.sparsity(self).ratio)

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
    each = options.pop("saved", {"every_n_epochs": 1})
    checkpoints = ModelCheckpoint(folder / "checkpoints", save_top_k=-1, **each)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback, *options.pop("others", []), checkpoints],
        logger=CSVLogger(folder, "log"),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, batches(), batches(), ckpt_path=path)
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


@pytest.mark.parametrize("regrow", [None, GradientRegrowth(every=1, until=9)])
def test_an_epoch_is_counted_before_it_is_validated_and_saved(
    tmp_path: Path, regrow: GradientRegrowth | None
) -> None:
    def callback() -> LightningPruning:
        return LightningPruning(Cubic(0.8, end=3, every=1), unit="epoch", regrow=regrow, seed=1)

    module, first = Classifier(), callback()
    one_batch = {"limit_train_batches": 1, "saved": {"every_n_train_steps": 1}}
    trainer = fit(module, first, tmp_path, 4, **one_batch)
    assert first.pruner is not None
    assert trainer.callback_metrics["pruned"] == pytest.approx(sc.sparsity(module).ratio)
    (second,) = (tmp_path / "checkpoints").glob("*step=2.ckpt")
    again, resumed = Classifier(seed=1), callback()
    fit(again, resumed, tmp_path / "again", 4, ckpt_path=second, **one_batch)
    assert resumed.pruner is not None
    assert resumed.pruner.steps == first.pruner.steps == 4
    for one, two in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_epoch_that_is_cut_short_is_counted_when_it_is_over(tmp_path: Path) -> None:
    callback = LightningPruning(OneShot(0.5, at=1), unit="epoch")
    fit(Classifier(), callback, tmp_path, 9, max_steps=2, saved={"every_n_train_steps": 2})
    assert callback.pruner is not None
    assert callback.pruner.steps == 0
    (saved,) = (tmp_path / "checkpoints").glob("*.ckpt")
    fit(Classifier(), callback, tmp_path / "again", 9, max_steps=6, ckpt_path=saved)
    assert callback.pruner.steps == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 1}),
        ("EMAWeightAveraging", {"decay": 0.99}),
    ],
)
def test_averages_that_become_the_weights_are_pruned(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    if not hasattr(callbacks, name):
        pytest.skip(f"this version of Lightning has no {name}")
    module, callback = Classifier(), LightningPruning(Cubic(0.8, end=8, every=2))
    module.network[1] = nn.Identity()  # without BatchNorm the average is not trained any further
    for call in range(2):  # each begins an average of its own
        average = getattr(callbacks, name)(**options)
        fit(module, callback, tmp_path / str(call), 2, others=[average])
        assert callback.pruner is not None
        assert sc.sparsity(module).ratio == callback.pruner.sparsity


@pytest.mark.parametrize("error", [RuntimeError("an image"), KeyboardInterrupt()])
def test_nothing_is_held_after_an_error(tmp_path: Path, error: BaseException) -> None:
    class Fails(callbacks.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise error

    module, callback = Classifier(), LightningPruning(OneShot(0.5))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises((RuntimeError, SystemExit)):
        fit(module, callback, tmp_path, 1, others=[Fails()])
    signal.signal(signal.SIGINT, handler)  # after Ctrl-C Lightning ignores further ones
    assert sc.sparsity(module).ratio == 0.5
    sc.restore(module)
    optimizer = optim.SGD(module.parameters(), lr=0.1)
    module.training_step((images(), LABELS), 0).backward()
    optimizer.step()
    assert sc.sparsity(module).ratio == 0


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
