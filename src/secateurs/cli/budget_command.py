"""``secateurs budget``: the sparsest network within a margin of accuracy, with proof."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from secateurs._console import say
from secateurs._io.durable import replace_files
from secateurs.cli.budget_options import BudgetPruning, BudgetRunning, Claim
from secateurs.cli.calibration_loading import load_calibration
from secateurs.cli.loading import (
    check_loader_options,
    default_folder,
    load_images,
    make_loader,
    pick_device,
    prepare_process,
    provenance_of,
)
from secateurs.cli.option_types import given
from secateurs.cli.printing import BUDGET
from secateurs.cli.standard_output import Stdout
from secateurs.cli.sweep_options import Preprocessing, SweepImages
from secateurs.criteria import criterion_of
from secateurs.evaluation import budget
from secateurs.provenance import versions, weights_sha256
from secateurs.report import print_table
from secateurs.results.folder import CSV, JSONL
from secateurs.training.run_state import save_weights

CHECKPOINT = "model.safetensors"


def run_budget(
    asked: SweepImages,
    data: str,
    claim: Claim,
    pruning: BudgetPruning,
    preprocessing: Preprocessing,
    running: BudgetRunning,
) -> Path:
    """Load, search, write the checkpoint, and report; returns the folder of the results.

    The options are those of `secateurs.cli.commands.budget`, and ``data`` is the data
    set or folder that they mean.
    """
    device = pick_device(running.device)
    check_loader_options(running.batch_size, running.workers, asked.limit)
    prepare_process(asked.arch, pruning.seed)
    model, images = load_images(asked, data, preprocessing)
    loader = make_loader(
        images, batch_size=running.batch_size, workers=running.workers, device=device
    )
    calibration, name = None, ""
    if claim.repair or criterion_of(pruning.score).needs_inputs:
        calibration, name = load_calibration(
            claim.calibration or data,
            model,
            asked,
            images=claim.calibration_images,
            scored=[images],
            workers=running.workers,
        )
    provenance = replace(provenance_of(model, images, ""), calibration=name)
    sha = weights_sha256(model.model)
    settings = (sha, len(images.dataset), claim, pruning, device, running.amp, running.batch_size)
    folder = running.output or default_folder(
        "budget", provenance.model, provenance.data, settings=repr((provenance, settings))
    )
    found = budget(
        model.model,
        loader,
        claim.max_drop,
        confidence=claim.confidence,
        repair=claim.repair,
        calibration=calibration,
        provenance=provenance,
        device=device,
        amp=running.amp,
        output=folder,
        overwrite=not running.resume,
        **given(pruning),
    )
    values = asdict(found)
    del values["rows"]  # results.jsonl has them
    content = {
        "model": model.name,
        "weights": model.weights,
        "weights_sha256": sha,
        "data": images.name,
        "split": images.split,
        "preprocess": str(model.preprocess),
        "repair": list(claim.repair),
        "calibration": name,
        "calibration_count": 0 if calibration is None else len(calibration),
        **asdict(pruning),
        **values,
        "versions": versions(),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    save_weights(folder / CHECKPOINT, model.model)
    replace_files({folder / BUDGET: text.encode()})
    with Stdout("the summary", written=True) as stdout:
        stdout.table(lambda console: print_table(found.rows, console))
        say(f"wrote {CHECKPOINT}, {BUDGET}, {JSONL} and {CSV} to {folder}")
    return folder
