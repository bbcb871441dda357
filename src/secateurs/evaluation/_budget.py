"""The sparsest network whose accuracy has dropped by less than a margin, with proof."""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from numbers import Real
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from secateurs._io.text import counted
from secateurs._progress import progress_bar
from secateurs._validation import check_ratio
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.evaluation.batches import is_sequential, length
from secateurs.evaluation.budget_outcome import Budget, outcome_of
from secateurs.evaluation.budget_search import (
    MOST_LOOKS,
    RATIOS,
    BudgetSearch,
    key_of,
)
from secateurs.evaluation.evaluation_loop import SAVE_EVERY_SECONDS
from secateurs.evaluation.fingerprint import fingerprint
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.grid import repair_steps
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.measured_model import (
    evaluating,
    inputs_for,
    moved_to,
    used_calibration,
)
from secateurs.evaluation.paired_drop import least_images, least_margin
from secateurs.evaluation.partial_results import Progress, as_json
from secateurs.evaluation.runner import IMAGE_SAMPLES, open_run
from secateurs.evaluation.sweep_rows import Provenance, columns_of, is_named, shared_columns
from secateurs.masks._sparsity import sparsity
from secateurs.provenance import tensors_sha256
from secateurs.pruning import restore, set_aside
from secateurs.results import BudgetRow, Results
from secateurs.selection._select import select
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows


@shows(SelectionOptions)
def budget(
    model: nn.Module,
    loader: Iterable[Any],
    max_drop: float = 1.0,
    *,
    confidence: float = 0.95,
    repair: str | Sequence[str] = (),
    calibration: Tensor | Iterable[Any] | None = None,
    provenance: Provenance | None = None,
    device: str | torch.device | None = None,
    amp: bool = False,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    save_every: float = SAVE_EVERY_SECONDS,
    **options: Unpack[SelectionKeywords],
) -> Budget:
    """Prune as far as accuracy provably drops by less than ``max_drop`` points.

    The ratio is found by bisection over hundredths. Each network is compared with the dense one on
    the same images, by a one-sided test on the images that flip
    (`secateurs.evaluation.paired_drop`). Bisection looks at most 7 times at the same images, so
    each test has a seventh of the allowed error (Bonferroni): the claim on the network that is
    returned holds at ``confidence`` for all looks together, whatever path the bisection took. A
    network that could not pass even with all images that are left right is given up at once; this
    changes no outcome.

    With ``output``, outcomes and repairs are saved there, and the same call goes on where an
    earlier one was interrupted, to the same result. For this the loader must be a DataLoader that
    does not shuffle.

    The bisection uses the labels of ``loader``, and the test accounts for that. Nothing else may
    have been chosen with them: not the criterion, the allocation or the repair.

    Args:
        model: a classifier, changed in place: afterwards pruned, and repaired if asked, as after
            `secateurs.global_prune`; ``secateurs.restore`` puts it back.
        loader: batches of (images, labels), the same in every pass.
        max_drop: points of top-1 accuracy, above 0 and below 100.
        confidence: of the claim, strictly between 0 and 1.
        repair: steps of `secateurs.repair` after each pruning, such as
            ``["batchnorm", "reconstruct"]``.
        calibration: images without labels, for ``repair`` and for scores that need inputs; none of
            them may be in ``loader``.
        provenance: names for the rows, which also identify a run in ``output``.
        device: where to run; the model is moved there. Default the device of the model.
        amp: whether to run under autocast.
        output: a folder for what was scored.
        overwrite: delete what ``output`` holds.
        progress: False shows no progress.
        save_every: seconds between two saves.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        The ratio, the evidence, and how many images a sparser network would need.

    Raises:
        InvalidArgumentError: an argument is wrong, the loader shuffles, ``output`` holds another
            run, or the images are so few that no network could pass; the error says how many are
            needed.
        FailureError: the disk is full, or the loader gives other images in each pass.

    Example:
        >>> import torch, secateurs as sc
        >>> images = torch.randn(400, 3)
        >>> data = torch.utils.data.TensorDataset(images, (images[:, 0] > 0).long())
        >>> model = torch.nn.Linear(3, 2, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[-1.0, 0.01, 0.0], [1.0, 0.0, 0.01]]))
        >>> found = sc.budget(model, torch.utils.data.DataLoader(data, batch_size=100), 2.0)
        >>> found.achieved, found.drop_high < 2
        (0.8333333333333334, True)
    """
    given = SelectionOptions.read(budget, options)
    steps = repair_steps(repair)
    _check(given, max_drop, confidence)
    images = used_calibration(calibration, steps, [given.criterion])
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, RandomSampler):
        raise InvalidArgumentError(
            "the loader shuffles, and every network must be scored on the images in one order, so "
            "that outcomes are compared image by image: write DataLoader(..., shuffle=False)"
        )
    margin, level = max_drop / 100, (1 - confidence) / MOST_LOOKS
    _refuse_few(length(loader), margin, level)
    with ExitStack() as outer:  # the folder is locked until its rows are written
        results, before = None, dict[str, Progress]()
        with ExitStack() as stack:
            stack.enter_context(set_aside(model))
            placed = moved_to(model, device)
            outer.enter_context(inputs_for(model, images, [given.criterion]))
            columns = shared_columns(model, provenance, placed, amp, loader, images)
            asked = columns | columns_of(given) | {
                "seed": given.seed, "repair": ";".join(steps),
                "max_drop": max_drop, "confidence": confidence,
            }  # fmt: skip
            config = asked | {"command": "budget", "images": length(loader)}
            del config["versions"]
            if not is_named(given.criterion, asked):
                config["candidates"] = tensors_sha256(select(model, 0.5, **options).chosen)
            if output is not None:
                results = outer.enter_context(Results(output, BudgetRow))
                config[IMAGE_SAMPLES] = fingerprint(loader)
                keys = map(key_of, RATIOS)
                _, before = open_run(results, config, keys, length(loader), overwrite=overwrite)
            before = before if (in_order := is_sequential(loader)) else {}

            def save() -> None:
                if results is not None and in_order:
                    results.save_progress(as_json(search.progress))

            stack.enter_context(evaluating(model))
            bar = stack.enter_context(progress_bar("Looking for the ratio", None, show=progress))
            bar.skip(sum(each.seen for each in before.values()))
            kept = KeptRepairs(results, config)
            search = BudgetSearch(
                model, options, steps, images, kept, loader,
                Forward(model, placed, amp, bar.say), margin, level,
                progress=before, save=save, save_every=save_every, advance=bar.advance,
            )  # fmt: skip
            dense = search.score_dense()
            _refuse_few(len(dense), margin, level)
            looks = search.run(dense)
        best = max((one for one in looks if one.passed), key=lambda one: one.p_prune, default=None)
        achieved = 0.0
        if best is None:
            restore(model)
        else:
            search.prune(best.p_prune)
            names = {"layers": given.layers, "include": given.include, "exclude": given.exclude}
            achieved = sparsity(model, **names).ratio
        found = outcome_of(looks, best, dense, achieved, asked, level)
        if results is not None:
            results.add_all(found.rows)
    return found


def _check(options: SelectionOptions, max_drop: float, confidence: float) -> None:
    if options.neighbours is not None:
        raise InvalidArgumentError(
            Argument("scope", options.scope), " has one ratio, and a budget looks for one: write ",
            Argument("scope", "global"),
        )  # fmt: skip
    if not 0 < check_ratio("confidence", confidence) < 1:
        raise InvalidArgumentError(
            Argument("confidence"), " must be strictly between 0 and 1, "
            f"got {confidence:g}; write ", Argument("confidence", 0.95),
        )  # fmt: skip
    if not isinstance(max_drop, Real) or not 0 < max_drop < 100:
        raise InvalidArgumentError(
            Argument("max_drop"), f" must lie between 0 and 100 points, got {max_drop!r}; write ",
            Argument("max_drop", 1.0),
        )  # fmt: skip


def _refuse_few(count: int | None, margin: float, level: float) -> None:
    """Refuse images that are too few for any claim, before anything is computed."""
    least = least_images(margin, level)
    if count is None or count >= least:
        return
    shown = round(100 * least_margin(max(count, 1), level), 1)
    raise InvalidArgumentError(
        f"{counted(count, 'image')} cannot show a drop below {100 * margin:g} "
        f"point{'s' * (100 * margin != 1)}, even if none flips: that needs "
        f"{counted(least, 'image')}; or write ",
        Argument("max_drop", shown), ", or a lower ", Argument("confidence"),
    )  # fmt: skip
