"""What ``secateurs retrain`` does once its options are read."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateurs._console import say
from secateurs.cli.loading import check_loader_options, pick_device
from secateurs.cli.option_types import DIGITS_NETWORKS
from secateurs.cli.retrain_command import (
    RetrainImages,
    RetrainPruning,
    RetrainRunning,
    RetrainTraining,
)
from secateurs.cli.standard_output import Stdout, drawn
from secateurs.errors import InvalidArgumentError
from secateurs.masks._sparsity import sparsity
from secateurs.outputs import dtype_of
from secateurs.provenance import device_name, tensors_sha256, versions, weights_sha256
from secateurs.report.retrain_curves import plot_retrain
from secateurs.report.retrain_table import layer_table, retrain_table
from secateurs.results import Results, RetrainRow
from secateurs.results.durable import replace_files
from secateurs.training.epochs import Ranks
from secateurs.training.labelled_images import LabelledImages, StreamedImages, TrainingImages
from secateurs.training.retrain import BEST, MASKS, RetrainData, Retraining
from secateurs.training.retrain_plan import RetrainPlan
from secateurs.training.settings import TrainingSettings
from secateurs.training.zero_masks import masks_from_zeros
from secateurs.zoo import LoadedData, LoadedModel, check_data, load_data, load_model
from secateurs.zoo.weights_file import read_weights

_IN_MEMORY = 4 * 2**30
"""Bytes of decoded images that are kept in memory; more are decoded anew in each epoch."""


def run_retrain(
    asked: RetrainImages,
    data: str,
    pruning: RetrainPruning,
    training: RetrainTraining,
    running: RetrainRunning,
) -> None:
    """Load, train, prune, retrain, and report; the first of several ranks reports alone.

    Args:
        asked: the network, and which images.
        data: where these are.
        pruning: how much is pruned, and when.
        training: how it is trained.
        running: where it runs and where the results go.
    """
    seeds = list(dict.fromkeys(training.seeds)) or [training.seed]
    plans = {seed: make_plan(asked, pruning, training, seed, amp=running.amp) for seed in seeds}
    device, ranks = pick_device(running.device), Ranks.here()
    if training.batch_size % ranks.count:
        raise InvalidArgumentError(
            f"--batch-size {training.batch_size} cannot be shared by {ranks.count} ranks: write a "
            "multiple of their number"
        )
    check_loader_options(training.batch_size, running.workers, asked.limit)
    check_data(data)
    if asked.arch in DIGITS_NETWORKS:
        torch.set_num_threads(1)  # so little work that threads mostly wait for each other
    torch.manual_seed(seeds[0])
    model = _load_model(asked)
    images, label = _images(asked, data, model, device, running.workers or 0)
    config = _config(asked, data, pruning, training, running, label)
    folder = running.output or _default_output(asked.arch, data, config)
    rows: list[RetrainRow] = []
    with ExitStack() as stack:
        results = None
        if ranks.rank == 0:
            results = stack.enter_context(Results(folder, RetrainRow))
            results.open(config, overwrite=not running.resume, growing=("seeds",))
        for seed in seeds:
            own = folder / f"seed-{seed}" if len(seeds) > 1 else folder
            torch.manual_seed(seed)
            fresh = _load_model(asked)
            fresh.model.to(device)
            own.mkdir(parents=True, exist_ok=True)
            if not running.resume and ranks.rank == 0:
                _clear(own)
            run = Retraining(
                fresh.model, images, plans[seed],
                row=_row(fresh, label, device, plans[seed], pruning),
                results=results, folder=own, say=_say,
            )  # fmt: skip
            rows += run.run()
            if ranks.rank == 0:
                _save_masks(fresh.model, own, pruning)
    if ranks.rank == 0:
        _report(rows, folder, fresh.model, pruning, running.title, len(seeds))


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
    common: dict[str, Any] = {
        "optimizer": training.optimizer,
        "weight_decay": training.weight_decay,
        "batch_size": training.batch_size,
        "warmup": training.warmup,
        "augment": training.augment,
        "amp": amp,
    }
    ratio = 0.9 if pruning.ratio is None else pruning.ratio
    if pruning.compression is not None:
        ratio = 1 - 1 / pruning.compression
    which = {name: getattr(pruning, name) for name in
             ("granularity", "scope", "score", "layers", "include", "exclude")}  # fmt: skip
    return RetrainPlan(
        ratio=ratio,
        dense=TrainingSettings(epochs=dense, learning_rate=training.dense_lr, **common),
        retraining=TrainingSettings(epochs=epochs, learning_rate=training.lr, **common),
        schedule=pruning.schedule,
        rounds=pruning.rounds,
        rewind=pruning.rewind,
        ramp=pruning.ramp,
        every=pruning.every,
        floor=pruning.keep_at_least,
        regrowth=pruning.regrow,
        options={name: list(v) if isinstance(v, tuple) else v for name, v in which.items() if v},
        seed=seed,
    )


def _load_model(asked: RetrainImages) -> LoadedModel:
    return load_model(
        asked.arch,
        weights=asked.weights or "random",
        num_classes=asked.num_classes,
        img_size=asked.img_size,
    )


def _images(
    asked: RetrainImages, data: str, model: LoadedModel, device: torch.device, workers: int
) -> tuple[RetrainData, str]:
    """The images, and what the rows call them."""
    train = load_data(
        data, model=model, split=asked.split, data_root=asked.data_root, limit=asked.limit
    )
    test = load_data(
        asked.test_data or data, model=model, split=asked.test_split, data_root=asked.data_root
    )
    if asked.test_data is None and test.split == train.split:
        raise InvalidArgumentError(
            f"--split {train.split} is trained on and would be scored, too: write --test-split or "
            "--test-data with other images"
        )
    own, validation = _in_memory(train, device, workers).split(asked.validation)
    name = train.name if asked.test_data is None else f"{train.name};{test.name}"
    return RetrainData(own, validation, _in_memory(test, device, workers), test.split), name


def _in_memory(data: LoadedData, device: torch.device, workers: int) -> TrainingImages:
    first, _ = data.dataset[0]
    if len(data.dataset) * first.numel() * first.element_size() > _IN_MEMORY:
        return StreamedImages(data.dataset, workers=workers)
    return LabelledImages.read(data.dataset, workers=workers).to(device)


def _config(
    asked: RetrainImages,
    data: str,
    pruning: RetrainPruning,
    training: RetrainTraining,
    running: RetrainRunning,
    label: str,
) -> dict[str, Any]:
    """What decides the results; where they go and what draws them does not."""
    seeds = list(dict.fromkeys(training.seeds)) or [training.seed]
    config = asdict(asked) | asdict(pruning) | asdict(training)
    config |= {"data": data, "data_name": label, "amp": running.amp, "seeds": seeds}
    del config["seed"]
    if asked.weights is not None and Path(asked.weights).is_file():
        config["weights_sha256"] = tensors_sha256(read_weights(asked.weights))
    return {name: str(v) if isinstance(v, os.PathLike) else v for name, v in config.items()}


def _default_output(arch: str, data: str, config: dict[str, Any]) -> Path:
    """A folder for each different run, so that the same command finds its own results again."""
    others = {name: value for name, value in config.items() if name != "seeds"}
    text = json.dumps(others, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = "_".join(re.sub(r"[^\w.-]+", "-", part).strip("-.") for part in (arch, data))
    return Path("secateurs-results") / f"retrain_{name}_{digest}"


def _row(
    model: LoadedModel,
    data: str,
    device: torch.device,
    plan: RetrainPlan,
    pruning: RetrainPruning,
) -> RetrainRow:
    """What all rows of a run have in common; what they measure is filled in by the run."""
    schedule = {
        "one-shot": "one-shot",
        "iterative": f"iterative, {plan.rounds} rounds" + ", rewound" * plan.rewind,
        "cubic": f"cubic over {plan.ramp:g} of the epochs",
    }[plan.schedule]
    return RetrainRow(
        model=model.name,
        weights=model.weights,
        data=data,
        seed=plan.seed,
        granularity=pruning.granularity,
        scope=pruning.scope,
        score=pruning.score,
        layers=";".join(pruning.layers),
        include=";".join(pruning.include),
        exclude=";".join(pruning.exclude),
        p_prune=plan.ratio,
        schedule=schedule,
        regrowth=plan.regrowth,
        optimizer="",
        learning_rate=0.0,
        weight_decay=0.0,
        augment="",
        train_batch_size=0,
        train_count=0,
        preprocess=str(model.preprocess),
        amp=False,
        phase="dense",
        epoch=0,
        split="",
        count=0,
        train_loss=0.0,
        loss=0.0,
        top1=0.0,
        correct=0,
        achieved=0.0,
        kept=0,
        prunable=0,
        param_count=sum(p.numel() for p in model.model.parameters()) / 1e6,
        duration=0.0,
        device=device_name(device),
        dtype=str(dtype_of(model.model)).removeprefix("torch."),
        ranks=1,
        weights_sha256=weights_sha256(model.model),
        versions=versions(),
    )


def _say(row: RetrainRow) -> None:
    if Ranks.here().rank:
        return
    what = f"{row.phase} epoch {row.epoch}" if row.split == "validation" else row.phase
    loss = f"loss {row.train_loss:.3f}, " if row.split == "validation" else ""
    say(
        f"seed {row.seed}, {what}: {loss}top-1 {row.top1:.2f} ({row.split}), "
        f"{100 * row.achieved:.1f}% pruned, {row.duration:.1f} s"
    )


def _clear(folder: Path) -> None:
    for name in ("state.pt", "dense.safetensors", "best.safetensors", "last.safetensors", MASKS):
        (folder / name).unlink(missing_ok=True)


def _which(pruning: RetrainPruning) -> dict[str, Any]:
    return {name: list(value) or None for name, value in
            (("layers", pruning.layers), ("include", pruning.include),
             ("exclude", pruning.exclude))}  # fmt: skip


def _save_masks(model: nn.Module, folder: Path, pruning: RetrainPruning) -> None:
    """The masks of the best network, which the model holds after its score."""
    if (folder / BEST).exists() and sparsity(model, **_which(pruning)).zeros:
        masks_from_zeros(model, **_which(pruning)).save(folder / MASKS)


def _report(
    rows: Sequence[RetrainRow],
    folder: Path,
    model: nn.Module,
    pruning: RetrainPruning,
    title: str | None,
    seeds: int,
) -> None:
    counted = sparsity(model, **_which(pruning))
    layers = layer_table([(x.name, x.total, x.total - x.zeros) for x in counted.layers])
    last = " of the last seed" * (seeds > 1)
    text = f"{retrain_table(rows)}\nWeights kept in each layer{last}:\n\n{layers}\n"
    with Stdout(written=True) as stdout:
        stdout.write(text)
        replace_files({folder / "table.md": text.encode()})
        plots = drawn(lambda: plot_retrain(rows, folder / "curves", title=title))
        names = ["results.csv", "table.md", *(plot.name for plot in plots)]
        say(f"wrote {', '.join(names)}, {BEST} and {MASKS} to {folder}")
