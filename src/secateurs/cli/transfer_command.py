"""``secateurs transfer``: attacks on some networks, scored on others, with and without pruning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from secateurs._console import say
from secateurs.cli.allocator import keep_freed_memory
from secateurs.cli.attack_options import (
    DIGITS_LIMIT,
    default_output,
    fitted_batch,
    load_images,
    load_networks,
    report_on,
    say_images,
    set_threads,
    usual_protocol,
    whole_numbers,
)
from secateurs.cli.loading import check_loader_options, pick_device
from secateurs.cli.options import numbers
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError
from secateurs.surrogates import RECIPES
from secateurs.transfer import AttackVariants, Benchmark, Search, check_seeds, check_variants
from secateurs.zoo import check_data
from secateurs.zoo.digits_family import FAMILY
from secateurs.zoo.models import DIGITS_NAMES

SEVERAL = frozenset(
    f"--{name}"
    for name in (
        "surrogates", "targets", "seeds", "recipe", "p-prune", "p-bern", "granularity", "scope",
        "score", "redraw", "prune-type", "layers", "include", "exclude", "rapa-p-bern",
        "mup-p-prune",
    )
)  # fmt: skip
"""Options that take several values."""

SEARCHED_P_PRUNE, SEARCHED_P_BERN = (0.05, 0.1, 0.2, 0.3, 0.5), (0.1, 0.3, 0.5)
"""What ``--search`` tries where nothing else is asked for."""


def _several(help_text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel, metavar="VALUE ...")


def _option(help_text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=panel)


_WHO, _ATTACK, _PRUNE = "Networks and images", "How to attack", "How to diversify"
_SEARCH, _RUN = "Choosing settings", "Running"


def transfer(
    surrogates: Annotated[
        list[str] | None,
        _several("Networks to attack with: torchvision:NAME, timm:NAME, hf:NAME, "
                 "package.module:function; NAME=FILE or NAME=WEIGHTS says which weights.",
                 _WHO, "--surrogates", "--models"),
    ] = None,
    targets: Annotated[
        list[str] | None,
        _several("Networks that are scored only; default the surrogates that an attack does not "
                 "use.", _WHO, "--targets"),
    ] = None,
    hold_one_out: Annotated[
        bool,
        _option("Attack with all surrogates but one, score the one left out, in turns.", _WHO,
                "--hold-one-out"),
    ] = False,
    together: Annotated[
        bool,
        _option("Attack with all surrogates together instead of each alone.", _WHO, "--ensemble"),
    ] = False,
    data: Annotated[
        str | None,
        _option("A folder (DIR/images.csv with DIR/images/, DIR/val/CLASS/*, or DIR/CLASS/*), or "
                "digits, mnist, cifar10, ...", _WHO, "--data", "-d"),
    ] = None,
    data_root: Annotated[
        Path | None, _option("Where named data sets lie or are downloaded to.", _WHO)
    ] = None,
    split: Annotated[str | None, _option("Which part of the data: val, test, ...", _WHO)] = None,
    limit: Annotated[
        int | None,
        _option("Use this many images of those that all networks classify correctly.", _WHO),
    ] = None,
    skip_corrupt: Annotated[
        bool, _option("Leave out unreadable images.", _WHO, "--skip-corrupt")
    ] = False,
    image_seed: Annotated[
        int,
        _option("Of the images' order, and of target classes where the data has none.", _WHO),
    ] = 0,
    img_size: Annotated[
        int | None,
        _option("Side of the attacked images, for all networks; default what the networks share, "
                "else 224.", _WHO),
    ] = None,
    interpolation: Annotated[
        str, _option("How images are squashed to that size: bicubic or bilinear.", _WHO)
    ] = "bicubic",
    method: Annotated[
        str | None,
        _option("Parts joined by -: mi ni ti di rdi si admix, and one loss of ce logit margin; "
                "default mi-ti-di-logit.", _ATTACK),
    ] = None,
    eps: Annotated[
        str | None,
        _option("The most that a pixel may change: 16/255 (default) or 0.0627.", _ATTACK),
    ] = None,
    alpha: Annotated[
        str | None, _option("What a pixel changes in a step; default 2/255.", _ATTACK)
    ] = None,
    steps: Annotated[int | None, _option("Steps of an attack; default 300.", _ATTACK)] = None,
    passes: Annotated[
        int,
        _option("Gradient passes, so draws, that are averaged in a step; one where nothing is "
                "drawn.", _ATTACK),
    ] = 1,
    every: Annotated[int, _option("Measure success every so many steps.", _ATTACK)] = 20,
    untargeted: Annotated[
        bool,
        _option("Attack away from the true class instead of towards a target class.", _ATTACK,
                "--untargeted"),
    ] = False,
    seeds: Annotated[
        list[str] | None, _several("Of attacks and draws; each is a repetition.", _ATTACK)
    ] = None,
    recipe: Annotated[
        list[str] | None,
        _several(f"{', '.join(RECIPES)}, or plain for nothing else; default dwp.", _PRUNE),
    ] = None,
    p_prune: Annotated[
        list[str] | None,
        _several("dwp: ratios of units that are candidates, 0 to 1; default 0.3.", _PRUNE),
    ] = None,
    p_bern: Annotated[
        list[str] | None, _several("dwp: probability of each candidate; default 0.5.", _PRUNE)
    ] = None,
    granularity: Annotated[
        list[str] | None, _several("dwp: weight (default), kernel, filter.", _PRUNE)
    ] = None,
    scope: Annotated[list[str] | None, _several("dwp: global (default) or layer.", _PRUNE)] = None,
    score: Annotated[list[str] | None, _several("dwp: magnitude or random.", _PRUNE)] = None,
    redraw: Annotated[
        list[str] | None,
        _several("dwp: forward (default), step, or a number of draws to take in turn.", _PRUNE),
    ] = None,
    prune_type: Annotated[
        list[str] | None,
        _several("dwp: global (default), or gradient (backward pass alone).", _PRUNE),
    ] = None,
    layers: Annotated[
        list[str] | None, _several("dwp: conv, conv2d, linear, attention, all, ...", _PRUNE)
    ] = None,
    include: Annotated[
        list[str] | None, _several("dwp: prune only these: globs on names.", _PRUNE)
    ] = None,
    exclude: Annotated[list[str] | None, _several("dwp: do not prune these.", _PRUNE)] = None,
    rapa_p_bern: Annotated[
        list[str] | None, _several("rapa: probability of each parameter; default 0.05.", _PRUNE)
    ] = None,
    mup_p_prune: Annotated[
        list[str] | None, _several("mup: ratio of each layer's weights; default 0.15.", _PRUNE)
    ] = None,
    search: Annotated[
        bool,
        _option("Choose each recipe's best setting on a part of the images, report on the rest.",
                _SEARCH, "--search"),
    ] = False,
    search_images: Annotated[
        int | None, _option("How many images to choose on; default a quarter.", _SEARCH)
    ] = None,
    search_steps: Annotated[
        int | None, _option("Steps of the attacks that choose; default --steps.", _SEARCH)
    ] = None,
    device: Annotated[str, _option("auto, cpu, cuda, cuda:1, mps, ...", _RUN)] = "auto",
    batch_size: Annotated[
        int | None, _option("Images that are attacked together.", _RUN, "--batch-size", "-b")
    ] = None,
    threads: Annotated[int | None, _option("Threads of the CPU.", _RUN)] = None,
    output: Annotated[
        Path | None,
        _option("Folder for results; default secateurs-results/transfer_NAME.", _RUN, "--output",
                "-o"),
    ] = None,
    resume: Annotated[
        bool,
        _option("Go on where this run stopped, also with more settings or seeds.", _RUN,
                "--resume/--overwrite"),
    ] = True,
    save_images: Annotated[
        bool,
        _option("Keep the attacked images as PNG, as TransferAttack's evaluation reads them.",
                _RUN, "--save-images"),
    ] = False,
    title: Annotated[str | None, _option("Title of the plots.", _RUN)] = None,
) -> None:  # fmt: skip
    """Attack some networks, plain and diversified by pruning, and score on others.

    With no options: four small networks on the digits of scikit-learn, in about two minutes.
    """
    small = _is_digits([*(surrogates or ()), *(targets or ())], data)
    if small and not surrogates:
        surrogates, hold_one_out = list(FAMILY), hold_one_out or not (targets or together)
    protocol = usual_protocol(
        small,
        method=method,
        eps=eps,
        alpha=alpha,
        steps=steps,
        passes=passes,
        every=every,
        batch_size=batch_size,
        targeted=not untargeted,
    )
    variants = AttackVariants(
        recipe=recipe or ["dwp"],
        p_prune=_numbers("--p-prune", p_prune, SEARCHED_P_PRUNE if search else (0.3,)),
        p_bern=_numbers("--p-bern", p_bern, SEARCHED_P_BERN if search else (0.5,)),
        granularity=granularity or ["weight"],
        scope=scope or ["global"],
        score=score or ["magnitude"],
        redraw=[int(word) if word.isdigit() else word for word in redraw or ["forward"]],
        prune_type=prune_type or ["global"],
        layers=layers,
        include=include,
        exclude=exclude,
        rapa_p_bern=_numbers("--rapa-p-bern", rapa_p_bern, (0.05,)),
        mup_p_prune=_numbers("--mup-p-prune", mup_p_prune, (0.15,)),
    ).all
    chosen_seeds = whole_numbers("--seeds", seeds or ["0"])
    check_seeds(chosen_seeds)
    searching = _search(search, search_images, search_steps)
    place = pick_device(device)
    check_loader_options(1 if batch_size is None else batch_size, None, limit)
    if not surrogates:
        raise InvalidArgumentError("no networks to attack with: write --surrogates NAME NAME")
    if data is None and not small:
        raise InvalidArgumentError("no images: write --data DIR, a folder, or --data digits")
    data = data or "digits"
    check_data(data)
    keep_freed_memory()
    set_threads(threads, small=small)
    torch.manual_seed(0)  # for NAME=random
    names = ", ".join([*surrogates, *(targets or ())])
    say(f"loading the networks {names} and the data {data} ...")
    networks = load_networks(
        surrogates, targets or (), hold_one_out=hold_one_out, together=together, device=place
    )
    check_variants(networks.groups, variants)
    images, origin = load_images(
        data,
        networks,
        img_size=img_size,
        split=split,
        data_root=data_root,
        limit=limit or (DIGITS_LIMIT if small else None),
        skip_corrupt=skip_corrupt,
        interpolation=interpolation,
        seed=image_seed,
    )
    benchmark = Benchmark(
        groups=networks.groups,
        images=images,
        variants=variants,
        protocol=fitted_batch(protocol, batch_size, images, place),
        seeds=chosen_seeds,
        search=searching,
        origin=origin,
    )
    folder = output or default_output(benchmark)
    rows = benchmark.run(
        output=folder,
        overwrite=not resume,
        save_images=folder / "images" if save_images else None,
        started=lambda: say_images(images, origin, targeted=not untargeted),
    )
    with Stdout(written=True) as stdout:
        files = report_on(rows, folder, title, stdout)
        say(f"wrote {', '.join(files)} to {folder}")


def _is_digits(networks: Sequence[str], data: str | None) -> bool:
    """Whether this is about the embedded digits and their networks, for which all is smaller."""
    return data in (None, "digits") and all(name in DIGITS_NAMES for name in networks)


def _numbers(option: str, words: list[str] | None, usual: Sequence[float]) -> list[float]:
    return numbers(option, words) if words else list(usual)


def _search(wanted: bool, images: int | None, steps: int | None) -> Search | None:
    if wanted:
        return Search(images=images, steps=steps)
    for option, value in (("--search-images", images), ("--search-steps", steps)):
        if value is not None:
            raise InvalidArgumentError(f"{option} belongs to a search: write --search too")
    return None
