"""``secateurs sweep``: measure how accuracy falls as weights are pruned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs._console import say
from secateurs._io.text import counted
from secateurs._validation import check_count
from secateurs.cli.calibration_loading import load_calibration
from secateurs.cli.coverage_text import coverage_line
from secateurs.cli.loading import (
    check_loader_options,
    default_output,
    leave_gradients,
    load_images,
    make_loader,
    pick_device,
    prepare_process,
    provenance_of,
)
from secateurs.cli.option_types import given
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.cli.sweep_options import (
    Preprocessing,
    SweepImages,
    SweepPruning,
    SweepRepair,
    SweepRunning,
)
from secateurs.cli.torchrun import from_rank_0, in_turn, own_device, ranks_here
from secateurs.criteria import criterion_of
from secateurs.errors import InvalidArgumentError, SecateursError
from secateurs.evaluation import Grid, sweep
from secateurs.evaluation.ranks import Ranks
from secateurs.parameters.coverage_count import coverage_of
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import targets_in
from secateurs.repair import read_ratios
from secateurs.report import plot_rows
from secateurs.report.sweep_report import print_sweep
from secateurs.results import Row, read_rows
from secateurs.zoo import LoadedData, LoadedModel, check_data


def run_sweep(
    asked: SweepImages,
    data: str,
    pruning: SweepPruning,
    repairing: SweepRepair,
    preprocessing: Preprocessing,
    running: SweepRunning,
    ranks: Ranks | None = None,
) -> Path | None:
    """Load, measure, and report; only rank 0 reports.

    The options are those of `secateurs.cli.commands.sweep`, and ``data`` is the data
    set or folder that they mean.

    Returns:
        The folder of the results, on rank 0.
    """
    ranks = ranks or Ranks()
    settings: dict[str, Any] = {**given(pruning, "ratios_from"), "repair": repairing.repair}
    if pruning.ratios_from is not None:
        settings["ratios"] = read_ratios(pruning.ratios_from)
    grid = Grid(**settings)  # checked before anything is loaded
    if grid.repair and ranks.size > 1:
        raise InvalidArgumentError("--repair works in one process: leave out torchrun")
    device = own_device(ranks, pick_device(running.device))
    check_loader_options(running.batch_size, running.workers, asked.limit)
    check_count("calibration_images", repairing.calibration_images)
    for each in filter(None, (data, repairing.calibration)):
        check_data(each)
    prepare_process(asked.arch, pruning.seed)
    model, images = in_turn(ranks, lambda: load_images(asked, data, preprocessing))
    loader = make_loader(
        images,
        batch_size=running.batch_size,
        workers=running.workers,
        device=device,
        processes=ranks_here(),
    )
    model.model.to(device)
    scored_on = ""
    if any(criterion_of(name).needs_gradients for name in pruning.score):
        scored_on = from_rank_0(
            ranks, model.model, lambda: leave_gradients(model, loader, asked, data)
        )
    provenance, count = provenance_of(model, images, scored_on), len(images.dataset)
    calibration, name = in_turn(
        ranks, lambda: _calibration(asked, repairing, model, images, running.workers)
    )
    provenance = replace(provenance, calibration=name)
    folder = running.output or default_output(
        model, provenance, grid, count, device, running.amp, calibration
    )
    earlier = _rows_in(folder) if running.resume else []
    rows = sweep(
        model.model,
        loader,
        calibration=calibration,
        provenance=provenance,
        device=device,
        amp=running.amp,
        output=folder,
        overwrite=not running.resume,
        process_group=ranks.group,
        **settings,
    )
    if ranks.is_first:
        stays = _what_stays(model, pruning, grid)
        _report(rows, folder, running.title, stays, count=count, measured=rows != earlier)
        return folder
    return None


def _calibration(
    asked: SweepImages,
    repairing: SweepRepair,
    model: LoadedModel,
    images: LoadedData,
    workers: int | None,
) -> tuple[Tensor | None, str]:
    """The calibration images, and their name; None where they are not asked for."""
    if repairing.calibration is None:
        return None, ""
    return load_calibration(
        repairing.calibration,
        model,
        asked,
        images=repairing.calibration_images,
        scored=[images],
        workers=workers,
    )


def _what_stays(model: LoadedModel, pruning: SweepPruning, grid: Grid) -> str:
    """A line on the weights that do not compete."""
    choice = LayerChoice(pruning.layers or None, pruning.include or None, pruning.exclude or None)
    contents = ModelContents(model.model)
    targets = targets_in(contents, choice)
    found = coverage_of(contents, targets, choice, barrier=grid.barrier)
    return coverage_line(found, pruning.layers, pruning.include)


def _report(
    rows: list[Row], folder: Path, title: str | None, stays: str, *, count: int, measured: bool
) -> None:
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: print_sweep(rows, console, note=stays))
        if not measured:
            say("these results were there already; --overwrite measures again")
        if rows[0].count < count:
            say(
                f"skipped {count - rows[0].count} of {counted(count, 'image')} that could not be "
                "read"
            )
        plots = drawn(lambda: plot_rows(rows, folder / "sweep", title=title))
        names = ["results.csv", "results.jsonl", *(plot.name for plot in plots)]
        say(f"wrote {', '.join(names)} to {folder}")


def _rows_in(folder: Path) -> list[Row]:
    """The finished rows in a folder; none if nothing there can be read."""
    try:
        return read_rows(folder)
    except SecateursError:
        return []
