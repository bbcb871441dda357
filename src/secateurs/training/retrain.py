"""Train, prune and retrain in one run that a kill cannot spoil (Han et al. 2015)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from secateurs._progress import Bar
from secateurs.distributed.collectives import DistributedGroup
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks._sparsity import sparsity
from secateurs.provenance import weights_sha256
from secateurs.results import Results, RetrainRow
from secateurs.training.epochs import DivergedError, clock, score_images, train_epoch
from secateurs.training.labelled_images import TrainingImages, steps_of
from secateurs.training.pruner import Pruner
from secateurs.training.retrain_plan import RetrainPlan
from secateurs.training.run_state import load_state, load_weights, save_state, save_weights

STATE = "state.pt"
DENSE, BEST, LAST = "dense.safetensors", "best.safetensors", "last.safetensors"
MASKS = "masks.safetensors"


@dataclass(frozen=True)
class RetrainData:
    """The images of a run.

    Attributes:
        train: to train on.
        validation: choose the best epoch; never trained on, never reported as the result.
        test: scored once in the end, dense and pruned; they choose nothing.
        test_split: what the rows call them.
    """

    train: TrainingImages
    validation: TrainingImages
    test: TrainingImages | None = None
    test_split: str = "test"


@dataclass
class _Best:
    """The best epoch so far."""

    top1: float = -1.0
    epoch: int = 0


class Retraining:
    """One run: dense epochs, then epochs with masks, then scores on the test images.

    Each finished epoch is on disk before the next one begins; `run` on the same folder goes on
    behind the last of them, and gives the same rows and weights as a run that was never stopped.

    Args:
        model: on its device; changed in place.
        data: the images.
        plan: what is pruned, when, and how it is trained.
        row: what all rows of the run have in common; its other columns are ignored.
        results: the open folder, on the first rank; None on the others.
        folder: its path, the same on all ranks.
        say: told of each finished row.
        bar: counts the images that are trained on.
        process_group: a process group of torch.distributed, whose ranks train together
            (DistributedDataParallel); all of them make and run this.
    """

    def __init__(
        self,
        model: nn.Module,
        data: RetrainData,
        plan: RetrainPlan,
        *,
        row: RetrainRow,
        results: Results[RetrainRow] | None,
        folder: Path,
        say: Callable[[RetrainRow], object] = lambda _: None,
        bar: Bar | None = None,
        process_group: Any = None,
    ) -> None:
        self.model, self.data, self.plan = model, data, plan
        self.folder, self.say, self._bar = folder, say, bar or Bar()
        self._row, self._results = row, results
        self._process_group = process_group
        self.ranks, self._network = ProcessGroup(), model
        if process_group is not None:
            self.ranks = DistributedGroup(process_group, sharded=False)
            self._network = DistributedDataParallel(model, process_group=process_group)
        plan.check_ranks(self.ranks.size)

    def run(self) -> list[RetrainRow]:
        """Train, prune and retrain; or go on where that was stopped.

        Returns:
            All rows of the run, in order.

        Raises:
            DivergedError: the loss is NaN or infinite. The weights of the last good epoch are in
                the folder.
            FailureError: the disk is full; what was there is intact.
        """
        state = load_state(self.folder / STATE) or {}
        rows = [RetrainRow.from_dict(values) for values in state.get("rows", [])]
        self._publish(rows)
        if self.plan.dense.epochs:
            rows = self._phase("dense", rows, state if state.get("phase") == "dense" else {})
            self.model.load_state_dict(self._read(DENSE))
        elif not state:
            self._write(DENSE)
        rows = self._phase("retrain", rows, state if state.get("phase") == "retrain" else {})
        rows = self._scores(rows)
        self.model.load_state_dict(self._read(BEST))
        return rows

    def _phase(self, phase: str, rows: list[RetrainRow], state: dict[str, Any]) -> list[RetrainRow]:
        """The epochs of a phase that are not in ``rows`` yet."""
        done = sum(row.phase == phase for row in rows)
        settings = self.plan.settings(phase)
        self._bar.skip(done * len(self.data.train))
        if done >= settings.epochs:
            return rows
        steps = self._steps(phase)
        optimizer = settings.make_optimizer(self.model)
        pruner = self._pruner(optimizer, steps) if phase == "retrain" else None
        best = _Best(**state.get("best", {}))
        if state:
            self.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if pruner is not None:
                pruner.load_state_dict(state["pruner"])
        offset = 0 if phase == "dense" else self.plan.dense.epochs
        try:
            for number in range(done + 1, settings.epochs + 1):
                seconds = clock()
                loss = self._train(phase, number, offset + number, optimizer, pruner, steps)
                row = self._epoch_row(phase, number, loss, seconds)
                rows = [*rows, row]
                if self._counts(phase, row) and row.top1 >= best.top1:
                    best = _Best(row.top1, number)
                    with self.ranks.together():  # an error of one is one of all, and all wait
                        self._write(DENSE if phase == "dense" else BEST)
                self._save(phase, rows, best, optimizer, pruner)
                self.say(row)
        finally:
            if pruner is not None:
                pruner.remove()
        return rows

    def _pruner(self, optimizer: optim.Optimizer, steps: int) -> Pruner:
        try:
            return self.plan.make_pruner(self.model, optimizer, steps)
        except InvalidArgumentError as error:
            raise self._with_dense(error) from error

    def _with_dense(self, error: InvalidArgumentError) -> InvalidArgumentError:
        """The error, and where the dense network is, whose training is not lost."""
        dense = Argument("weights", str(self.folder / DENSE))
        return InvalidArgumentError(error, "; the trained dense network is ", dense)

    def _train(
        self, phase: str, number: int, overall: int, optimizer: Any, pruner: Any, steps: int
    ) -> float:
        settings = self.plan.settings(phase)
        try:
            loss = train_epoch(
                self._network,
                optimizer,
                self.data.train,
                settings,
                number=overall,
                seed=self.plan.seed,
                rate_at=lambda step: self.plan.rate(phase, (number - 1) * steps + step, steps),
                after_step=pruner.step if pruner is not None else lambda: None,
                ranks=self.ranks,
                advance=self._bar.advance,
            )
        except DivergedError as error:
            last = self.folder / LAST
            kept = f"; the weights of the epoch before are in {last}" if last.exists() else ""
            raise DivergedError(f"{phase} epoch {number}: {error}{kept}") from None
        except InvalidArgumentError as error:
            raise self._with_dense(error) from error
        if self._process_group is not None:  # each rank has seen other images last
            first = dist.get_global_rank(self._process_group, 0)
            for buffer in self.model.buffers():
                dist.broadcast(buffer, first, group=self._process_group)
        return loss

    def _counts(self, phase: str, row: RetrainRow) -> bool:
        """Whether an epoch may be the best one: those before the last pruning are not sparse."""
        return phase == "dense" or self.plan.is_final(row.epoch, self._steps(phase))

    def _steps(self, phase: str) -> int:
        size = self.plan.settings(phase).batch_size
        return steps_of(self.data.train, size, self.ranks.size)

    def _epoch_row(
        self, phase: str, number: int, train_loss: float, seconds: Callable[[], float]
    ) -> RetrainRow:
        found = score_images(
            self.model, self.data.validation, amp=self.plan.settings(phase).amp, ranks=self.ranks
        )
        return self._row_of(
            phase, number, "validation", found, train_loss=train_loss, duration=seconds()
        )

    def _row_of(
        self, phase: str, number: int, split: str, found: Any, **columns: Any
    ) -> RetrainRow:
        options = self.plan.options
        counted = sparsity(
            self.model, layers=options.layers, include=options.include, exclude=options.exclude
        )
        settings = self.plan.settings("dense" if phase.endswith("dense") else "retrain")
        return replace(
            self._row,
            optimizer=settings.described,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            augment=settings.augment,
            train_batch_size=settings.batch_size,
            amp=settings.amp,
            phase=phase,
            epoch=number,
            split=split,
            count=found.count,
            correct=found.correct,
            top1=found.top1,
            loss=found.loss,
            train_count=len(self.data.train),
            achieved=counted.ratio,
            kept=counted.total - counted.zeros,
            prunable=counted.total,
            ranks=self.ranks.size,
            weights_sha256=weights_sha256(self.model),
            **columns,
        )

    def _scores(self, rows: list[RetrainRow]) -> list[RetrainRow]:
        """The test images, once, with the dense network and with the best pruned one."""
        if self.data.test is None or any(row.phase == "test pruned" for row in rows):
            return rows
        amp = self.plan.retraining.amp
        for phase, name in (("test dense", DENSE), ("test pruned", BEST)):
            self.model.load_state_dict(self._read(name))
            seconds = clock()
            found = score_images(self.model, self.data.test, amp=amp, ranks=self.ranks)
            columns = {"train_loss": float("nan"), "duration": seconds()}
            epoch = self._best_epoch("dense" if name == DENSE else "retrain", rows)
            row = self._row_of(phase, epoch, self.data.test_split, found, **columns)
            rows = [*rows, row]
            self.say(row)
        with self.ranks.together():
            if self.ranks.rank == 0:
                state = load_state(self.folder / STATE) or {}
                state["rows"] = [row.as_dict() for row in rows]
                save_state(self.folder / STATE, state)
            self._publish(rows)
        return rows

    def _best_epoch(self, phase: str, rows: list[RetrainRow]) -> int:
        """The last of those with the highest accuracy; 0 where there was none."""
        found = [row for row in rows if row.phase == phase and self._counts(phase, row)]
        return max(((row.top1, row.epoch) for row in found), default=(0.0, 0))[1]

    def _save(
        self, phase: str, rows: list[RetrainRow], best: _Best, optimizer: Any, pruner: Any
    ) -> None:
        """Bring a finished epoch to disk: weights, then the state that counts it, then its row."""
        state: dict[str, Any] = {
            "phase": phase,
            "rows": [row.as_dict() for row in rows],
            "best": {"top1": best.top1, "epoch": best.epoch},
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "pruner": None if pruner is None else pruner.state_dict(),
        }
        with self.ranks.together():
            self._write(LAST)
            if self.ranks.rank == 0:
                save_state(self.folder / STATE, state)
            self._publish(rows)

    def _publish(self, rows: list[RetrainRow]) -> None:
        if self._results is not None and rows:
            self._results.add_all(rows)

    def _write(self, name: str) -> None:
        """The weights as anybody can load them."""
        if self.ranks.rank == 0:
            save_weights(self.folder / name, self.model)

    def _read(self, name: str) -> dict[str, Tensor]:
        return load_weights(self.folder / name)
