"""``secateurs repair``: prune a network and win its accuracy back, without labels."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateurs._console import say
from secateurs._io.durable import replace_files
from secateurs._io.regular_files import read_regular
from secateurs._validation import check_count
from secateurs.cli.calibration_loading import load_calibration
from secateurs.cli.loading import (
    check_loader_options,
    default_folder,
    make_loader,
    pick_device,
    set_threads_for,
)
from secateurs.cli.option_types import given
from secateurs.cli.repair_plan import check_output, choose_masks, read_selection
from secateurs.cli.repair_run import MASKS, RepairRun, clear, clear_stages
from secateurs.cli.repairing_options import RepairImages, Repairing, RepairPruning, RepairRunning
from secateurs.cli.row_columns import shared_columns
from secateurs.cli.standard_output import Stdout
from secateurs.cli.sweep_options import Preprocessing
from secateurs.errors import InvalidArgumentError
from secateurs.masks._sparsity import sparsity
from secateurs.repair import read_ratios
from secateurs.repair.layerwise import batch_norms_of
from secateurs.repair.repair_options import RepairOptions, passes_of
from secateurs.repair.repaired_values import calibration_sha256
from secateurs.report import markdown_table, print_table
from secateurs.report.retrain_outcomes import layer_table
from secateurs.results import RepairRow, Results
from secateurs.selection.selection_options import SelectionOptions
from secateurs.zoo import LoadedData, LoadedModel, check_data, load_data, load_model

_RESULT = "repaired.safetensors"
_WHICH = ("layers", "include", "exclude")


def run_repair(
    asked: RepairImages,
    data: str,
    pruning: RepairPruning,
    repairing: Repairing,
    preprocessing: Preprocessing,
    running: RepairRunning,
) -> Path:
    """Load, prune, repair, write the weights, and report; returns the folder of the results.

    The options are those of `secateurs.cli.commands.repair`, and ``data`` is the data
    set or folder that they mean.
    """
    options = read_selection(pruning, repairing.seed)
    ratios = None if pruning.ratios_from is None else read_ratios(pruning.ratios_from)
    settings: dict[str, Any] = {**given(repairing, "steps"), "batch_size": running.batch_size}
    plan = RepairOptions(**settings)
    check_count("images", asked.images)
    check_loader_options(running.batch_size, running.workers, asked.limit)
    for each in filter(None, (data, asked.test_data)):
        check_data(each)
    check_output(asked, running)
    device = pick_device(running.device)
    set_threads_for(asked.arch)
    torch.manual_seed(repairing.seed)  # for --weights random
    model, test = _load(asked, preprocessing)
    calibration, name = load_calibration(
        data,
        model,
        asked,
        images=asked.images,
        scored=[test] if test else [],
        split=asked.split,
        workers=running.workers,
    )
    loader = None
    if test is not None:
        loader = make_loader(
            test, batch_size=running.batch_size, workers=running.workers, device=device
        )
    model.model.to(device)
    normed = bool(batch_norms_of(model.model))
    steps = repairing.steps or (("batchnorm",) if normed else ()) + ("reconstruct",)
    columns = settings | _columns(model, test, pruning, options, steps, calibration, name, device)
    config = _config(columns, ratios, test)
    folder, output = _paths_of(running, asked.arch, data, config)
    if output.exists() and running.resume and not (folder / "config.json").exists():
        raise InvalidArgumentError(
            f"{output} is there already, and not from a repair: give another --output, or "
            "--overwrite"
        )
    with Results(folder, RepairRow) as results:
        if not results.open(config, overwrite=not running.resume):
            clear(folder)
        run = RepairRun(
            model.model, calibration, passes_of(steps), plan,
            lambda: choose_masks(model.model, pruning, ratios, options, calibration),
            {each: getattr(options, each) for each in _WHICH},
            loader, columns, results, output, say_row,
        )  # fmt: skip
        if run.is_finished:
            rows = sorted(results.rows(), key=lambda each: each.stage)
            say("these results were there already; --overwrite repairs again")
        else:
            rows = run.run()
            counted = sparsity(model.model, **run.counted).layers
            layers = layer_table([(one.name, one.total, one.total - one.zeros) for one in counted])
            table = layers.markdown()
            text = f"{markdown_table(rows)}\nWeights kept in each layer:\n\n{table}\n"
            replace_files({folder / "table.md": text.encode()})
        clear_stages(folder)
        _report(rows, folder, output)
    return folder


def _load(
    asked: RepairImages, preprocessing: Preprocessing
) -> tuple[LoadedModel, LoadedData | None]:
    model = load_model(
        asked.arch, weights=asked.weights, num_classes=asked.num_classes, **given(preprocessing)
    )
    if asked.test_data is None:
        return model, None
    return model, load_data(
        asked.test_data,
        model=model,
        split=asked.test_split,
        data_root=asked.data_root,
        limit=asked.limit,
        skip_corrupt=asked.skip_corrupt,
    )


def _columns(
    model: LoadedModel,
    test: LoadedData | None,
    pruning: RepairPruning,
    options: SelectionOptions,
    steps: tuple[str, ...],
    calibration: Tensor,
    name: str,
    device: torch.device,
) -> dict[str, Any]:
    """The columns that all rows of a run share, but for the settings of the steps."""
    allocation = pruning.allocation or ""
    if pruning.ratios_from is not None:
        digest = hashlib.sha256(read_regular(pruning.ratios_from)).hexdigest()
        allocation = f"file {digest[:16]}"
    return shared_columns(model, options, device) | {
        "calibration": name,
        "calibration_sha256": calibration_sha256(calibration),
        "calibration_count": len(calibration),
        "allocation": allocation,
        "keep_at_least": pruning.keep_at_least,
        "p_prune": pruning.p_prune,
        "repair": ";".join(steps),
        "data": test.name if test else "",
        "split": test.split if test else "",
    }


def _config(
    columns: Mapping[str, Any], ratios: Mapping[str, float] | None, test: LoadedData | None
) -> dict[str, Any]:
    """What decides the results."""
    asked = [name for name in RepairRow.asked() if name in columns]
    config = {name: columns[name] for name in (*asked, "data", "split", "device")}
    return config | {"ratios": ratios, "images": len(test.dataset) if test else 0}


def _paths_of(
    running: RepairRunning, arch: str, data: str, config: Mapping[str, Any]
) -> tuple[Path, Path]:
    """The folder of the run, and the file of the repaired weights."""
    if running.output is not None:
        return running.output.with_suffix(".repair"), running.output
    folder = default_folder("repair", arch, data, settings=json.dumps(config, sort_keys=True))
    return folder, folder / _RESULT


def say_row(row: RepairRow) -> None:
    """Print a finished stage."""
    scored = "" if row.top1 is None else f", top-1 {row.top1:.1f}"
    say(
        f"{row.steps.replace(';', ', ')}: loss {row.loss:.4g}, agreement with the dense network "
        f"{row.agreement:.1f}%{scored}, {row.duration:.1f} s"
    )


def _report(rows: list[RepairRow], folder: Path, output: Path) -> None:
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: print_table(rows, console))
        say(f"wrote {output}; results.csv, results.jsonl, table.md and {MASKS} are in {folder}")
