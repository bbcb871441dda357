"""transformers' Trainer prunes, saves masks with its checkpoints, and resumes from them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import LABELS, images, network

import secateurs as sc
from secateurs.training import Cubic, GradientRegrowth, MagnitudeRegrowth, OneShot

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from secateurs.training import TrainerPruning  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(nn.Module):
    def __init__(self, seed: int = 0):
        super().__init__()
        self.network = network(seed)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Logger(TrainerCallback):
    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def on_log(self, *args: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        self.found.append(dict(logs))


def trainer_of(model: nn.Module, folder: Path, **options: Any) -> Trainer:
    callbacks = options.pop("callbacks", None)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
        learning_rate=0.01,
        **{"max_steps": 6, "save_steps": 2, **options},
    )
    data = [{"x": x, "labels": y} for x, y in zip(images(), LABELS, strict=True)]
    return Trainer(model, arguments, train_dataset=data, callbacks=callbacks)


@pytest.mark.parametrize("regrow", [None, MagnitudeRegrowth()], ids=["none", "surgery"])
def test_a_resumed_training_is_the_same_bit_for_bit(
    tmp_path: Path, regrow: MagnitudeRegrowth | None
) -> None:
    def pruning() -> TrainerPruning:
        return TrainerPruning(Cubic(0.8, end=5, every=1), regrow=regrow)

    model, callback = Classifier(), pruning()
    trainer = trainer_of(model, tmp_path, callbacks=[callback])
    trainer.train()
    assert callback.pruner is not None
    assert callback.pruner.steps == 6
    assert sc.sparsity(model).ratio == pytest.approx(0.8, abs=2e-3)
    logged = [entry["sparsity"] for entry in trainer.state.log_history]
    assert logged == sorted(logged)
    assert logged[-1] == callback.pruner.sparsity

    again, resumed = Classifier(seed=1), pruning()
    trainer_of(again, tmp_path, callbacks=[resumed]).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert resumed.pruner is not None
    assert resumed.pruner.masks == callback.pruner.masks


@pytest.mark.parametrize("regrow", [None, GradientRegrowth(every=1, until=9)])
def test_an_epoch_is_counted_before_it_is_saved(
    tmp_path: Path, regrow: GradientRegrowth | None
) -> None:
    def trained(seed: int, **resumed: Any) -> tuple[nn.Module, TrainerPruning]:
        pruning = TrainerPruning(Cubic(0.8, end=3, every=1), unit="epoch", regrow=regrow, seed=1)
        model = Classifier(seed)
        options: dict[str, Any] = {"max_steps": -1, "num_train_epochs": 4}
        trainer_of(model, tmp_path, callbacks=[pruning], **options).train(**resumed)
        return model, pruning

    model, pruning = trained(0)  # three steps an epoch; saved after steps 2, 4, 6, ...
    again, resumed = trained(1, resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert pruning.pruner is not None
    assert resumed.pruner is not None
    assert resumed.pruner.steps == pruning.pruner.steps == 4
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_masks_come_from_the_checkpoint_given_not_from_another_run(tmp_path: Path) -> None:
    def trained(run: str, seed: int, given: Path | None = None, **options: Any) -> TrainerPruning:
        pruning = TrainerPruning(OneShot(0.5))
        trainer_of(Classifier(seed), tmp_path / run, callbacks=[pruning], **options).train(
            resume_from_checkpoint=None if given is None else str(given)
        )
        return pruning

    one, two = trained("one", 0, max_steps=2), trained("two", 1, max_steps=4)
    assert one.pruner is not None
    assert two.pruner is not None
    assert one.pruner.masks != two.pruner.masks
    path = tmp_path / "one" / "checkpoint-2"
    resumed = trained("two", 2, path, resume_from_checkpoint=str(path), max_steps=3)
    assert resumed.pruner is not None
    assert resumed.pruner.masks == one.pruner.masks
    # An argument of another step is not what the training goes on from.
    four = tmp_path / "two" / "checkpoint-4"
    resumed = trained("two", 2, four, resume_from_checkpoint=str(path))
    assert resumed.pruner is not None
    assert resumed.pruner.masks == two.pruner.masks


def test_added_first_it_is_seen_by_every_logger(tmp_path: Path) -> None:
    logger, pruning = Logger(), TrainerPruning(OneShot(0.5, at=1), unit="epoch")
    options = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "no"}
    model = Classifier()
    trainer = trainer_of(
        model, tmp_path, callbacks=[logger], gradient_accumulation_steps=3, **options
    )
    pruning.add_to(trainer)
    trainer.train()
    assert pruning.pruner is not None
    assert pruning.pruner.steps == 2
    assert [entry["sparsity"] for entry in logger.found][-1] == 0.5
    trainer.train()  # goes on with the optimizer of this call
    assert pruning.pruner.steps == 4
    assert sc.sparsity(model).ratio == 0.5


def test_masks_that_are_not_found_are_asked_for(tmp_path: Path) -> None:
    trainer_of(Classifier(), tmp_path / "one", max_steps=2).train()
    trainer = trainer_of(Classifier(), tmp_path, callbacks=[TrainerPruning(OneShot(0.5))])
    path = tmp_path / "one" / "checkpoint-2"
    with pytest.raises(sc.FailureError, match=re.escape("goes on at step 2, but there is no")):
        trainer.train(resume_from_checkpoint=str(path))
