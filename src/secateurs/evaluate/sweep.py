"""Sweep a model over pruning ratios: every ratio sees each batch of one pass over the data."""

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from secateurs._checks import nearest
from secateurs.bar import progress_bar
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluate.batches import is_sequential, length
from secateurs.evaluate.grid import Grid
from secateurs.evaluate.memory import Forward
from secateurs.evaluate.passing import Pass, Progress
from secateurs.evaluate.rows import Subject, configuration, make_row, shared_columns
from secateurs.evaluate.variants import Variants
from secateurs.inputs import device_of
from secateurs.prune import restore
from secateurs.results import Results, Row


def sweep(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    subject: Subject | None = None,
    device: str | torch.device | None = None,
    amp: bool = False,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **grid: Any,
) -> list[Row]:
    """Measure how accuracy falls as weights go.

    All variants share one pass over ``loader``: each image is read and decoded once. The memory
    for weights is two copies, whatever the number of ratios, and one byte a unit for each
    combination of granularity, scope and score. Pruning starts from the original weights, and
    afterwards the model has them.

    With ``output``, rows are on disk when they are known (``results.jsonl``, ``results.csv``),
    progress inside the pass is saved at least every minute, and a sweep that was interrupted goes
    on where it was; for this the loader must be a DataLoader that does not shuffle. A folder that
    holds all the rows already gives them back without running the model. What was measured is
    known by the model's weights, the number of images and the names in ``subject``: name the data.

    Args:
        model: a classifier that returns scores (batch, classes), or an object with ``.logits``,
            or a tuple that starts with them; it is scored in ``eval()`` mode and gets its modes
            back.
        loader: batches of (images, labels), labels from 0 to classes - 1; images are brought to
            the device and to the dtype of the weights.
        subject: names for the rows.
        device: where to run; the model is moved there. Default where the model is.
        amp: whether to run under autocast.
        output: a folder for the results, default none.
        overwrite: throw away what ``output`` holds.
        progress: whether to show a progress bar, default only in a terminal.
        **grid: what to measure, the arguments of `Grid`: ``p_prune``, ``p_bern``,
            ``prune_type``, ``granularity``, ``scope``, ``score``, ``layers``, ``include``,
            ``exclude``, ``draws``, ``seed``.

    Returns:
        One row for each combination, draws averaged.

    Raises:
        InvalidArgumentError: an argument is wrong, ``output`` holds another sweep, or labels are
            not classes of the model.
        FailureError: the disk is full, an image is corrupt, or one image does not fit in memory.

    Example:
        >>> import torch
        >>> data = [(torch.randn(3, 4), i % 2) for i in range(8)]
        >>> loader = torch.utils.data.DataLoader(data, batch_size=4)
        >>> rows = sweep(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), loader,
        ...              p_prune=[0, 0.5])
        >>> [(row.p_prune, row.achieved, row.count) for row in rows]
        [(0.0, 0.0, 8), (0.5, 0.5, 8)]
    """
    plan = _grid(grid)
    restore(model)
    where = _place(model, device)
    variants = Variants(model, plan)
    columns = shared_columns(model, subject or Subject(), where, amp, loader)
    with ExitStack() as stack:
        results = stack.enter_context(Results(output)) if output is not None else None
        if results is not None:
            wanted = configuration(plan, columns, loader, variants)
            results.open(wanted, overwrite=overwrite)
            finished = results.rows()
            if len(finished) == len(plan.cells):
                results.clear_progress()
                return finished
        stack.enter_context(_evaluating(model))
        reached = _run(variants, loader, plan, where, amp, results, progress)
        rows = [make_row(cell, reached, variants.size(cell), plan, columns) for cell in plan.cells]
        if results is not None:
            results.add_all(rows)
            results.clear_progress()
        return rows


def _grid(arguments: Mapping[str, Any]) -> Grid:
    known = [field.name for field in fields(Grid) if field.init]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise InvalidArgumentError(
            f"sweep has no argument {', '.join(unknown)}{nearest(unknown[0], known)}; "
            f"it takes those of secateurs.evaluate.Grid: {', '.join(known)}"
        )
    return Grid(**arguments)


def _place(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Move the model to ``device``; without one it stays, also where its parts lie apart."""
    if device is None:
        return device_of(model)
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgumentError(
            f"no device {str(device)!r} here ({reason}): write device='cpu' or another one"
        ) from error
    model.to(where)
    return where


def _run(
    variants: Variants,
    loader: Iterable[Any],
    plan: Grid,
    device: torch.device,
    amp: bool,
    results: Results[Row] | None,
    show: bool | None,
) -> dict[str, Progress]:
    progress = _load(results, plan)
    images = length(loader)
    total = None if images is None else images * len(plan.variants)
    with progress_bar("Sweeping", total, show=show) as bar:
        bar.advance(sum(each.seen for each in progress.values()) if is_sequential(loader) else 0)

        def save(progress: dict[str, Progress]) -> None:
            if results is not None:
                results.save_progress({key: each.to_dict() for key, each in progress.items()})

        Pass(
            loader=loader,
            variants=plan.variants,
            model=variants,
            forward=Forward(variants.model, device, amp, bar.say),
            progress=progress,
            save=save,
            advance=bar.advance,
        ).run()
    _check_counts(progress, results)
    return progress


def _load(results: Results[Row] | None, plan: Grid) -> dict[str, Progress]:
    """What was saved for this plan; nothing if another version or tool wrote it."""
    saved = (results.load_progress() if results else None) or {}
    try:
        return {v.key: Progress.from_dict(saved[v.key]) for v in plan.variants if v.key in saved}
    except (TypeError, KeyError):
        return {}


def _check_counts(progress: Mapping[str, Progress], results: Results[Row] | None) -> None:
    counts = {each.tally.count for each in progress.values()}
    if len(counts) == 1 and 0 not in counts:
        return
    if results is not None:
        results.clear_progress()  # going on from here would end here
    if counts == {0}:
        raise InvalidArgumentError("the loader gave no images: there is nothing to score")
    raise FailureError(
        f"some variants saw {min(counts)} images and others {max(counts)}: images became readable "
        "or unreadable between two runs; run the sweep again"
    )


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Put the model in ``eval()`` mode; afterwards give every module its mode back, unpruned."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        try:
            restore(model)
        finally:
            restore(model)  # once more, since Ctrl-C may have cut it short
            for module, training in modes:
                module.training = training
