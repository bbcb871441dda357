"""``secateurs retrain``: train, prune, and train what is left."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from secateurs.cli.option_types import (
    CompetingInScope,
    MaybeRatio,
    MaybeWhole,
    NetworkAndData,
    Ratio,
    ResumableOutput,
    Several,
    Whole,
    panel,
)


@panel("What to train", 1)
@dataclass(frozen=True, kw_only=True)
class RetrainImages(NetworkAndData):
    """The network and the images.

    Args:
        arch: lenet300, lenet5 or mlpnet (MNIST), resnet20 (CIFAR-10), digits, torchvision:NAME,
            timm:NAME, hf:NAME, or package.module:function.
        weights: A .safetensors or .pt file, or the name of published weights, to begin with;
            without it the network is trained first.
        data: mnist, fashion-mnist, cifar10, digits, ..., or a folder: DIR/train/CLASS/*, or
            DIR/train.parquet with columns image and label.
        split: Which part of the data is trained on.
        test_split: Which part is scored at the end; default test, or val of folders that have it.
        test_data: Other data for the score at the end; default --data.
        validation: Ratio of the training images that choose the best epoch instead.
        limit: Train on this many images, spread evenly over the data.
        img_size: Input size in pixels, if not the network's own.
    """

    split: str = "train"
    test_split: str | None = None
    test_data: str | None = None
    validation: float = 0.1
    img_size: MaybeWhole = None


@panel("How to prune", 2)
@dataclass(frozen=True, kw_only=True)
class RetrainPruning(CompetingInScope):
    """How much is pruned, when, and what may come back.

    Args:
        ratio: Ratio of units that are pruned in the end; default 0.9, or that of --scope N:M.
        compression: Instead of a ratio: how many times fewer, 12 for a ratio of 11/12.
        schedule: one-shot (at once), iterative (in rounds, Han et al. 2015), or cubic (fast at
            first, Zhu and Gupta 2017).
        rounds: Of the iterative schedule.
        rewind: Go back to the weights before the pruning at each round (Frankle and Carbin 2019).
        ramp: Part of the epochs over which the cubic schedule prunes.
        every: Steps between two prunings of the cubic schedule, of which there are at least ten,
            and between two regrowths; default 100, and 1 with --regrow magnitude.
        regrow: Let pruned weights come back: none, magnitude (dynamic network surgery, Guo et al.
            2016) or gradient (RigL, Evci et al. 2020).
        keep_at_least: Ratio of its units that each layer keeps at least.
        scope: Who competes with whom: global (all units), layer, or N:M, such as 2:4: of every 4
            consecutive inputs 2 are kept, at once, so that --ratio is 0.5.
    """

    ratio: Annotated[MaybeRatio, Parameter(alias="--p-prune")] = None  # as other commands call it
    compression: float | None = None
    schedule: Literal["one-shot", "iterative", "cubic"] = "cubic"
    rounds: Whole = 5
    rewind: bool = False
    ramp: Ratio = 0.5
    every: MaybeWhole = None
    regrow: Literal["none", "magnitude", "gradient"] = "none"
    keep_at_least: Ratio = 0.0


@panel("How to train", 3)
@dataclass(frozen=True, kw_only=True)
class RetrainTraining:
    """Epochs, optimizer and batches.

    Args:
        dense_epochs: Epochs before any pruning; default 20 (digits 10), with --weights 0.
        epochs: Epochs of retraining; default 40 (digits 20).
        optimizer: sgd (Nesterov momentum 0.9), adam or adamw.
        dense_lr: Highest learning rate before any pruning; default 0.05 (lenet5 0.02).
        lr: Highest learning rate of the retraining.
        weight_decay: L2 penalty of weights, not of biases and normalisation.
        warmup: Epochs over which the learning rate rises.
        batch_size: Images a step.
        augment: none, shift (by up to two pixels), flip (left to right) or crop-flip.
        distill: Weight of the dense network's probabilities beside the labels in the retraining, 0
            (labels alone) to 1 (Hinton et al. 2015); often 0.9, with a lower --lr, such as 0.02.
        temperature: Of these probabilities: the higher, the more the less likely classes count.
        seed: Of weights, order, augmentation and draws.
        seeds: Several runs, one a seed.
    """

    dense_epochs: MaybeWhole = None
    epochs: MaybeWhole = None
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    dense_lr: float | None = None
    lr: float = 0.05
    weight_decay: float = 5e-4
    warmup: float = 0.0
    batch_size: Annotated[Whole, Parameter(alias="-b")] = 128
    augment: Literal["none", "shift", "flip", "crop-flip"] = "none"
    distill: float = 0.0
    temperature: float = 4.0
    seed: Whole = 0
    seeds: Several[int] = ()


@panel("Running", 4)
@dataclass(frozen=True, kw_only=True)
class RetrainRunning(ResumableOutput):
    """Where it runs and where the results go.

    Args:
        workers: Processes that decode images.
        amp: Compute in bfloat16 where autocast does.
        title: Title of the plot.
    """

    workers: Annotated[MaybeWhole, Parameter(alias="-j")] = None
    amp: bool = False
    title: str | None = None
