"""``secateurs retrain``: train, prune, and train what is left."""

import json
import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from secateurs._progress import progress_bar
from secateurs._validation import check_count, check_not_negative
from secateurs.cli.loading import check_loader_options, default_folder, pick_device, set_threads_for
from secateurs.cli.option_types import DIGITS_NETWORKS
from secateurs.cli.printing import Tracker, logging_to
from secateurs.cli.retrain_options import (
    RetrainImages,
    RetrainPruning,
    RetrainRunning,
    RetrainTraining,
)
from secateurs.cli.retrain_summary import clear, files_of_runs, report, row_line, write_masks
from secateurs.cli.row_columns import selection_of, shared_columns
from secateurs.cli.torchrun import in_turn, own_device
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.evaluation.batches import workers_watched
from secateurs.evaluation.ranks import Ranks
from secateurs.provenance import tensors_sha256
from secateurs.results import Results, RetrainRow
from secateurs.selection.scopes import NOfM
from secateurs.training.labelled_images import LabelledImages, StreamedImages, TrainingImages
from secateurs.training.retrain import RetrainData, Retraining
from secateurs.training.retrain_plan import RetrainPlan
from secateurs.training.settings import TrainingSettings
from secateurs.zoo import LoadedData, LoadedModel, check_data, load_data, load_model
from secateurs.zoo.models import untrained_weights
from secateurs.zoo.same_images import same_files
from secateurs.zoo.weights_file import read_weights

_DENSE_LR = {"lenet5": 0.02}
"""Default learning rates: without BatchNorm, lenet5 diverges at 0.05 with one seed in ten."""

_IN_MEMORY = 4 * 2**30
"""Bytes of decoded images that are kept in memory; more are decoded anew in each epoch."""


@workers_watched()
def run_retrain(
    asked: RetrainImages,
    pruning: RetrainPruning,
    training: RetrainTraining,
    running: RetrainRunning,
    log_to: Sequence[Tracker] = (),
    ranks: Ranks | None = None,
) -> Path | None:
    """Load, train, prune, retrain, and report; the first of several ranks reports alone.

    The options are those of `secateurs.cli.commands.retrain`.

    Returns:
        The folder of the results, on rank 0.
    """
    ranks = ranks or Ranks()
    seeds = _seeds(training)
    plans = {seed: make_plan(asked, pruning, training, seed, amp=running.amp) for seed in seeds}
    plans[seeds[0]].check_ranks(ranks.size)
    if ranks.is_first:
        _warn_unused(pruning, training, plans[seeds[0]])
    device = own_device(ranks, pick_device(running.device))
    check_loader_options(training.batch_size, running.workers, asked.limit)
    check_data(_name_of(asked))
    set_threads_for(asked.arch)
    model = in_turn(ranks, lambda: _load_model(asked, seeds[0]))
    images, label = in_turn(ranks, lambda: _images(asked, model, device, running.workers or 0))
    config = _config(asked, pruning, training, running, label)
    config["images"] = [len(images.train), len(images.validation)]
    config["dense_lr"] = plans[seeds[0]].dense.learning_rate
    folder = running.output or _default_output(asked, config)
    _check_kept(asked.weights, folder)
    rows: list[RetrainRow] = []
    with ExitStack() as stack:
        results = None
        folders = {seed: folder / f"seed-{seed}" if training.seeds else folder for seed in seeds}
        with ranks.together():
            if ranks.is_first:
                results = stack.enter_context(Results(folder, RetrainRow))
                results.open(
                    config, overwrite=not running.resume, growing=("seeds",),
                    begin=lambda: clear(folder),
                )  # fmt: skip
        epochs = sum(plans[seed].dense.epochs + plans[seed].retraining.epochs for seed in seeds)
        total = epochs * len(images.train)
        bar = stack.enter_context(
            progress_bar("Training", total, show=None if ranks.is_first else False)
        )
        log = stack.enter_context(logging_to(log_to if ranks.is_first else (), folder, config))

        def tell(row: RetrainRow) -> None:
            bar.say(row_line(row))
            log([row])

        for seed in seeds:
            own = folders[seed]
            own.mkdir(parents=True, exist_ok=True)
            model = _load_model(asked, seed)
            model.model.to(device)
            run = Retraining(
                model.model,
                images,
                plans[seed],
                columns=_columns(model, label, device, plans[seed]),
                results=results,
                folder=own,
                say=tell if ranks.is_first else lambda _: None,
                bar=bar,
                process_group=ranks.group,
            )
            rows += run.run()
            with ranks.together():
                if ranks.is_first:
                    write_masks(model.model, own, plans[seed].options)
    if ranks.is_first:
        last = seeds[-1]
        report(rows, folder, folders[last], model.model, plans[last].options, running.title)
        return folder
    return None


def make_plan(
    asked: RetrainImages,
    pruning: RetrainPruning,
    training: RetrainTraining,
    seed: int,
    *,
    amp: bool,
) -> RetrainPlan:
    """The options as the library takes them; wrong values are refused before anything is loaded."""
    digits = asked.arch in DIGITS_NETWORKS
    dense = training.dense_epochs
    if dense is None:
        dense = 0 if asked.weights is not None else 10 if digits else 20
    epochs = training.epochs if training.epochs is not None else 20 if digits else 40
    check_count("dense_epochs", dense, 0)
    dense_lr = training.dense_lr
    if dense_lr is None:
        dense_lr = _DENSE_LR.get(asked.arch, 0.05)
    check_not_negative("dense_lr", dense_lr)
    common: dict[str, Any] = {
        "optimizer": training.optimizer,
        "weight_decay": training.weight_decay,
        "batch_size": training.batch_size,
        "warmup": training.warmup,
        "augment": training.augment,
        "amp": amp,
    }
    if training.distill and asked.weights is None and dense == 0:
        raise InvalidArgumentError(
            "--distill learns from the dense network, which is not trained with --dense-epochs 0: "
            "write more, or --weights"
        )
    neighbours = NOfM.read(pruning.scope)
    ratio = pruning.ratio
    if ratio is None:
        ratio = 0.9 if neighbours is None else neighbours.ratio
    if pruning.compression is not None:
        ratio = 1 - 1 / pruning.compression
    return RetrainPlan(
        ratio=ratio,
        dense=TrainingSettings(epochs=dense, learning_rate=dense_lr, **common),
        retraining=TrainingSettings(epochs=epochs, learning_rate=training.lr, **common),
        schedule=pruning.schedule,
        rounds=pruning.rounds,
        rewind=pruning.rewind,
        ramp=pruning.ramp,
        every=pruning.every,
        keep_at_least=pruning.keep_at_least,
        regrowth=pruning.regrow,
        distill=training.distill,
        temperature=training.temperature,
        options=selection_of(pruning),
        seed=seed,
    )


def _warn_unused(pruning: RetrainPruning, training: RetrainTraining, plan: RetrainPlan) -> None:
    """Warn of options without effect, since what they belong to was not asked for."""
    prunes_often = pruning.schedule == "cubic" or pruning.regrow != "none"
    used = {
        "rounds": pruning.schedule == "iterative" or "without --schedule iterative",
        "ramp": pruning.schedule == "cubic" or "without --schedule cubic",
        "every": prunes_often or "without --schedule cubic or --regrow",
        "temperature": training.distill > 0 or "without --distill",
        "dense_lr": plan.dense.epochs > 0 or "without --dense-epochs",
        "seed": not training.seeds or "beside --seeds",
    }
    for name, reason in used.items():
        options = pruning if hasattr(pruning, name) else training
        if reason is not True and getattr(options, name) != getattr(type(options)(), name):
            option = "--" + name.replace("_", "-")
            warnings.warn(f"{option} has no effect {reason}", stacklevel=2)


def _seeds(training: RetrainTraining) -> list[int]:
    return list(dict.fromkeys(training.seeds)) or [training.seed]


def _check_kept(weights: str | None, folder: Path) -> None:
    """Refuse a file of weights that a new run in this folder would remove or replace."""
    if weights is not None and Path(weights).resolve() in map(Path.resolve, files_of_runs(folder)):
        raise InvalidArgumentError(
            Argument("weights", weights), " is a file that this run would replace: give another ",
            Argument("output"),
        )  # fmt: skip


def _load_model(asked: RetrainImages, seed: int) -> LoadedModel:
    torch.manual_seed(seed)  # of weights that are drawn
    return load_model(
        asked.arch,
        weights=asked.weights or untrained_weights(asked.arch),
        num_classes=asked.num_classes,
        img_size=asked.img_size,
    )


def _images(
    asked: RetrainImages, model: LoadedModel, device: torch.device, workers: int
) -> tuple[RetrainData, str]:
    """The images, and what the rows call them."""
    load = partial(
        load_data, model=model, data_root=asked.data_root, skip_corrupt=asked.skip_corrupt
    )
    data = _name_of(asked)
    train = load(data, split=asked.split, limit=asked.limit)
    try:
        test = load(asked.test_data or data, split=asked.test_split)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            error, "; what is scored at the end are ", Argument("test_data"), " and ",
            Argument("test_split"),
        ) from error  # fmt: skip
    if shared := same_files(train, test):
        raise InvalidArgumentError(
            f"{shared} is trained on and would be scored, too: write --test-split or --test-data "
            "with other images"
        )
    own, validation = _in_memory(train, device, workers).split(asked.validation)
    name = train.name if asked.test_data is None else f"{train.name};{test.name}"
    return RetrainData(own, validation, _in_memory(test, device, workers), test.split), name


def _name_of(asked: RetrainImages) -> str:
    return asked.data or "digits"


def _in_memory(data: LoadedData, device: torch.device, workers: int) -> TrainingImages:
    first, _ = data.dataset[0]
    if len(data.dataset) * first.numel() * first.element_size() > _IN_MEMORY:
        return StreamedImages(data.dataset, workers=workers)
    return LabelledImages.read(data.dataset, workers=workers).to(device)


def _config(
    asked: RetrainImages,
    pruning: RetrainPruning,
    training: RetrainTraining,
    running: RetrainRunning,
    label: str,
) -> dict[str, Any]:
    """What decides the results; where they go and what draws them does not."""
    config = asdict(asked) | asdict(pruning) | asdict(training)
    config |= {"data_name": label, "amp": running.amp, "seeds": _seeds(training)}
    config["folder_for_each_seed"] = bool(training.seeds)
    del config["seed"]
    if asked.weights is not None and Path(asked.weights).is_file():
        config["weights_sha256"] = tensors_sha256(read_weights(asked.weights))
    return {name: str(v) if isinstance(v, os.PathLike) else v for name, v in config.items()}


def _default_output(asked: RetrainImages, config: dict[str, Any]) -> Path:
    """The folder of a run; more seeds go into the same."""
    others = {name: value for name, value in config.items() if name != "seeds"}
    settings = json.dumps(others, sort_keys=True, default=str)
    return default_folder("retrain", asked.arch, _name_of(asked), settings=settings)


def _columns(
    model: LoadedModel, data: str, device: torch.device, plan: RetrainPlan
) -> dict[str, Any]:
    """The columns that all rows of a run have in common."""
    schedule = {
        "one-shot": "one-shot",
        "iterative": f"iterative, {plan.rounds} rounds" + ", rewound" * plan.rewind,
        "cubic": f"cubic over {plan.ramp:g} of the epochs",
    }[plan.schedule]
    columns = shared_columns(model, plan.options, device)
    del columns["weights_sha256"]  # of the weights before the training
    return columns | {
        "data": data,
        "seed": plan.seed,
        "p_prune": plan.ratio,
        "schedule": schedule,
        "regrowth": plan.regrowth,
        "distill": plan.distill,
        "temperature": plan.temperature,
    }
