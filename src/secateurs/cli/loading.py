"""Turn options of the command line into a device, loaders, provenance and a folder."""

import hashlib
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset, default_collate

from secateurs._io.text import counted
from secateurs._progress import Bar, progress_bar
from secateurs._tensors.blocks import cores
from secateurs._validation import nearest
from secateurs.cli.allocator import keep_freed_memory
from secateurs.cli.option_types import DIGITS_NETWORKS, NetworkAndData, given
from secateurs.cli.sweep_options import Preprocessing, SweepImages
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Grid, Provenance, accumulate_gradients
from secateurs.evaluation.batches import loader_of
from secateurs.provenance import device_name, weights_sha256
from secateurs.repair.repaired_values import calibration_sha256
from secateurs.zoo import (
    LoadedData,
    LoadedModel,
    drop_skipped,
    load_data,
    load_model,
    load_unlabelled,
)
from secateurs.zoo.images import subset

_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "meta")


def pick_device(name: str) -> torch.device:
    """The device named ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...

    Raises:
        InvalidArgumentError: there is no such device.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # the meta device has no data to copy
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *([] if accelerator is None else [str(accelerator)])]
        hint = "" if name.partition(":")[0] in _DEVICES else nearest(name, _DEVICES, at_least=0.6)
        raise InvalidArgumentError(
            f"no device {name!r} here; write --device {' or '.join(there)}{hint}"
        ) from error
    return device


def check_loader_options(batch_size: int, workers: int | None, limit: int | None) -> None:
    """Check the options of a loader before anything large is loaded.

    Raises:
        InvalidArgumentError: a number is out of range.
    """
    for option, number, least in (
        ("--batch-size", batch_size, 1),
        ("--workers", workers, 0),
        ("--limit", limit, 1),
    ):
        if number is not None and number < least:
            raise InvalidArgumentError(f"{option} must be at least {least}, got {number}")
    check_parallel("workers", workers)


def check_parallel(name: str, count: int | None) -> None:
    """Refuse so many processes or threads that the system could not start them.

    Raises:
        InvalidArgumentError: they are more than 64 and more than eight for each core.
    """
    if count is not None and count > max(64, 8 * cores()):
        raise InvalidArgumentError(
            f"--{name} {count} is far more than the {cores()} cores that this process may use: "
            f"write --{name} {cores()}"
        )


def prepare_process(arch: str, seed: int) -> None:
    """Seed the weights of ``--weights random``, and set memory and threads for a network."""
    keep_freed_memory()
    set_threads_for(arch)
    torch.manual_seed(seed)


def set_threads_for(arch: str) -> None:
    """Use one thread for a small network, whose threads would mostly wait for each other."""
    if arch in DIGITS_NETWORKS:
        torch.set_num_threads(1)


def make_loader(
    data: LoadedData,
    *,
    batch_size: int,
    workers: int | None,
    device: torch.device,
    processes: int = 1,
) -> "DataLoader[Any]":
    """A loader that reads images in order, and drops unreadable ones from their batch.

    Args:
        data: the images.
        batch_size: images in a batch.
        workers: processes that decode. Default (None): none for the digits, which are in memory;
            one if the model runs on the CPU; up to eight for a GPU.
        device: the device of the model.
        processes: number of processes on this machine that read images and share its cores.
    """
    if workers is None:
        many = max(1, min(8, cores() // processes))
        workers = 0 if data.name == "digits" else 1 if device.type == "cpu" else many
    return DataLoader(
        data.dataset,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=readable,
        worker_init_fn=_leave_interrupts_to_parent,
        pin_memory=device.type == "cuda",
    )


def leave_gradients(
    model: LoadedModel,
    loader: "DataLoader[Any]",
    asked: NetworkAndData,
    data: str,
    *,
    limit: int = 256,
) -> str:
    """Store gradients of the loss on a few images in the model, for scores that need them.

    They are some of the training split, see `subset`, or without one of the scored images.

    Args:
        model: the network.
        loader: of the scored images.
        asked: where named data sets are, and whether images that cannot be read are skipped.
        data: the data set or folder.
        limit: how many images are read, at most.

    Returns:
        The images in words, for the result rows.
    """
    which = "of split train"
    try:
        images: Any = load_data(
            data,
            model=model,
            split="train",
            data_root=asked.data_root,
            limit=limit,
            skip_corrupt=asked.skip_corrupt,
        ).dataset
    except InvalidArgumentError:
        which = "of those scored"
        scored: Any = loader.dataset
        images = Subset(scored, subset([item.label for item in scored.items], limit))
    with progress_bar("Computing gradients", len(images)) as bar:
        count = accumulate_gradients(model.model, watched(loader_of(images, loader), bar))
    return f"{counted(count, 'image')} {which}"


def watched(batches: "DataLoader[Any]", bar: Bar) -> Iterator[Any]:
    """The batches of a loader, whose images a bar counts."""
    for batch in batches:
        yield batch
        bar.advance(len(batch[1]))


def load_images(
    asked: SweepImages, data: str, preprocessing: Preprocessing, *, unlabelled: bool = False
) -> tuple[LoadedModel, LoadedData]:
    """Load the network and the images that a command names.

    Args:
        asked: their names.
        data: the data set or folder.
        preprocessing: changes to the network's own preprocessing.
        unlabelled: whether no label is read; then a folder may have images anywhere in it.
    """
    model = load_model(
        asked.arch,
        weights=asked.weights,
        num_classes=asked.num_classes,
        **given(preprocessing),
    )
    load = load_unlabelled if unlabelled else load_data
    images = load(
        data,
        model=model,
        split=asked.split,
        data_root=asked.data_root,
        limit=asked.limit,
        skip_corrupt=asked.skip_corrupt,
    )
    return model, images


def provenance_of(model: LoadedModel, images: LoadedData, scored_on: str) -> Provenance:
    """The provenance for the result rows."""
    pre = model.preprocess
    return Provenance(
        model=model.name,
        weights=model.weights,
        data=images.name,
        split=images.split,
        img_size=pre.img_size,
        crop_pct=pre.crop_pct,
        interpolation=pre.interpolation,
        preprocess=str(pre),
        score_data=scored_on,
    )


def default_folder(*parts: str, settings: str) -> Path:
    """A folder whose name depends on the options, so that the same command finds its results.

    Args:
        parts: what its name begins with; empty ones are left out.
        settings: a text that differs where the results would.
    """
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    name = "_".join(re.sub(r"[^\w.-]+", "-", part).strip("-.") for part in parts if part)
    return Path("secateurs-results") / f"{name}_{digest}"


def default_output(
    model: LoadedModel,
    provenance: Provenance,
    grid: Grid,
    images: int,
    device: torch.device,
    amp: bool,
    calibration: torch.Tensor | None = None,
) -> Path:
    """The folder of a sweep, see `default_folder`."""
    ratios = (grid.p_prunes, grid.p_berns)  # sorted, so that their order makes no difference
    others = replace(grid, p_prune=0.0, p_bern=1.0)
    weights = weights_sha256(model.model)
    asked = (provenance, weights, images, ratios, others, device_name(device), amp)
    if calibration is not None:
        asked = (*asked, grid.repair, provenance.calibration, calibration_sha256(calibration))
    return default_folder(provenance.model, provenance.data, settings=repr(asked))


def readable(samples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Collate a batch, and drop the images that could not be read."""
    images, labels = default_collate(samples)
    return drop_skipped(images, labels)[:2]


def _leave_interrupts_to_parent(worker: int) -> None:  # noqa: ARG001
    """Let a worker ignore Ctrl-C, which reaches all processes of a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _ignore_closed_pipes


def _ignore_closed_pipes(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print no traceback in a worker whose parent was interrupted while it fetched a batch.

    The thread that sends batches (``multiprocessing.resource_sharer``) calls the hook then; other
    errors of a worker are raised in the parent.
    """
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
