"""The commands: what each takes, and what it says before anything large is imported.

Nothing here imports torch: help, and what was mistyped, should not wait for it. Each command
returns a function that does the work.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from secateurs._console import say
from secateurs._validation import nearest
from secateurs.cli.budget_options import NAMED_DATA, BudgetPruning, BudgetRunning, Claim
from secateurs.cli.option_types import DIGITS_FAMILY, DIGITS_NETWORKS
from secateurs.cli.printing import Printing, Work
from secateurs.cli.processes import is_first
from secateurs.cli.repairing_options import RepairImages, Repairing, RepairPruning, RepairRunning
from secateurs.cli.retrain_options import (
    RetrainImages,
    RetrainPruning,
    RetrainRunning,
    RetrainTraining,
)
from secateurs.cli.sensitivity_options import Allocating, LayerPruning, LayerRepair
from secateurs.cli.speed_options import SpeedNetwork, SpeedOutput, SpeedPruning
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

_SMALL = {"lenet300": "mnist", "lenet5": "mnist", "mlpnet": "mnist", "resnet20": "cifar10"}
_USUAL_DATA = dict.fromkeys(DIGITS_NETWORKS, "digits") | _SMALL


def sweep(
    *,
    images: SweepImages = SweepImages(),
    pruning: SweepPruning = SweepPruning(),
    repairing: SweepRepair = SweepRepair(),
    preprocessing: Preprocessing = Preprocessing(),
    running: SweepRunning = SweepRunning(),
    printing: Printing = Printing(),  # noqa: ARG001  the parser reads it
) -> Work:
    """Prune a classifier at a list of ratios and report how accuracy falls.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    data = _scored_data(images)
    user = _user_of_calibration(repairing.calibration, repairing.repair, pruning.score)
    if user and repairing.calibration is None:
        if data != "digits":
            raise InvalidArgumentError(
                f"{user} needs images, without labels, none of which is scored: write "
                "--calibration DIR"
            )
        repairing = replace(repairing, calibration="digits")  # their training images
    _say_loading(f"the network {images.arch} and the data {data}")
    from secateurs.cli.sweep_command import run_sweep

    return partial(run_sweep, images, data, pruning, repairing, preprocessing, running)


def sensitivity(
    *,
    images: SweepImages = SweepImages(),
    pruning: LayerPruning = LayerPruning(),
    repairing: LayerRepair = LayerRepair(),
    allocating: Allocating = Allocating(),
    preprocessing: Preprocessing = Preprocessing(),
    running: SweepRunning = SweepRunning(),
    printing: Printing = Printing(),  # noqa: ARG001  the parser reads it
) -> Work:
    """Prune each layer of a classifier alone, at several ratios, and report what it costs.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    data = _scored_data(images)
    _user_of_calibration(repairing.calibration, repairing.repair, [pruning.score])
    _say_loading(f"the network {images.arch} and the data {data}")
    from secateurs.cli.sensitivity_command import run_sensitivity

    return partial(
        run_sensitivity, images, data, pruning, repairing, allocating, preprocessing, running
    )


def budget(
    *,
    images: SweepImages = SweepImages(),
    claim: Claim = Claim(),
    pruning: BudgetPruning = BudgetPruning(),
    preprocessing: Preprocessing = Preprocessing(),
    running: BudgetRunning = BudgetRunning(),
    printing: Printing = Printing(),  # noqa: ARG001  the parser reads it
) -> Work:
    """Find the sparsest network whose accuracy provably drops by less than a margin.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    data = _scored_data(images)
    user = _user_of_calibration(claim.calibration, claim.repair, [pruning.score])
    if user and claim.calibration is None and data not in NAMED_DATA:
        raise InvalidArgumentError(
            f"{user} needs images that are not scored: write --calibration DIR, a folder of "
            "images without labels"
        )
    _say_loading(f"the network {images.arch} and the data {data}")
    from secateurs.cli.budget_command import run_budget

    return partial(run_budget, images, data, claim, pruning, preprocessing, running)


def _scored_data(images: SweepImages) -> str:
    """The data of a command that scores a network."""
    if images.data is None and images.arch not in DIGITS_NETWORKS:
        raise InvalidArgumentError(
            f"--arch {images.arch} needs images: write --data DIR, a folder in ImageNet layout"
            + _small_network(images.arch)
        )
    return images.data or "digits"


def _say_loading(what: str) -> None:
    if is_first():
        say(f"loading {what} ...")


def _user_of_calibration(
    calibration: str | None, repair: Sequence[str], scores: Sequence[str]
) -> str:
    """The option that needs calibration images, for errors; empty if none does.

    Raises:
        InvalidArgumentError: there are such images, but nothing that uses them.
    """
    if repair:
        return "--repair"
    for name in scores:
        if name in CRITERIA and CRITERIA[name].needs_inputs:
            return f"--score {name}"
    if calibration is not None:
        raise InvalidArgumentError(
            "--calibration belongs to a repair, or to a score that reads inputs: write "
            "--repair batchnorm reconstruct, too"
        )
    return ""


def speed(
    *,
    network: SpeedNetwork = SpeedNetwork(),
    pruning: SpeedPruning = SpeedPruning(),
    running: SpeedOutput = SpeedOutput(),
    printing: Printing = Printing(),  # noqa: ARG001  the parser reads it
) -> Work:
    """Measure images a second of a pruned network, dense and accelerated.

    With no options: a small network on the digits of scikit-learn.
    """
    _say_loading(f"the network {network.arch}")
    from secateurs.cli.speed_command import run_speed

    return partial(run_speed, network, pruning, running)


def retrain(
    *,
    images: RetrainImages = RetrainImages(),
    pruning: RetrainPruning = RetrainPruning(),
    training: RetrainTraining = RetrainTraining(),
    running: RetrainRunning = RetrainRunning(),
    printing: Printing = Printing(),
) -> Work:
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
    _say_loading(f"the network {images.arch} and the data {data}")
    from secateurs.cli.retrain_command import run_retrain

    images = replace(images, data=data)
    return partial(run_retrain, images, pruning, training, running, printing.log_to)


def _small_network(arch: str) -> str:
    """What to write if this is a small network of the package, or nearly the name of one."""
    if arch in _USUAL_DATA:
        return f", or --data {_USUAL_DATA[arch]}"
    return nearest(arch, _USUAL_DATA, at_least=0.8)


def _usual_data(arch: str) -> str:
    """The data that a network is made for."""
    if arch in _USUAL_DATA:
        return _USUAL_DATA[arch]
    raise InvalidArgumentError(
        f"--arch {arch} needs images: write --data DIR, a folder with DIR/train/CLASS/*"
        + _small_network(arch)
    )


def repair(
    *,
    images: RepairImages = RepairImages(),
    pruning: RepairPruning = RepairPruning(),
    repairing: Repairing = Repairing(),
    preprocessing: Preprocessing = Preprocessing(),
    running: RepairRunning = RepairRunning(),
    printing: Printing = Printing(),  # noqa: ARG001  the parser reads it
) -> Work:
    """Prune a network and win its accuracy back from a few images, without labels.

    With no options: a small network on the digits of scikit-learn, in seconds.
    """
    digits = images.arch in DIGITS_NETWORKS
    if images.data is None and not digits:
        raise InvalidArgumentError(
            f"--arch {images.arch} needs images, without labels: write --data DIR, a folder with "
            "images" + _small_network(images.arch)
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
    _say_loading(f"the network {images.arch} and the data {data}")
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
    printing: Printing = Printing(),  # noqa: ARG001  the parser reads it
) -> Work:
    """Attack some networks, plain and diversified by pruning, and score on others.

    With no options: four small networks on the digits of scikit-learn, in about two minutes; on
    these diversification gains nothing.
    """
    _refuse_search_options(searching)
    asked = _with_defaults(images)
    names = ", ".join((*asked.surrogates, *asked.targets))
    _say_loading(f"the networks {names} and the data {asked.data}")
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
