"""``secateurs sweep``: how accuracy falls as weights go."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from secateurs._console import say
from secateurs.cli.allocator import keep_freed_memory
from secateurs.cli.coverage_text import coverage_line
from secateurs.cli.loading import (
    check_loader_options,
    default_output,
    leave_gradients,
    make_loader,
    pick_device,
    subject_of,
)
from secateurs.cli.options import numbers
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.cli.torchrun import from_rank_0, in_turn, own_device, ranks_here
from secateurs.criteria import SCORES, needs_gradients
from secateurs.errors import InvalidArgumentError, SecateursError
from secateurs.evaluation import Grid, Ranks
from secateurs.evaluation import sweep as run_sweep
from secateurs.evaluation.grid import P_PRUNE
from secateurs.parameters.coverage_count import coverage_of
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import targets_in
from secateurs.report import plot_sweep, print_table
from secateurs.results import Row, read_rows
from secateurs.zoo import LoadedData, LoadedModel, check_data, load_data, load_model
from secateurs.zoo.models import DIGITS_NAMES

SEVERAL = frozenset(
    f"--{name}"
    for name in (
        "p-prune", "p-bern", "prune-type", "granularity", "scope", "score", "layers", "include",
        "exclude", "mean", "std",
    )
)  # fmt: skip
"""Options that take several values."""


def _several(help_text: str, panel: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=panel, metavar="VALUE ...")


def _option(help_text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel)


_WHAT, _PRUNE, _PREPROCESS, _RUN = "What to measure", "How to prune", "Preprocessing", "Running"


def sweep(
    context: typer.Context,
    arch: Annotated[
        str,
        _option("torchvision:NAME (or just NAME), timm:NAME, hf:NAME, a folder after timm: or hf:, "
                "package.module:function, or digits.", _WHAT, "--arch", "-a"),
    ] = "digits",
    weights: Annotated[
        str | None,
        _option("A .safetensors or .pt file, or the name of published weights; torchvision models "
                "have IMAGENET1K_V1 unless you say so.", _WHAT),
    ] = None,
    num_classes: Annotated[
        int | None, _option("Classes of a weights FILE, if not the usual number.", _WHAT)
    ] = None,
    data: Annotated[
        str | None,
        _option("A folder (DIR/val/CLASS/*, DIR/CLASS/*, or DIR/images.csv with DIR/images/), "
                "digits, mnist, cifar10, ...", _WHAT, "--data", "-d"),
    ] = None,
    data_root: Annotated[
        Path | None, _option("Where named data sets lie or are downloaded to.", _WHAT)
    ] = None,
    split: Annotated[str | None, _option("Which part of the data: val, test, ...", _WHAT)] = None,
    limit: Annotated[
        int | None, _option("Use this many images, spread evenly over the data.", _WHAT)
    ] = None,
    skip_corrupt: Annotated[
        bool, _option("Count unreadable images and go on.", _WHAT, "--skip-corrupt")
    ] = False,
    p_prune: Annotated[
        list[str] | None,
        _several("Ratios of units that are candidates, 0 to 1; default 0 to 0.9.", _PRUNE),
    ] = None,
    p_bern: Annotated[
        list[str] | None, _several("Probability of each candidate; default 1.", _PRUNE)
    ] = None,
    prune_type: Annotated[
        list[str] | None,
        _several("global (forward and backward pass) or gradient (backward alone).", _PRUNE),
    ] = None,
    granularity: Annotated[
        list[str] | None, _several("weight (default), kernel, filter.", _PRUNE)
    ] = None,
    scope: Annotated[
        list[str] | None, _several("global (default) or layer: who competes.", _PRUNE)
    ] = None,
    score: Annotated[
        list[str] | None, _several(f"{', '.join(SCORES)}; default magnitude.", _PRUNE)
    ] = None,
    layers: Annotated[
        list[str] | None,
        _several("conv, conv2d, linear, attention, experts, all, ...; default conv, linear, "
                 "attention and experts. conv2d is what the original method prunes.", _PRUNE),
    ] = None,
    include: Annotated[
        list[str] | None, _several("Prune only these: globs on parameter or module names.", _PRUNE)
    ] = None,
    exclude: Annotated[list[str] | None, _several("Do not prune these.", _PRUNE)] = None,
    draws: Annotated[
        int, _option("Draws to average where 0 < p_bern < 1 or the score is random.", _PRUNE)
    ] = 1,
    seed: Annotated[int, _option("Of the first draw; draw i has seed + i.", _PRUNE)] = 0,
    img_size: Annotated[int | None, _option("Input size in pixels.", _PREPROCESS)] = None,
    crop_pct: Annotated[
        float | None, _option("Input size by resized size, such as 0.875.", _PREPROCESS)
    ] = None,
    crop_mode: Annotated[
        str | None, _option("center, squash or border, as timm names them.", _PREPROCESS)
    ] = None,
    interpolation: Annotated[
        str | None, _option("bilinear, bicubic, nearest, ...", _PREPROCESS)
    ] = None,
    mean: Annotated[list[str] | None, _several("1 or 3 numbers.", _PREPROCESS)] = None,
    std: Annotated[list[str] | None, _several("1 or 3 numbers.", _PREPROCESS)] = None,
    device: Annotated[str, _option("auto, cpu, cuda, cuda:1, mps, ...", _RUN)] = "auto",
    batch_size: Annotated[
        int, _option("Images a batch; halved when memory runs out.", _RUN, "--batch-size", "-b")
    ] = 64,
    workers: Annotated[
        int | None, _option("Processes that decode images.", _RUN, "--workers", "-j")
    ] = None,
    amp: Annotated[bool, _option("Run under autocast.", _RUN, "--amp")] = False,
    output: Annotated[
        Path | None,
        _option("Folder for results; default secateurs-results/NAME.", _RUN, "--output", "-o"),
    ] = None,
    resume: Annotated[
        bool,
        _option("Go on where this sweep was interrupted.", _RUN, "--resume/--overwrite"),
    ] = True,
    title: Annotated[str | None, _option("Title of the plot.", _RUN)] = None,
) -> None:  # fmt: skip
    """Prune a classifier at a list of ratios and report how accuracy falls.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    asked: dict[str, Any] = {
        "p_prune": numbers("--p-prune", p_prune) if p_prune else P_PRUNE,
        "p_bern": numbers("--p-bern", p_bern) if p_bern else 1.0,
        "prune_type": prune_type or "global",
        "granularity": granularity or "weight",
        "scope": scope or "global",
        "score": score or "magnitude",
        "layers": layers or None,
        "include": include or None,
        "exclude": exclude or None,
        "draws": draws,
        "seed": seed,
    }
    grid = Grid(**asked)  # wrong values are refused before anything is loaded
    ranks: Ranks | None = context.obj
    place = pick_device(device)
    if ranks is not None:
        place = own_device(ranks, place)
    check_loader_options(batch_size, workers, limit)
    if data is None:
        if arch not in DIGITS_NAMES:
            raise InvalidArgumentError(
                f"--arch {arch} needs images: write --data DIR, a folder in ImageNet layout"
            )
        data = "digits"
    check_data(data)
    keep_freed_memory()
    if arch in DIGITS_NAMES:
        torch.set_num_threads(1)  # so little work that threads mostly wait for each other
    torch.manual_seed(seed)  # for --weights random
    if ranks is None or ranks.first:
        say(f"loading the network {arch} and the data {data} ...")

    def load() -> tuple[LoadedModel, LoadedData]:
        model = load_model(
            arch,
            weights=weights,
            num_classes=num_classes,
            img_size=img_size,
            crop_pct=crop_pct,
            interpolation=interpolation,
            mean=numbers("--mean", mean) if mean else None,
            std=numbers("--std", std) if std else None,
            crop_mode=crop_mode,
        )
        images = load_data(
            data,
            model=model,
            split=split,
            data_root=data_root,
            limit=limit,
            skip_corrupt=skip_corrupt,
        )
        return model, images

    model, images = in_turn(ranks, load)
    loader = make_loader(
        images, batch_size=batch_size, workers=workers, device=place, processes=ranks_here()
    )
    model.model.to(place)
    scored_on = ""
    if any(map(needs_gradients, score or ())):
        scored_on = from_rank_0(
            ranks,
            model.model,
            lambda: leave_gradients(
                model, loader, data, data_root=data_root, skip_corrupt=skip_corrupt
            ),
        )
    subject, count = subject_of(model, images, scored_on), len(images.dataset)
    folder = output or default_output(model, subject, grid, count, place, amp)
    earlier = _rows_in(folder) if resume else []
    rows = run_sweep(
        model.model,
        loader,
        subject=subject,
        device=place,
        amp=amp,
        output=folder,
        overwrite=not resume,
        ranks=ranks,
        **asked,
    )
    if ranks is not None and not ranks.first:
        return
    named = {"include": include or None, "exclude": exclude or None}
    contents = ModelContents(model.model)
    targets = targets_in(contents, layers=layers or None, **named)
    found = coverage_of(contents, targets, **named, barrier=grid.barrier)
    stays = coverage_line(found, layers, include)
    with Stdout(written=True) as stdout:
        stdout.table(lambda console: print_table(rows, console, note=stays))
        if rows == earlier:
            say("these results were there already; --overwrite measures again")
        if rows[0].count < count:
            say(f"skipped {count - rows[0].count} of {count} images that could not be read")
        plots = drawn(lambda: plot_sweep(rows, folder / "sweep", title=title))
        names = ["results.csv", "results.jsonl", *(plot.name for plot in plots)]
        say(f"wrote {', '.join(names)} to {folder}")


def _rows_in(folder: Path) -> list[Row]:
    """The finished rows in a folder; none where there is nothing that can be read."""
    try:
        return read_rows(folder)
    except SecateursError:
        return []
