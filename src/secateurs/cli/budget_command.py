"""``secateurs budget``: the sparsest network within a margin of accuracy, with proof."""

import json
from dataclasses import asdict
from pathlib import Path

from secateurs._console import say
from secateurs.cli.budget_options import BudgetPruning, BudgetRunning, Claim
from secateurs.cli.calibration_loading import load_calibration
from secateurs.cli.default_folder import default_folder
from secateurs.cli.json_summary import BUDGET
from secateurs.cli.loading import (
    check_loader_options,
    load_images,
    make_loader,
    pick_device,
    prepare_process,
    provenance_of,
)
from secateurs.cli.option_types import given
from secateurs.cli.standard_output import Stdout
from secateurs.cli.sweep_options import Preprocessing, SweepImages
from secateurs.evaluation import Budget, budget
from secateurs.provenance import versions, weights_sha256
from secateurs.report.table import percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results.durable import replace_files
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

    Args:
        asked: the network and the images.
        data: the data set or folder.
        claim: the margin and the repair.
        pruning: how to prune.
        preprocessing: changes to the network's own preprocessing.
        running: the device, the loader and the output.
    """
    device = pick_device(running.device)
    check_loader_options(running.batch_size, running.workers, asked.limit)
    prepare_process(asked.arch, pruning.seed)
    model, images = load_images(asked, data, preprocessing)
    loader = make_loader(
        images, batch_size=running.batch_size, workers=running.workers, device=device
    )
    calibration, name = None, ""
    if claim.repair:
        calibration, name = load_calibration(
            claim.calibration or data,
            model,
            asked,
            images=claim.calibration_images,
            scored=[images],
            workers=running.workers,
        )
    provenance = provenance_of(model, images, "")
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
        **asdict(found),
        "versions": versions(),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    save_weights(folder / CHECKPOINT, model.model)
    replace_files({folder / BUDGET: text.encode()})
    with Stdout("the summary", written=True) as stdout:
        stdout.table(lambda console: show_tables(console, [_looks(found)]))
        stdout.write("".join(f"{line}\n" for line in _claim(found)))
        say(f"wrote {CHECKPOINT}, {BUDGET} to {folder}")
    return folder


def _looks(found: Budget) -> TextTable:
    rows = [
        (
            percent(one.p_prune),
            f"{one.count:,}",
            str(one.lost),
            str(one.won),
            "passed" if one.passed else "failed",
        )
        for one in found.looks
    ]
    return TextTable(("ratio", "images", "lost", "won", ""), rows, names=0)


def _claim(found: Budget) -> list[str]:
    """What is claimed, and what a sparser network would need."""
    lines: list[str] = []
    sure = f"with {100 * found.confidence:g}% confidence"
    if found.p_prune:
        lines.append(
            f"{percent(found.p_prune)} pruned: top-1 {found.dense_top1:.2f} to {found.top1:.2f}, "
            f"a drop of {found.drop:.2f} points, {sure} below {found.drop_high:.2f} "
            f"(asked: {found.max_drop:g}), on {found.count:,} images"
        )
    else:
        lines.append(f"no pruned network drops {sure} by less than {found.max_drop:g} points")
    if found.needed is not None and found.needed_for is not None:
        lines.append(
            f"{percent(found.needed_for)} dropped by less in what was scored; if it does so on "
            f"others, about {found.needed:,} images show it"
        )
    lines.append(
        f"{len(found.looks)} looks at the same images, each at a seventh of the allowed error; "
        f"{found.passes:.1f} passes over the images"
    )
    return lines
