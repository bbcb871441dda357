"""Sweep a model over pruning ratios: every ratio sees each batch of one pass over the data."""

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.evaluate.accuracy import device_of
from secateurs.evaluate.bar import progress_bar
from secateurs.evaluate.batches import is_sequential, length
from secateurs.evaluate.grid import Grid, Setting
from secateurs.evaluate.memory import Forward
from secateurs.evaluate.passing import Pass, Progress
from secateurs.evaluate.rows import Subject, configuration, make_row, shared_columns
from secateurs.evaluate.variants import Size, Variants
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
    combination of granularity, scope and score. Afterwards the model has its original weights.

    With ``output``, finished rows are on disk when they are known (``results.jsonl``,
    ``results.csv``), progress inside a pass is saved at least every minute, and a sweep that was
    interrupted goes on where it was; for this the loader must be a DataLoader that does not
    shuffle.

    Args:
        model: a classifier; it is scored in ``eval()`` mode and gets its modes back.
        loader: batches of (images, labels).
        subject: names for the rows.
        device: where to run, default where the model is; the model is moved there.
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
        InvalidArgumentError: an argument is wrong, or ``output`` holds another sweep.
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
    where = torch.device(device) if device is not None else device_of(model)
    model.to(where)
    columns = shared_columns(model, subject or Subject(), where, amp, loader)
    with ExitStack() as stack:
        results = stack.enter_context(Results(output)) if output is not None else None
        if results is not None:
            results.open(configuration(plan, columns, loader), overwrite=overwrite)
            if len(results.rows()) == len(plan.cells):
                return results.rows()
        stack.enter_context(_evaluating(model))
        reached, sizes = _run(model, loader, plan, where, amp, results, progress)
        rows = [make_row(cell, reached, sizes[cell.setting], plan, columns) for cell in plan.cells]
        if results is not None:
            results.add_all(rows)
            results.clear_progress()
        return rows


def _grid(arguments: Mapping[str, Any]) -> Grid:
    try:
        return Grid(**arguments)
    except TypeError as error:
        unknown = set(arguments) - set(Grid.__dataclass_fields__)
        if not unknown:
            raise
        raise InvalidArgumentError(
            f"sweep has no argument {', '.join(sorted(unknown))}; it takes those of "
            f"secateurs.evaluate.Grid: {', '.join(Grid.__annotations__)}"
        ) from error


def _run(
    model: nn.Module,
    loader: Iterable[Any],
    plan: Grid,
    device: torch.device,
    amp: bool,
    results: Results | None,
    show: bool | None,
) -> tuple[dict[str, Progress], dict[Setting, Size]]:
    variants = Variants(model, plan)
    saved = (results.load_progress() if results else None) or {}
    progress = {key: Progress.from_dict(value) for key, value in saved.items()}
    images = length(loader)
    total = None if images is None else images * len(plan.variants)
    with progress_bar("Sweeping", total, show=show) as bar:
        bar.advance(sum(p.seen for p in progress.values()) if is_sequential(loader) else 0)

        def save(progress: dict[str, Progress]) -> None:
            if results is not None:
                results.save_progress({key: p.to_dict() for key, p in progress.items()})

        Pass(
            loader=loader,
            variants=plan.variants,
            model=variants,
            forward=Forward(model, device, amp, bar.say),
            progress=progress,
            save=save,
            advance=bar.advance,
        ).run()
    if not all(p.tally.count for p in progress.values()):
        raise InvalidArgumentError("the loader gave no images: there is nothing to score")
    return progress, {cell.setting: variants.size(cell.setting) for cell in plan.cells}


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """Put the model in ``eval()`` mode; afterwards give every module its mode back, unpruned."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        restore(model)
        for module, training in modes:
            module.training = training
