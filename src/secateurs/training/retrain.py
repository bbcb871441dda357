"""Train, prune and retrain in one run, which goes on after a kill (Han et al. 2015)."""

import copy
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from secateurs._progress import Bar
from secateurs.distributed.collectives import DistributedGroup
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.outputs import use_channels_last
from secateurs.results import Results, RetrainRow
from secateurs.training.epochs import (
    DivergedError,
    ImageScore,
    leave_gradients,
    score_images,
    train_epoch,
)
from secateurs.training.knowledge_distillation import KnowledgeDistillation, cross_entropy
from secateurs.training.labelled_images import TrainingImages, steps_of
from secateurs.training.measured_columns import measured_columns
from secateurs.training.retrain_plan import RetrainPlan
from secateurs.training.run_state import (
    TrainingPhase,
    check_saveable,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from secateurs.training.settings import TrainingSettings

STATE = "state.pt"
DENSE, BEST, LAST = "dense.safetensors", "best.safetensors", "last.safetensors"
MASKS = "masks.safetensors"


@dataclass(frozen=True)
class RetrainData:
    """The images of a run.

    Attributes:
        train: to train on.
        validation: they choose the best epoch; not trained on, and not reported as the result.
        test: scored once in the end, by the dense and the pruned network; they choose nothing.
        test_split: their name in the rows.
    """

    train: TrainingImages
    validation: TrainingImages
    test: TrainingImages | None = None
    test_split: str = "test"


class Retraining:
    """One run: dense epochs, then epochs with masks, then scores on the test images.

    Each finished epoch is on disk before the next one begins. `run` on the same folder goes on
    after the last of them, and gives the same rows and weights as a run that was never stopped.

    Args:
        model: on its device; changed in place, on a CPU its memory format too.
        data: the images.
        plan: the settings.
        columns: the columns that all rows of the run have in common.
        results: the open folder on the first rank, None on the others.
        folder: its path, the same on all ranks.
        say: called with each finished row.
        bar: counts the images that are trained on.
        process_group: a process group of torch.distributed whose ranks train together
            (DistributedDataParallel); all of them make this object and call `run`.
    """

    def __init__(
        self,
        model: nn.Module,
        data: RetrainData,
        plan: RetrainPlan,
        *,
        columns: Mapping[str, Any],
        results: Results[RetrainRow] | None,
        folder: Path,
        say: Callable[[RetrainRow], object] = lambda _: None,
        bar: Bar | None = None,
        process_group: Any = None,
    ) -> None:
        self.model, self.data, self.plan = model, data, plan
        self.folder, self.say, self._bar = folder, say, bar or Bar()
        self._columns, self._results = columns, results
        self._process_group = process_group
        self.ranks, self._network = ProcessGroup(), model
        check_saveable(model)
        use_channels_last(model, data.train.first())
        if process_group is not None:
            self.ranks = DistributedGroup(process_group, sharded=False)
            self._network = DistributedDataParallel(model, process_group=process_group)
        plan.check_ranks(self.ranks.size)

    def run(self) -> list[RetrainRow]:
        """Train, prune and retrain, or go on after the last finished epoch.

        Returns:
            All rows of the run, in order.

        Raises:
            DivergedError: the loss is NaN or infinite. The weights of the epoch before are in the
                folder.
            FailureError: the disk is full; the folder's files are intact.
        """
        state = load_state(self.folder / STATE) or {}
        rows = [RetrainRow.from_dict(values) for values in state.get("rows", [])]
        self._publish(rows)
        self.plan.check_model(self.model)  # before it is trained in vain
        if self.plan.dense.epochs:
            rows = self._train("dense", rows, state)
            self.model.load_state_dict(load_weights(self.folder / DENSE))
        elif not state:
            with self.ranks.together():  # all wait, and an error on one rank is one on all
                self._write(DENSE)
        rows = self._score_tests(self._train("retrain", rows, state))
        self.model.load_state_dict(load_weights(self.folder / BEST))
        return rows

    def _train(self, name: str, rows: list[RetrainRow], state: dict[str, Any]) -> list[RetrainRow]:
        """Train for the epochs of a phase that are not in ``rows`` yet, from a saved state."""
        done = sum(row.phase == name for row in rows)
        self._bar.skip(done * len(self.data.train))
        epochs = self.plan.settings(name).epochs
        if done >= epochs:
            return rows
        with self._naming_dense(name):
            phase = self._phase(name)
        try:
            if state.get("phase") == name:
                self.model.load_state_dict(state["model"])
                phase.load(state)
            for number in range(done + 1, epochs + 1):
                began = time.perf_counter()
                with self._naming_dense(name):
                    loss, found = self._epoch(phase, number)
                row = self._row(name, number, "validation", found, loss, began)
                rows = [*rows, row]
                self._save(phase, rows, is_best=self._best_epoch(name, rows) == number)
                self.say(row)
        finally:
            phase.end()
        return rows

    def _phase(self, name: str) -> TrainingPhase:
        settings = self.plan.settings(name)
        optimizer = settings.make_optimizer(self.model)
        phase = TrainingPhase(name, cross_entropy, optimizer, None)
        if name == "dense":
            return phase
        if self.plan.distill:
            dense = copy.deepcopy(self.model)
            dense.load_state_dict(load_weights(self.folder / DENSE))
            loss = KnowledgeDistillation(dense, self.plan.distill, self.plan.temperature)
            phase = replace(phase, objective=loss)
        if self.plan.options.criterion.needs_gradients:
            leave_gradients(self._network, self.data.train, settings)
        pruner = self.plan.make_pruner(self.model, optimizer, self._steps(name))
        return replace(phase, pruner=pruner)

    def _epoch(self, phase: TrainingPhase, number: int) -> tuple[float, ImageScore]:
        """Train for an epoch; returns its mean loss and the score on the validation images."""
        settings, steps = self.plan.settings(phase.name), self._steps(phase.name)
        first = 0 if phase.name == "dense" else self.plan.dense.epochs
        begin = (number - 1) * steps
        try:
            loss = train_epoch(
                self._network,
                phase.optimizer,
                self.data.train,
                settings,
                phase.objective,
                number=first + number,
                seed=self.plan.seed,
                rate_at=lambda step: self.plan.rate(phase.name, begin + step, steps),
                after_step=phase.after_step,
                ranks=self.ranks,
                advance=self._bar.advance,
            )
            self._share_buffers()
            found = self._scored(self.data.validation, settings)
            if not math.isfinite(found.loss):
                raise DivergedError(
                    "the loss on the validation images is NaN or infinite after step "
                    f"{steps} of {steps} of the epoch: lower the learning rate, or "
                    "look for wrong images"
                )
        except DivergedError as error:
            last = self.folder / LAST
            kept = f"; the weights of the epoch before are in {last}" if last.exists() else ""
            distilled = phase.name == "retrain" and self.plan.distill
            lower = "; distillation needs a lower one than labels alone" if distilled else ""
            raise DivergedError(f"{phase.name} epoch {number}: {error}{lower}{kept}") from None
        return loss, found

    def _share_buffers(self) -> None:
        """Give all ranks the buffers of the first, since each rank trained on other images."""
        if self._process_group is not None:
            first = dist.get_global_rank(self._process_group, 0)
            for buffer in self.model.buffers():
                dist.broadcast(buffer, first, group=self._process_group)

    @contextmanager
    def _naming_dense(self, phase: str) -> Generator[None]:
        """Name the dense network in errors after its training, so that nobody trains it again."""
        try:
            yield
        except InvalidArgumentError as error:
            if phase == "dense" or not self.plan.dense.epochs:
                raise
            dense = Argument("weights", str(self.folder / DENSE))
            raise InvalidArgumentError(error, "; the trained dense network is ", dense) from error

    def _steps(self, phase: str) -> int:
        size = self.plan.settings(phase).batch_size
        return steps_of(self.data.train, size, self.ranks.size)

    def _scored(self, images: TrainingImages, settings: TrainingSettings) -> ImageScore:
        return score_images(self.model, images, amp=settings.amp, ranks=self.ranks)

    def _row(
        self, phase: str, number: int, split: str, found: ImageScore, loss: float, began: float
    ) -> RetrainRow:
        return RetrainRow(
            duration=time.perf_counter() - began, **self._columns,
            **measured_columns(phase, self.model, self.plan, found),
            phase=phase, epoch=number, split=split, train_loss=loss,
            train_count=len(self.data.train), ranks=self.ranks.size,
        )  # fmt: skip

    def _score_tests(self, rows: list[RetrainRow]) -> list[RetrainRow]:
        """Score the test images, once, with the dense network and with the best pruned one."""
        if self.data.test is None or any(row.phase == "test pruned" for row in rows):
            return rows
        for phase, trained_in, name in (
            ("test dense", "dense", DENSE), ("test pruned", "retrain", BEST)
        ):  # fmt: skip
            self.model.load_state_dict(load_weights(self.folder / name))
            began = time.perf_counter()
            found = self._scored(self.data.test, self.plan.retraining)
            epoch = self._best_epoch(trained_in, rows)
            row = self._row(phase, epoch, self.data.test_split, found, math.nan, began)
            rows = [*rows, row]
            self.say(row)
        with self.ranks.together():
            if self.ranks.rank == 0:
                state = load_state(self.folder / STATE) or {}
                save_state(self.folder / STATE, state | {"rows": [row.as_dict() for row in rows]})
            self._publish(rows)
        return rows

    def _best_epoch(self, phase: str, rows: list[RetrainRow]) -> int:
        """The last of the epochs with the highest accuracy; 0 if there is none.

        Epochs before the last pruning do not count, since fewer weights are pruned then.
        """
        steps = self._steps(phase)
        found = [
            (row.top1, row.epoch)
            for row in rows
            if row.phase == phase and (phase == "dense" or self.plan.is_final(row.epoch, steps))
        ]
        return max(found, default=(0.0, 0))[1]

    def _save(self, phase: TrainingPhase, rows: list[RetrainRow], *, is_best: bool) -> None:
        """Write a finished epoch to disk: weights, then the state that counts it, then its row."""
        state = phase.state() | {
            "rows": [row.as_dict() for row in rows],
            "model": self.model.state_dict(),
        }
        with self.ranks.together():  # all wait, and an error on one rank is one on all
            if is_best:
                self._write(DENSE if phase.name == "dense" else BEST)
            self._write(LAST)
            if self.ranks.rank == 0:
                save_state(self.folder / STATE, state)
            self._publish(rows)

    def _publish(self, rows: list[RetrainRow]) -> None:
        if self._results is not None and rows:
            self._results.add_all(rows)

    def _write(self, name: str) -> None:
        if self.ranks.rank == 0:
            save_weights(self.folder / name, self.model)
