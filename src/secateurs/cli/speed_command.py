"""``secateurs speed``: images a second of a pruned network, dense and accelerated."""

from dataclasses import asdict
from pathlib import Path

import torch

from secateurs._console import say
from secateurs._progress import progress_bar
from secateurs._tensors.blocks import cores
from secateurs.cli.loading import default_folder, pick_device
from secateurs.cli.option_types import given
from secateurs.cli.speed_options import SpeedNetwork, SpeedOutput, SpeedPruning
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import SpeedGrid, speed_sweep
from secateurs.provenance import weights_sha256
from secateurs.report import plot_rows, print_table
from secateurs.results import Results, SpeedRow
from secateurs.selection.selection_options import SelectionOptions
from secateurs.zoo import LoadedModel, load_model


def run_speed(
    asked: SpeedNetwork,
    pruning: SpeedPruning,
    running: SpeedOutput,
) -> Path:
    """Load, measure, and report; returns the folder of the results.

    The options are those of `secateurs.cli.commands.speed`.
    """
    options = SelectionOptions(**given(pruning, "p_prune"))
    threads = asked.threads or ((1, 2) if cores() > 1 else (1,))
    grid = SpeedGrid(pruning.p_prune, asked.batch_sizes, threads, options)
    if max(threads) > cores():
        raise InvalidArgumentError(
            f"--threads {max(threads)} is more than the {cores()} cores that this process may "
            f"use: write --threads {cores()}"
        )
    device = pick_device(running.device)
    torch.manual_seed(pruning.seed)  # for --weights random
    model = load_model(
        asked.arch, weights=asked.weights, num_classes=asked.num_classes, img_size=asked.img_size
    )
    model.model.to(device)
    network, sha = asdict(asked) | {"device": running.device}, weights_sha256(model.model)
    settings = {**network, **asdict(pruning), "weights_sha256": sha}
    folder = running.output or default_folder(
        model.name, "speed", settings=repr(sorted(settings.items()))
    )
    ratios = grid.ratios(model.model)
    config = {"network": network, "pruning": asdict(pruning)}
    config |= {"threads": threads, "weights": sha, "ratios": ratios}
    with Results(folder, SpeedRow) as results:
        results.open(config, overwrite=not running.resume)
        done = {row.key for row in results.rows()}
        total = len(ratios) * len(asked.batch_sizes) * len(threads)
        with progress_bar("Measuring", total, unit="settings") as bar:
            bar.advance(len(done))
            rows = speed_sweep(
                model.model,
                image_for(model).to(device),
                grid,
                name=model.name,
                weights=model.weights,
                done=done,
            )
            for row in rows:
                results.add(row)
                bar.advance(1)
        measured = results.rows()
    _report(measured, folder, running.title, again=len(done) < len(measured))
    return folder


def image_for(model: LoadedModel) -> torch.Tensor:
    """An input of random values, of the size that a network takes."""
    shape = model.preprocess.blank().shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _report(rows: list[SpeedRow], folder: Path, title: str | None, *, again: bool) -> None:
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: print_table(rows, console))
        if not again:
            say("these results were there already; --overwrite measures again")
        plots = drawn(lambda: plot_rows(rows, folder / "speed", title=title))
        names = ["results.csv", "results.jsonl", *(plot.name for plot in plots)]
        say(f"wrote {', '.join(names)} to {folder}")
