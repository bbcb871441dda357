"""The stages of ``secateurs repair``: dense, pruned, and one for each pass of the repair."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from secateurs._console import say
from secateurs._io.durable import replace_files
from secateurs._io.text import counted
from secateurs._progress import progress_bar
from secateurs.cli.loading import watched
from secateurs.evaluation import Tally, accuracy
from secateurs.masks._sparsity import sparsity
from secateurs.masks.mask import Masks
from secateurs.provenance import weights_sha256
from secateurs.pruning import apply_masks
from secateurs.repair.pipeline import repair
from secateurs.repair.repair_options import RepairOptions
from secateurs.repair.repair_report import StepReport
from secateurs.repair.repaired_values import put_repaired_values, repaired_values
from secateurs.results import RepairRow, Results
from secateurs.training.mask_state import masks_from_zeros
from secateurs.training.run_state import save_weights

MASKS = "masks.safetensors"
DENSE, PRUNED = 0, 1  # the first stages
_STAGE, _STATE = "stage-{}.safetensors", "pass-{}.pt"


@dataclass
class RepairRun:
    """A repair that goes on where an earlier one was interrupted.

    Attributes:
        model: the network, dense.
        images: the calibration images.
        passes: the steps of each pass of the repair.
        options: how they work.
        choose: chooses the masks.
        counted: the keyword arguments of `secateurs.sparsity` that say which weights compete.
        scored: a loader of labelled images, None for none.
        columns: those that all rows share.
        results: the folder of the run.
        output: where the repaired weights go.
        tell: called with the row of each finished stage.
    """

    model: nn.Module
    images: Tensor
    passes: Sequence[tuple[str, ...]]
    options: RepairOptions
    choose: Callable[[], Masks]
    counted: dict[str, Any]
    scored: Any
    columns: Mapping[str, Any]
    results: Results[RepairRow]
    output: Path
    tell: Callable[[RepairRow], None]

    def run(self) -> list[RepairRow]:
        """Go through the stages that are left, and write the weights; the model is repaired then.

        What a run of the same options goes on from stays in the folder: `clear_stages` removes it.

        Returns:
            The rows of all stages, in order.
        """
        done = self._done({row.stage for row in self.results.rows()})
        before: list[RepairRow] = []
        if done:
            self._resume(done)
        else:
            before = self._begin()
        for number, group in enumerate(self.passes, start=PRUNED + 1):
            if number <= done:
                continue
            report = self._repair(number, group)
            for row in before:  # only now, so that a first step that fails leaves nothing behind
                self._add(row, report, 0)
            before = []
            replace_files({self._path(number): save(repaired_values(self.model))})
            self._add(self._measured(number, ";".join(group), report.seconds), report, 1)
            self._path(number - 1).unlink(missing_ok=True)
            self._state(number).unlink(missing_ok=True)
        if any(map(_changes_masks, self.passes)):
            masks_from_zeros(self.model).save(self.results.folder / MASKS)
        save_weights(self.output, self.model)
        return sorted(self.results.rows(), key=lambda row: row.stage)

    def _begin(self) -> list[RepairRow]:
        """Score the dense network, prune it, and score it again; returns both rows."""
        dense = self._measured(DENSE, "dense", 0.0)
        start = time.perf_counter()
        self._masks = self.choose()
        apply_masks(self.model, self._masks)
        return [dense, self._measured(PRUNED, "pruned", time.perf_counter() - start)]

    def _resume(self, done: int) -> None:
        """Give the model the masks and the values that an earlier run has saved."""
        masks, values = Masks.load(self.results.folder / MASKS), load_file(self._path(done))
        if any(map(_changes_masks, self.passes[: done - PRUNED])):
            masks = Masks.from_tensors({name: values[name] != 0 for name in masks})
        apply_masks(self.model, masks)
        put_repaired_values(self.model, values)

    @property
    def is_finished(self) -> bool:
        """Whether an earlier run has written all that it writes."""
        last = len(self.passes) + PRUNED
        made = {row.stage for row in self.results.rows()} == set(range(last + 1))
        return made and self.output.exists() and not self._path(last).exists()

    def _done(self, stages: set[int]) -> int:
        """The last stage whose row and values are there; 0 for none."""
        for number in range(len(self.passes) + PRUNED, PRUNED, -1):
            if number in stages and self._path(number).is_file():
                return number
        return 0

    def _repair(self, number: int, group: Sequence[str]) -> StepReport:
        say(f"{', '.join(group)}: {counted(len(self.images), 'image')} ...")  # it may take minutes
        options = replace(self.options, state=self._state(number))
        (report,) = repair(self.model, self.images, group, **vars(options))
        return report

    def _add(self, row: RepairRow, report: StepReport, after: int) -> None:
        """Put a row on disk, with the loss from before a step (0) or after it (1)."""
        if row.stage == PRUNED:
            self._masks.save(self.results.folder / MASKS)
        if row.stage != DENSE:
            agreement = 100 * report.agreement[after]
            row = replace(row, loss=report.loss[after], agreement=agreement)
        self.results.add(row)
        self.tell(row)

    def _measured(self, stage: int, steps: str, seconds: float) -> RepairRow:
        """The row of the model as it is now."""
        tally = self._score(steps)
        counted = sparsity(self.model, **self.counted)
        return RepairRow(
            **self.columns,
            stage=stage,
            steps=steps,
            loss=0.0,
            agreement=100.0,
            count=tally.count,
            top1=tally.top1 if tally.count else None,
            correct=tally.correct1 if tally.count else None,
            achieved=counted.ratio,
            kept=counted.total - counted.zeros,
            prunable=counted.total,
            duration=round(seconds, 3),
            result_sha256=weights_sha256(self.model),
        )

    def _score(self, steps: str) -> Tally:
        if self.scored is None:
            return Tally()
        with progress_bar(f"Scoring ({steps})", len(self.scored.dataset)) as bar:
            return accuracy(self.model, watched(self.scored, bar))

    def _path(self, stage: int) -> Path:
        """Where the values of a stage are kept until the run ends."""
        return self.results.folder / _STAGE.format(stage)

    def _state(self, stage: int) -> Path:
        """The state of an unfinished pass, from which an interrupted run goes on."""
        return self.results.folder / _STATE.format(stage)


def _changes_masks(steps: Sequence[str]) -> bool:
    return "sparsegpt" in steps


def clear(folder: Path) -> None:
    """Remove what another run left in a folder."""
    (folder / MASKS).unlink(missing_ok=True)
    clear_stages(folder)


def clear_stages(folder: Path) -> None:
    """Remove what only an interrupted run needs: the values of stages, and unfinished passes.

    A killed run may have left those of any stage, so all go, those of the last stage at the end.
    """
    stages = sorted(folder.glob(_STAGE.format("*")), key=lambda path: int(path.stem[6:]))
    for path in (*folder.glob(_STATE.format("*")), *stages):
        path.unlink(missing_ok=True)
