"""``secateurs sensitivity``: what each layer costs when it is pruned alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from secateurs._console import say
from secateurs.cli.calibration_loading import divided, load_calibration
from secateurs.cli.loading import (
    check_loader_options,
    default_folder,
    leave_gradients,
    load_images,
    make_loader,
    pick_device,
    prepare_process,
    provenance_of,
)
from secateurs.cli.option_types import given
from secateurs.cli.sensitivity_options import Allocating, LayerPruning, LayerRepair
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.cli.sweep_options import Preprocessing, SweepImages, SweepRunning
from secateurs.criteria import criterion_of
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import propose_ratios, sensitivity
from secateurs.provenance import weights_sha256
from secateurs.repair import write_ratios
from secateurs.repair.repaired_values import calibration_sha256
from secateurs.report import plot_rows, print_table
from secateurs.report.retrain_outcomes import layer_table
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import SensitivityRow
from secateurs.zoo import LoadedData, LoadedModel

RATIOS = "ratios.json"


def run_sensitivity(
    asked: SweepImages,
    data: str,
    pruning: LayerPruning,
    repairing: LayerRepair,
    allocating: Allocating,
    preprocessing: Preprocessing,
    running: SweepRunning,
) -> Path:
    """Load, measure, report, and propose ratios; returns the folder of the results.

    The options are those of `secateurs.cli.commands.sensitivity`, and ``data`` is the data
    set or folder that they mean.
    """
    if allocating.unlabelled and allocating.cost != "divergence":
        raise InvalidArgumentError(f"--cost {allocating.cost} needs labels: leave out --unlabelled")
    criterion = criterion_of(pruning.score)
    if allocating.unlabelled and criterion.needs_gradients:
        raise InvalidArgumentError(f"--score {pruning.score} needs labels: leave out --unlabelled")
    device = pick_device(running.device)
    check_loader_options(running.batch_size, running.workers, asked.limit)
    prepare_process(asked.arch, pruning.seed)
    model, images = load_images(asked, data, preprocessing, unlabelled=allocating.unlabelled)
    calibration, calibration_name = None, ""
    if repairing.repair or criterion.needs_inputs:
        images, calibration, calibration_name = _calibration(
            asked, repairing, model, images, running
        )
    loader = make_loader(
        images, batch_size=running.batch_size, workers=running.workers, device=device
    )
    model.model.to(device)
    scored_on = ""
    if criterion.needs_gradients:
        scored_on = leave_gradients(model, loader, asked, data)
    provenance = replace(provenance_of(model, images, scored_on), calibration=calibration_name)
    weights = weights_sha256(model.model)
    settings = (weights, len(images.dataset), pruning, allocating.unlabelled, device, running.amp)
    if calibration is not None:
        settings = (*settings, repairing.repair, calibration_sha256(calibration))
    folder = running.output or default_folder(
        "sensitivity", provenance.model, provenance.data, settings=repr((provenance, settings))
    )
    rows = sensitivity(
        model.model,
        loader,
        labels=not allocating.unlabelled,
        repair=repairing.repair,
        calibration=calibration,
        provenance=provenance,
        device=device,
        amp=running.amp,
        output=folder,
        overwrite=not running.resume,
        **given(pruning),
    )
    _report(rows, folder, allocating, running.title)
    return folder


def _calibration(
    asked: SweepImages,
    repairing: LayerRepair,
    model: LoadedModel,
    images: LoadedData,
    running: SweepRunning,
) -> tuple[LoadedData, Tensor, str]:
    """The images to measure, and the calibration images with their name."""
    if repairing.calibration is None:
        measured, calibration = divided(images, running.workers)
        return measured, calibration, images.name
    calibration, name = load_calibration(
        repairing.calibration,
        model,
        asked,
        images=repairing.calibration_images,
        scored=[images],
        workers=running.workers,
    )
    return images, calibration, name


def _report(
    rows: list[SensitivityRow], folder: Path, allocating: Allocating, title: str | None
) -> None:
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: print_table(rows, console))
        names = ["results.csv", "results.jsonl"]
        if allocating.allocate is not None:
            ratios = propose_ratios(rows, allocating.allocate, allocating.cost)
            write_ratios(folder / RATIOS, ratios)
            names.append(RATIOS)
            proposal = _proposal(rows, ratios)
            stdout.table(lambda console: show_tables(console, [proposal]))
            if allocating.cost != "divergence":
                say("these ratios were chosen with labels: score them on other images")
        plots = drawn(lambda: plot_rows(rows, folder / "sensitivity", title=title))
        say(f"wrote {', '.join([*names, *(plot.name for plot in plots)])} to {folder}")


def _proposal(rows: Sequence[SensitivityRow], ratios: Mapping[str, float]) -> TextTable:
    """What each layer would keep."""
    units = {row.layer: row.units for row in rows}
    what = f"{rows[0].granularity}s"
    kept = [(name, units[name], units[name] - round(r * units[name])) for name, r in ratios.items()]
    return layer_table(
        kept, f"{what.capitalize()} to keep in each layer, as {RATIOS} has it:", what
    )
