"""Measure accuracy over pruning ratios: all ratios are scored in one loop over the data."""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from secateurs._validation import check_keywords
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.evaluation.batches import is_sequential, length
from secateurs.evaluation.evaluation_loop import SAVE_EVERY_SECONDS
from secateurs.evaluation.fingerprint import fingerprint
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.grid import Grid, GridKeywords
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.measured_model import (
    evaluating,
    inputs_for,
    moved_to,
    used_calibration,
)
from secateurs.evaluation.partial_results import Progress, as_json, from_json
from secateurs.evaluation.pruned_model import Variants, with_overall_ratio
from secateurs.evaluation.ranks import Ranks
from secateurs.evaluation.runner import (
    IMAGE_SAMPLES,
    clear_saved,
    open_run,
    score_variants,
)
from secateurs.evaluation.sweep_rows import (
    Provenance,
    alike_on_ranks,
    columns_of_cell,
    configuration,
    layer_rows,
    make_row,
    shared_columns,
)
from secateurs.parameters.model_contents import ModelContents
from secateurs.pruning import set_aside
from secateurs.results import Results, Row, Rows, write_layer_rows
from secateurs.results.image_outcomes import outcome_key
from secateurs.selection.shown_keywords import shows


@shows(Grid)
def sweep(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    calibration: Tensor | Iterable[Any] | None = None,
    provenance: Provenance | None = None,
    device: str | torch.device | None = None,
    amp: bool = False,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    save_every: float = SAVE_EVERY_SECONDS,
    process_group: Any = None,
    **grid: Unpack[GridKeywords],
) -> Rows[Row]:
    """Measure how accuracy falls as weights are pruned.

    All variants are scored in one loop over ``loader``: each image is read and decoded once. The
    memory for weights is two copies and a mask, whatever the number of ratios, and one byte a unit
    for each combination of granularity, scope and score. A model that is pruned already is measured
    from its original weights; where it was trained since, from the weights as they are. Afterwards
    the model is as it was before, its pruning included. Threads that sweep at the same time need a
    copy of the model each.

    With ``output``, rows are written to disk (``results.jsonl``, ``results.csv``), progress is
    saved about every ``save_every`` seconds, and the same call continues an interrupted sweep; for
    this the loader must be a DataLoader that does not shuffle. If the folder holds all rows of this
    sweep, they are returned without running the model. A sweep is recognised by its arguments, the
    model's weights, the names in ``provenance``, and the data: the number of images, checksums of
    up to four images, which are read for this, and a checksum of all labels, if the data set is a
    ``TensorDataset`` or has ``targets`` or ``labels``. The images of a loader that can be iterated
    only once are not compared; a warning says so.

    With ``repair`` each pruned network is measured as it is and repaired from ``calibration``. It
    is repaired once, before images are scored; what the repair changed is kept until the end, in
    ``output`` or, without it, in memory.

    With ``process_group`` each rank scores a part of the images, in whole batches. The rows are
    those of one process.

    Args:
        model: a classifier that returns logits (batch, classes), or an object with ``.logits``,
            or a tuple that starts with them; it is scored in ``eval()`` mode, and each module gets
            its mode back.
        loader: batches of (images, labels), labels from 0 to classes - 1; images are moved to the
            device and cast to the dtype of the weights.
        calibration: images without labels, as for `secateurs.repair`, for ``repair`` and for scores
            that need inputs; none of them may be in ``loader``.
        provenance: names for the rows.
        device: where to run; the model is moved there. Default the device of the model.
        amp: whether to run under autocast.
        output: a folder for the results, default none.
        overwrite: delete the results that ``output`` holds.
        progress: False shows no progress; by default stderr shows a bar in a terminal, and a line
            about every minute elsewhere.
        save_every: seconds between two saves of the progress.
        process_group: a ``torch.distributed.ProcessGroup`` whose ranks split the images, each
            with the whole model, such as ``torch.distributed.group.WORLD`` (which is None without
            a process group). All ranks must call. Rank 0 shows its own progress and writes the
            rows; each rank saves its progress in the same folder; all return the rows. Ranks other
            than 0 may leave out ``output``, but not give another. Default none: this process scores
            all images, even where there is a process group.
        **grid: what to measure: the arguments of `Grid`.

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
    ranks = Ranks(process_group)
    with ExitStack() as stack:
        with ranks.together():
            check_keywords(sweep, grid, [field.name for field in fields(Grid) if field.init])
            plan = Grid(**grid)
            stack.enter_context(set_aside(model))
            plan = with_overall_ratio(model, plan)
            device = moved_to(model, device)
            if process_group is not None:
                _check_can_be_split(model, loader, plan)
            images = used_calibration(calibration, plan.repair, plan.criteria)
            with inputs_for(model, images, plan.criteria):
                variants = Variants(model, plan)
            columns = shared_columns(model, provenance, device, amp, loader, images)
            config = configuration(plan, columns, loader, variants)
            if output is not None or process_group is not None:
                config[IMAGE_SAMPLES] = fingerprint(loader)
        if process_group is not None:
            ranks.check_alike(alike_on_ranks(config, plan, columns, variants))
        networks = {variant.key: variant for variant in plan.variants}
        results, rows, before = None, list[Row](), dict[str, Progress]()
        folder = ranks.check_output(output, overwrite=overwrite)
        if folder is not None:
            with ranks.together():
                results = stack.enter_context(Results(folder))
                if ranks.is_first:
                    rows, before = open_run(
                        results, config, networks, length(loader),
                        list(map(columns_of_cell, plan.cells)), overwrite=overwrite,
                    )  # fmt: skip
            rows, before = _of_rank_0(ranks, rows, before)
        if rows:
            return Rows(rows)
        stack.enter_context(evaluating(model))
        if plan.repair and images is not None:
            variants.repair(images, KeptRepairs(results, config), show=progress)
        counts = score_variants(
            loader, networks, variants.become, partial(Forward, model, device, amp),
            results=results, ranks=ranks, before=before, save_every=save_every, show=progress,
            calibration=images,
        )  # fmt: skip
        with ranks.together():
            if ranks.is_first:
                rows = [make_row(c, counts, variants.size(c), plan, columns) for c in plan.cells]
                if results is not None:
                    if is_sequential(loader):  # otherwise their order is not that of the data
                        hits = [
                            ["".join(counts[v.key].hits) for v in c.variants] for c in plan.cells
                        ]
                        results.save_outcomes(dict(zip(map(outcome_key, rows), hits, strict=True)))
                    results.add_all(rows)
                    pairs = zip(rows, map(variants.layers, plan.cells), strict=True)
                    layers = [layer for pair in pairs for layer in layer_rows(*pair)]
                    write_layer_rows(results.folder, layers)
                    clear_saved(results)
        return Rows(_of_rank_0(ranks, rows, {})[0])


def _check_can_be_split(model: nn.Module, loader: Iterable[Any], plan: Grid) -> None:
    """Refuse a sweep whose images cannot be split over ranks."""
    if plan.repair:
        raise InvalidArgumentError(
            "networks are repaired in one process: leave out ", Argument("repair"),
            " or process_group",
        )  # fmt: skip
    if ModelContents(model).group.is_distributed:
        raise InvalidArgumentError(
            "process_group= splits the images over ranks that each have the whole model, but this "
            "model is divided among ranks or wrapped for them: leave process_group= out, so that "
            "all score all images together (for DistributedDataParallel, hand in model.module)"
        )
    if not is_sequential(loader):
        raise InvalidArgumentError(
            "process_group= needs a torch DataLoader that reads a data set in order and leaves "
            "nothing out, which can be split: write DataLoader(data, batch_size=...), without a "
            "sampler, shuffle or drop_last"
        )


def _of_rank_0(
    ranks: Ranks, rows: list[Row], before: dict[str, Progress]
) -> tuple[list[Row], dict[str, Progress]]:
    """Rank 0's rows and progress, on all ranks."""
    if ranks.size == 1:
        return rows, before
    sent = {"rows": [row.as_dict() for row in rows], "before": as_json(before)}
    found = ranks.gather(sent if ranks.is_first else None)[0]
    return [Row.from_dict(values) for values in found["rows"]], from_json(found["before"])
