"""Turn the options of ``secateurs transfer`` into networks, images and a protocol."""

import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from secateurs._console import say
from secateurs._io.durable import replace_files
from secateurs._io.text import counted
from secateurs._progress import progress_bar
from secateurs.attacks import parse_epsilon, parse_method
from secateurs.cli.loading import check_parallel, default_folder
from secateurs.cli.option_types import given
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.cli.transfer_options import Attack, DwpPruning, Recipes, TransferImages
from secateurs.errors import InvalidArgumentError
from secateurs.report.grouping import grey_levels
from secateurs.results import TransferRow
from secateurs.transfer import (
    AttackGroup,
    Benchmark,
    ImageOrigin,
    ImageSet,
    Network,
    Protocol,
    as_network,
    choose_images,
    fit_size,
    make_groups,
    pixel_preprocess,
    shared_size,
)
from secateurs.zoo import LoadedModel, load_data, load_model
from secateurs.zoo.small_networks import SMALL_NETWORKS
from secateurs.zoo.weights_file import is_file

DIGITS_LIMIT = 150
"""The default number of images of the digits that are attacked."""
_SMALL_SIDE = 96  # up to this size, one image does not use two cores or a GPU fully
_USUAL = {"method": "mi-ti-di-logit", "eps": "16/255", "alpha": "2/255", "steps": 300}
_DIGITS = {"method": "mi-logit", "eps": "64/255", "alpha": "8/255", "steps": 40}


def usual_protocol(attack: Attack, batch_size: int | None, *, small: bool) -> Protocol:
    """The field's protocol, or that of the digits, with the options that were given.

    Args:
        attack: the options.
        batch_size: images that are attacked together, None while their size is not known.
        small: whether the images are the digits, whose few pixels must change by more.

    Raises:
        InvalidArgumentError: an unknown method, an implausible epsilon, a number out of range.
    """
    usual: dict[str, Any] = _DIGITS if small else _USUAL
    chosen = usual | dict(given(attack, "untargeted", "seeds"))
    return Protocol(
        method=parse_method(chosen.pop("method")),
        eps=parse_epsilon(chosen.pop("eps")),
        alpha=parse_epsilon(chosen.pop("alpha"), name="alpha"),
        targeted=not attack.untargeted,
        batch_size=1 if batch_size is None else batch_size,
        **chosen,
    )


def fitted_batch(
    protocol: Protocol, batch_size: int | None, images: ImageSet, device: torch.device
) -> Protocol:
    """Set the default batch size: 8 images on a CPU, 50 on a GPU, 100 if they are small."""
    if batch_size is not None:
        return protocol
    small = images.levels.shape[-1] <= _SMALL_SIDE
    return replace(protocol, batch_size=100 if small else 8 if device.type == "cpu" else 50)


def set_threads(threads: int | None, *, small: bool) -> None:
    """Set the number of threads; one for small networks, whose threads mostly wait.

    Raises:
        InvalidArgumentError: the number is below 1, or far above that of the cores.
    """
    if threads is not None and threads < 1:
        raise InvalidArgumentError(f"--threads must be at least 1, got {threads}")
    check_parallel("threads", threads)
    if threads is not None or small:
        torch.set_num_threads(threads or 1)


@dataclass(frozen=True)
class Networks:
    """The networks of a benchmark.

    Attributes:
        loaded: the networks as the zoo loaded them.
        all: the same, prepared for attacks, in the same order.
        groups: surrogates and their targets.
    """

    loaded: Sequence[LoadedModel]
    all: Sequence[Network]
    groups: Sequence[AttackGroup]


def load_networks(asked: TransferImages, device: torch.device) -> Networks:
    """Load networks by name, with their weights.

    Raises:
        InvalidArgumentError: an unknown name, weights that do not fit, or nothing to score.
        FailureError: weights cannot be downloaded or read.
    """
    loaded = [_load(word) for word in (*asked.surrogates, *asked.targets)]
    times = Counter(each.name for each in loaded)
    every = [
        as_network(
            each,
            name=f"{each.name}={each.weights}" if times[each.name] > 1 else each.name,
            device=device,
        )
        for each in loaded
    ]
    count = len(asked.surrogates)
    groups = make_groups(
        every[:count], every[count:], hold_one_out=asked.hold_one_out, together=asked.ensemble
    )
    return Networks(loaded, every, groups)


def load_images(
    asked: TransferImages, data: str, networks: Networks
) -> tuple[ImageSet, ImageOrigin]:
    """Let all networks read one size, and find images that all of them classify correctly.

    Raises:
        InvalidArgumentError: networks do not fit each other or the data, or no image is found.
        FailureError: an image is missing or corrupt.
    """
    size = shared_size(networks.all) if asked.img_size is None else asked.img_size
    if size < 1:
        raise InvalidArgumentError(f"--img-size must be at least 1, got {size}")
    fit_size(networks.all, size)
    channels = networks.all[0].channels
    found = load_data(
        data,
        preprocess=pixel_preprocess(size, channels, asked.interpolation),
        model=networks.loaded[0],
        split=asked.split,
        data_root=asked.data_root,
        skip_corrupt=asked.skip_corrupt,
    )
    limit = asked.limit or (DIGITS_LIMIT if asked.small else None)
    total = len(found.dataset) if limit is None else None  # else not known
    with progress_bar("Choosing images", total) as bar:
        images = choose_images(
            found, networks.all, limit=limit, seed=asked.image_seed, advance=bar.advance
        )
    return images, ImageOrigin(
        data=found.name,
        split=found.split,
        image_seed=asked.image_seed,
        interpolation=asked.interpolation,
    )


def say_images(images: ImageSet, origin: ImageOrigin, *, targeted: bool) -> None:
    """Say how many images were found, and how their target classes were chosen."""
    each = ", ".join(f"{name} {right}" for name, right in images.accuracy.items())
    say(
        f"{len(images)} of the {images.seen} images looked at count: all networks classify them "
        f"correctly (each alone: {each})"
    )
    if targeted and images.drawn:
        say(
            f"{origin.data} names no target classes: they were drawn with seed "
            f"{origin.image_seed}, never the true class"
        )


def say_reach(steps: int, alpha: float, eps: float) -> None:
    """Say where an attack ends inside of epsilon, so that it has less room than the noise."""
    reach = steps * alpha
    if reach < eps * (1 - 1e-9):
        count = counted(steps, "step")
        say(
            f"{count} of --alpha {grey_levels(alpha)} change a pixel by at most "
            f"{grey_levels(reach)}, and the noise changes it by --eps {grey_levels(eps)}: for an "
            "attack of that size take more --steps"
        )


def warn_unused(recipes: Recipes, pruning: DwpPruning) -> None:
    """Warn of options without effect: they belong to recipes that were not asked for."""
    asked = recipes.recipe or ("dwp",)
    options = dict.fromkeys(given(pruning), "dwp")
    options |= {name: name.partition("_")[0] for name in given(recipes, "recipe")}
    for name, recipe in options.items():
        if recipe not in asked:
            option = "--" + name.replace("_", "-")
            words = " ".join((*asked, recipe))
            warnings.warn(
                f"{option} has no effect: it belongs to {recipe}; write --recipe {words} to use it",
                stacklevel=2,
            )


def default_output(benchmark: Benchmark) -> Path:
    """The folder of a benchmark, see `default_folder`."""
    settings = json.dumps(benchmark.configuration(), sort_keys=True)
    return default_folder("transfer", benchmark.origin.data, settings=settings)


def report_on(
    rows: Sequence[TransferRow], folder: Path, title: str | None, stdout: Stdout
) -> list[str]:
    """Print the table, write it, the heat map and the curves; returns the names of all files."""
    from secateurs.report import (
        markdown_table,
        plot_transfer_curves,
        plot_transfer_heatmap,
        print_table,
    )

    stdout.table(lambda console: print_table(rows, console))
    table = folder / "table.md"
    replace_files({table: markdown_table(rows).encode()})
    plots = [
        *drawn(lambda: plot_transfer_heatmap(rows, folder / "heatmap", title=title)),
        *drawn(lambda: plot_transfer_curves(rows, folder / "curves", title=title)),
    ]
    return ["results.csv", "results.jsonl", table.name, *(path.name for path in plots)]


def _load(word: str) -> LoadedModel:
    """Load a network by NAME or NAME=WEIGHTS."""
    name, _, weights = word.partition("=")
    if not name.strip() or ("=" in word and not weights.strip()):
        raise InvalidArgumentError(
            f"a network is written NAME or NAME=WEIGHTS, such as resnet18=FILE.pt; got {word!r}"
        )
    if not weights and is_file(name):
        raise InvalidArgumentError(
            f"{name!r} is a file, and no network: write NAME={name}, such as resnet18={name}"
        )
    if not weights and name in SMALL_NETWORKS:
        raise InvalidArgumentError(
            f"{name} has no published weights: write {name}=FILE, as secateurs retrain "
            f"writes one, or {name}=random"
        )
    return load_model(name, weights=weights or None)
