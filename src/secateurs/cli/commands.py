"""The commands: what each takes, and what it says before anything large is imported.

Nothing here imports torch: help, and what was mistyped, should not wait for it. Each command
returns what does the work.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token, convert

from secateurs._console import say
from secateurs._validation import nearest
from secateurs.cli.option_types import DIGITS_FAMILY, DIGITS_NETWORKS, with_help
from secateurs.cli.processes import is_first
from secateurs.cli.prune_options import FilePruning, Writing
from secateurs.cli.repairing_options import RepairImages, Repairing, RepairPruning, RepairRunning
from secateurs.cli.retrain_options import (
    RetrainImages,
    RetrainPruning,
    RetrainRunning,
    RetrainTraining,
)
from secateurs.cli.sweep_options import (
    Preprocessing,
    SweepImages,
    SweepPruning,
    SweepRepair,
    SweepRunning,
)
from secateurs.cli.transfer_options import (
    Attack,
    DwpPruning,
    Recipes,
    Searching,
    TransferImages,
    TransferRunning,
)
from secateurs.criteria import CRITERIA
from secateurs.errors import InvalidArgumentError

_MNIST, _CIFAR10 = ("lenet300", "lenet5", "mlpnet"), ("resnet20",)


def sweep(
    *,
    images: SweepImages = SweepImages(),
    pruning: SweepPruning = SweepPruning(),
    repairing: SweepRepair = SweepRepair(),
    preprocessing: Preprocessing = Preprocessing(),
    running: SweepRunning = SweepRunning(),
) -> Callable[..., Path | None]:
    """Prune a classifier at a list of ratios and report how accuracy falls.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    if images.data is None and images.arch not in DIGITS_NETWORKS:
        raise InvalidArgumentError(
            f"--arch {images.arch} needs images: write --data DIR, a folder in ImageNet layout"
            + _nearest_small(images.arch)
        )
    data = images.data or "digits"
    repairing = _with_calibration(repairing, pruning, data)
    if is_first():
        say(f"loading the network {images.arch} and the data {data} ...")
    from secateurs.cli.sweep_command import run_sweep

    return partial(run_sweep, images, data, pruning, repairing, preprocessing, running)


def _with_calibration(repairing: SweepRepair, pruning: SweepPruning, data: str) -> SweepRepair:
    """The digits' training images where nothing else was asked for, if images are needed."""
    observing = [name for name in pruning.score if name in CRITERIA and CRITERIA[name].needs_inputs]
    if not (repairing.repair or observing):
        if repairing.calibration is not None:
            raise InvalidArgumentError(
                "--calibration belongs to a repair, or to a score that reads inputs: write "
                "--repair batchnorm reconstruct, too"
            )
        return repairing
    if repairing.calibration is None and data != "digits":
        what = "--repair" if repairing.repair else f"--score {observing[0]}"
        raise InvalidArgumentError(
            f"{what} needs images, without labels, none of which is scored: write --calibration DIR"
        )
    return replace(repairing, calibration=repairing.calibration or "digits")


def retrain(
    *,
    images: RetrainImages = RetrainImages(),
    pruning: RetrainPruning = RetrainPruning(),
    training: RetrainTraining = RetrainTraining(),
    running: RetrainRunning = RetrainRunning(),
) -> Callable[..., Path | None]:
    """Train a classifier, prune it, and train what is left.

    With no options: a small network on the digits of scikit-learn, in under a minute.
    """
    if pruning.ratio is not None and pruning.compression is not None:
        raise InvalidArgumentError("give --ratio or --compression, not both")
    if pruning.compression is not None and not pruning.compression >= 1:
        raise InvalidArgumentError(
            f"--compression must be at least 1, got {pruning.compression:g}; 12 keeps a twelfth"
        )
    data = images.data or _usual_data(images.arch)
    if is_first():
        say(f"loading the network {images.arch} and the data {data} ...")
    from secateurs.cli.retrain_command import run_retrain

    return partial(run_retrain, replace(images, data=data), pruning, training, running)


def _nearest_small(arch: str) -> str:
    """A network that needs no images and has nearly this name, as after a slip of the finger."""
    return nearest(arch, [*DIGITS_NETWORKS, *_MNIST, *_CIFAR10], at_least=0.8)


def _usual_data(arch: str) -> str:
    """The data that a network is made for."""
    for names, data in ((DIGITS_NETWORKS, "digits"), (_MNIST, "mnist"), (_CIFAR10, "cifar10")):
        if arch in names:
            return data
    raise InvalidArgumentError(
        f"--arch {arch} needs images: write --data DIR, a folder with DIR/train/CLASS/*"
        + _nearest_small(arch)
    )


def repair(
    *,
    images: RepairImages = RepairImages(),
    pruning: RepairPruning = RepairPruning(),
    repairing: Repairing = Repairing(),
    preprocessing: Preprocessing = Preprocessing(),
    running: RepairRunning = RepairRunning(),
) -> Callable[[], Path]:
    """Prune a network and win its accuracy back from a few images, without labels.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    digits = images.arch in DIGITS_NETWORKS
    if images.data is None and not digits:
        raise InvalidArgumentError(
            f"--arch {images.arch} needs images, without labels: write --data DIR, a folder with "
            "images" + _nearest_small(images.arch)
        )
    if digits and images.data is None and images.test_data is None:
        images = replace(images, test_data="digits")
    if pruning.p_prune is not None and pruning.ratios_from is not None:
        raise InvalidArgumentError("give --p-prune or --ratios-from, not both")
    if pruning.p_prune is None and pruning.ratios_from is None:
        if not digits:
            raise InvalidArgumentError("--p-prune is missing: write --p-prune 0.5 for half")
        pruning = replace(pruning, p_prune=0.9)
    if pruning.p_prune == 0:
        raise InvalidArgumentError("--p-prune 0 prunes nothing: write --p-prune 0.5 for half")
    data = images.data or "digits"
    say(f"loading the network {images.arch} and the data {data} ...")
    from secateurs.cli.repair_command import run_repair

    return partial(run_repair, images, data, pruning, repairing, preprocessing, running)


def transfer(
    *,
    images: TransferImages = TransferImages(),
    attack: Attack = Attack(),
    recipes: Recipes = Recipes(),
    pruning: DwpPruning = DwpPruning(),
    searching: Searching = Searching(),
    running: TransferRunning = TransferRunning(),
) -> Callable[[], Path]:
    """Attack some networks, plain and diversified by pruning, and score on others.

    With no options: four small networks on the digits of scikit-learn, in about two minutes.
    """
    _refuse_search_options(searching)
    asked = _with_defaults(images)
    names = ", ".join((*asked.surrogates, *asked.targets))
    say(f"loading the networks {names} and the data {asked.data} ...")
    from secateurs.cli.transfer_command import run_transfer

    return partial(run_transfer, asked, attack, recipes, pruning, searching, running)


def _with_defaults(images: TransferImages) -> TransferImages:
    """The digits and their networks where nothing else was asked for."""
    if images.small and not images.surrogates:
        alone = images.hold_one_out or not (images.targets or images.ensemble)
        images = replace(images, surrogates=DIGITS_FAMILY, hold_one_out=alone)
    if not images.surrogates:
        raise InvalidArgumentError("no networks to attack with: write --surrogates NAME NAME")
    if images.data is None and not images.small:
        raise InvalidArgumentError("no images: write --data DIR, a folder, or --data digits")
    return replace(images, data=images.data or "digits")


def _refuse_search_options(searching: Searching) -> None:
    for option, value in (
        ("--search-images", searching.search_images),
        ("--search-steps", searching.search_steps),
    ):
        if value is not None and not searching.search:
            raise InvalidArgumentError(f"{option} belongs to a search: write --search too")


def prune(
    source: Annotated[
        Path,
        Parameter(
            name="IN",
            help="A .safetensors, .pt or .bin file, or a folder as Hugging Face writes it.",
        ),
    ],
    /,
    *,
    pruning: FilePruning = FilePruning(),
    writing: Writing = Writing(),
) -> Callable[[], None]:
    """Prune the weights in a file or folder, however large, in two passes over it."""
    if writing.decompress and (pruning.p_prune is not None or writing.compress or writing.dry_run):
        raise InvalidArgumentError("--decompress goes with IN and --output alone")
    if pruning.p_prune is None and ":" not in pruning.scope and not writing.decompress:
        raise InvalidArgumentError("--p-prune is missing: write --p-prune 0.5 for half")
    from secateurs.cli.prune_command import decompress, plan_only, prune_file

    if writing.dry_run:
        return partial(plan_only, source, pruning)
    if writing.decompress:
        return partial(decompress, source, writing.output)
    return partial(prune_file, source, writing.output, pruning, compress=writing.compress)


def _underscored(kind: Any, tokens: Sequence[Token]) -> Any:
    return convert(kind, [token.evolve(value=token.value.replace("-", "_")) for token in tokens])


@with_help
def report(
    folders: list[Path],
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    x: Annotated[Literal["achieved", "p_prune"], Parameter(converter=_underscored)] = "achieved",
    title: str | None = None,
    markdown: bool = False,
) -> Callable[[], None]:
    """Print the table of one or more sweeps, transfers, retrainings or repairs, and draw them.

    Args:
        folders: Output folders of sweeps, or of transfers, or of retrainings, or of repairs
            (which have no plot), or their results.jsonl or results.csv.
        output: Where to write the plot: PATH.png and PATH.svg; of transfers two, PATH-heatmap and
            PATH-curves; of several retrainings one each, PATH-FOLDER.
        x: Horizontal axis of sweeps: achieved (of weights) or p_prune (of units).
        title: Title of the plot.
        markdown: Print the table in markdown.
    """
    from secateurs.cli.report_command import run_report

    return partial(run_report, folders, output, x, title, markdown=markdown)
