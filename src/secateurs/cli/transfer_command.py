"""``secateurs transfer``: attack some networks, with and without pruning, and score on others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from secateurs._console import say
from secateurs.cli.allocator import keep_freed_memory
from secateurs.cli.attack_options import (
    default_output,
    fitted_batch,
    load_images,
    load_networks,
    report_on,
    say_images,
    say_reach,
    set_threads,
    usual_protocol,
    warn_unused,
)
from secateurs.cli.loading import check_loader_options, pick_device
from secateurs.cli.option_types import given
from secateurs.cli.standard_output import Stdout
from secateurs.cli.transfer_options import (
    Attack,
    DwpPruning,
    Recipes,
    Searching,
    TransferImages,
    TransferRunning,
)
from secateurs.transfer import (
    AttackVariant,
    AttackVariants,
    Benchmark,
    Search,
    check_seeds,
    check_variants,
)
from secateurs.zoo import check_data

SEARCHED = {"p_prune": (0.05, 0.1, 0.2, 0.3, 0.5), "p_bern": (0.1, 0.3, 0.5)}
"""The default ratios that ``--search`` tries."""


def run_transfer(
    asked: TransferImages,
    attack: Attack,
    recipes: Recipes,
    pruning: DwpPruning,
    searching: Searching,
    running: TransferRunning,
) -> Path:
    """Load, attack, score, and report; returns the folder of the results.

    The options are those of `secateurs.cli.commands.transfer`.
    """
    protocol = usual_protocol(attack, running.batch_size, small=asked.small)
    say_reach(protocol.steps, protocol.alpha, protocol.eps)
    warn_unused(recipes, pruning)
    variants = _variants(recipes, pruning, searching)
    check_seeds(attack.seeds)
    search = (
        Search(images=searching.search_images, steps=searching.search_steps)
        if searching.search
        else None
    )
    device = pick_device(running.device)
    check_loader_options(1 if running.batch_size is None else running.batch_size, None, asked.limit)
    data = asked.data or "digits"
    check_data(data)
    keep_freed_memory()
    set_threads(running.threads, small=asked.small)
    torch.manual_seed(0)  # for NAME=random
    networks = load_networks(asked, device)
    check_variants(networks.groups, variants)
    images, origin = load_images(asked, data, networks)
    benchmark = Benchmark(
        groups=networks.groups,
        images=images,
        variants=variants,
        protocol=fitted_batch(protocol, running.batch_size, images, device),
        seeds=list(attack.seeds),
        search=search,
        origin=origin,
    )
    folder = running.output or default_output(benchmark)
    rows = benchmark.run(
        output=folder,
        overwrite=not running.resume,
        save_images=folder / "images" if running.save_images else None,
        started=lambda: say_images(images, origin, targeted=not attack.untargeted),
    )
    with Stdout(written=True) as stdout:
        files = report_on(rows, folder, running.title, stdout)
        say(f"wrote {', '.join(files)} to {folder}")
    return folder


def _variants(
    recipes: Recipes, pruning: DwpPruning, searching: Searching
) -> Sequence[AttackVariant]:
    ratios = SEARCHED if searching.search else {}
    options: dict[str, Any] = {**ratios, **given(recipes), **given(pruning, "redraw")}
    redraw = [int(word) if word.isdigit() else word for word in pruning.redraw or ["forward"]]
    return AttackVariants(redraw=redraw, **options).all
