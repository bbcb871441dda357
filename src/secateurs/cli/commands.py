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
from secateurs.cli.budget_options import NAMED_DATA, BudgetPruning, BudgetRunning, Claim
from secateurs.cli.option_types import DIGITS_FAMILY, DIGITS_NETWORKS, with_help
from secateurs.cli.processes import is_first
from secateurs.cli.prune_options import FilePruning, Writing
from secateurs.cli.retrain_options import (
    RetrainImages,
    RetrainPruning,
    RetrainRunning,
    RetrainTraining,
)
from secateurs.cli.sensitivity_options import Allocating, LayerPruning
from secateurs.cli.sweep_options import Preprocessing, SweepImages, SweepPruning, SweepRunning
from secateurs.cli.transfer_options import (
    Attack,
    DwpPruning,
    Recipes,
    Searching,
    TransferImages,
    TransferRunning,
)
from secateurs.errors import InvalidArgumentError

_MNIST, _CIFAR10 = ("lenet300", "lenet5", "mlpnet"), ("resnet20",)


def sweep(
    *,
    images: SweepImages = SweepImages(),
    pruning: SweepPruning = SweepPruning(),
    preprocessing: Preprocessing = Preprocessing(),
    running: SweepRunning = SweepRunning(),
) -> Callable[..., None]:
    """Prune a classifier at a list of ratios and report how accuracy falls.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    data = _scored_data(images)
    from secateurs.cli.sweep_command import run_sweep

    return partial(run_sweep, images, data, pruning, preprocessing, running)


def sensitivity(
    *,
    images: SweepImages = SweepImages(),
    pruning: LayerPruning = LayerPruning(),
    allocating: Allocating = Allocating(),
    preprocessing: Preprocessing = Preprocessing(),
    running: SweepRunning = SweepRunning(),
) -> Callable[[], None]:
    """Prune each layer of a classifier alone, at several ratios, and report what it costs.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    data = _scored_data(images)
    from secateurs.cli.sensitivity_command import run_sensitivity

    return partial(run_sensitivity, images, data, pruning, allocating, preprocessing, running)


def budget(
    *,
    images: SweepImages = SweepImages(),
    claim: Claim = Claim(),
    pruning: BudgetPruning = BudgetPruning(),
    preprocessing: Preprocessing = Preprocessing(),
    running: BudgetRunning = BudgetRunning(),
) -> Callable[[], None]:
    """Find the sparsest network whose accuracy provably drops by less than a margin.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    data = _scored_data(images)
    if claim.repair and claim.calibration is None and data not in NAMED_DATA:
        raise InvalidArgumentError(
            "--repair needs images that are not scored: write --calibration DIR, a folder of "
            "images without labels"
        )
    from secateurs.cli.budget_command import run_budget

    return partial(run_budget, images, data, claim, pruning, preprocessing, running)


@with_help
def compare(
    folders: list[Path],
    /,
    *,
    confidence: float = 0.95,
    json: bool = False,
) -> Callable[[], None]:
    """Compare the accuracies of sweeps with those of the first one, with intervals.

    Args:
        folders: Output folders of two or more sweeps; of one, its networks are compared with the
            dense one.
        confidence: Of the intervals.
        json: Print JSON, one object a line.
    """
    from secateurs.cli.compare_command import run_compare

    return partial(run_compare, folders, confidence, as_json=json)


def _scored_data(images: SweepImages) -> str:
    """The data of a command that scores a network, and a line that says what is loaded."""
    if images.data is None and images.arch not in DIGITS_NETWORKS:
        raise InvalidArgumentError(
            f"--arch {images.arch} needs images: write --data DIR, a folder in ImageNet layout"
        )
    data = images.data or "digits"
    if is_first():
        say(f"loading the network {images.arch} and the data {data} ...")
    return data


def retrain(
    *,
    images: RetrainImages = RetrainImages(),
    pruning: RetrainPruning = RetrainPruning(),
    training: RetrainTraining = RetrainTraining(),
    running: RetrainRunning = RetrainRunning(),
) -> Callable[..., None]:
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


def _usual_data(arch: str) -> str:
    """The data that a network is made for."""
    for names, data in ((DIGITS_NETWORKS, "digits"), (_MNIST, "mnist"), (_CIFAR10, "cifar10")):
        if arch in names:
            return data
    raise InvalidArgumentError(
        f"--arch {arch} needs images: write --data DIR, a folder with DIR/train/CLASS/*"
    )


def transfer(
    *,
    images: TransferImages = TransferImages(),
    attack: Attack = Attack(),
    recipes: Recipes = Recipes(),
    pruning: DwpPruning = DwpPruning(),
    searching: Searching = Searching(),
    running: TransferRunning = TransferRunning(),
) -> Callable[[], None]:
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
    asked = (pruning.p_prune, pruning.ratios_from)
    if writing.decompress and (asked != (None, None) or writing.compress or writing.dry_run):
        raise InvalidArgumentError("--decompress goes with IN and --output alone")
    if asked == (None, None) and not writing.decompress:
        raise InvalidArgumentError("--p-prune is missing: write --p-prune 0.5 for half")
    if None not in asked:
        raise InvalidArgumentError("give --p-prune or --ratios-from, not both")
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
    """Print the table of sweeps, sensitivity runs, transfers or retrainings, and draw them.

    Args:
        folders: Output folders of sweeps, or of other runs of one kind, or their results.jsonl or
            results.csv.
        output: Where to write the plot: PATH.png and PATH.svg; of transfers two, PATH-heatmap and
            PATH-curves; of several retrainings or
            sensitivity runs one each, PATH-FOLDER.
        x: Horizontal axis of sweeps: achieved (of weights) or p_prune (of units).
        title: Title of the plot.
        markdown: Print the table in markdown.
    """
    from secateurs.cli.report_command import run_report

    return partial(run_report, folders, output, x, title, markdown=markdown)
