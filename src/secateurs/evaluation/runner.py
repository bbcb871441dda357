"""Score the images that are left of a sweep, in one process or on ranks that split them."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor

from secateurs._io.json_objects import BrokenJSONError
from secateurs._io.text import counted
from secateurs._progress import progress_bar
from secateurs.errors import (
    Argument,
    FailureError,
    InvalidArgumentError,
    SecateursError,
    SecateursWarning,
)
from secateurs.evaluation.batches import is_sequential, length, why_no_images
from secateurs.evaluation.evaluation_loop import BesideDense, EvaluationLoop
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.partial_results import (
    IndexRange,
    Progress,
    as_json,
    from_json,
    ranges_left,
    read_progress,
    split,
    summed,
)
from secateurs.evaluation.ranks import Ranks
from secateurs.results import Results
from secateurs.results.record import Record

R = TypeVar("R", bound=Record)

IMAGE_SAMPLES = "image_samples"
"""The name of the loader's `fingerprint` in a configuration."""


def open_run(
    results: Results[R],
    config: Mapping[str, Any],
    keys: Iterable[str],
    total: int | None,
    wanted: Sequence[Mapping[str, Any]] = (),
    *,
    overwrite: bool,
) -> tuple[list[R], dict[str, Progress]]:
    """Lock a folder for a run, and read what earlier runs of the same configuration left in it.

    A warning says if it is not known whether their images were the same.

    Args:
        results: the folder.
        config: the configuration, with the checksums of the images where they are known.
        keys: the variants.
        total: how many images there are, None if not known.
        wanted: the rows of the run, each by the same columns, in which they differ.
        overwrite: delete what the folder holds.

    Returns:
        The rows, if all are there; otherwise the progress of all ranks, merged into one file.

    Raises:
        InvalidArgumentError: the folder holds another run, or one of other images.
    """
    results.open(config, overwrite=overwrite, optional={IMAGE_SAMPLES: "other images or labels"})
    if overwrite:
        clear_saved(results)
    if results.unverified:
        warning = SecateursWarning(
            f"{results.folder} holds results of this run, taken to be of the same images: this "
            "cannot be checked, since an older version wrote them, an image cannot be read, or "
            "this loader can be iterated only once; ",
            Argument("overwrite", True),
            " measures again",
        )
        warnings.warn(warning, stacklevel=3)
    columns = tuple(wanted[0]) if wanted else ()
    found = {tuple(getattr(row, name) for name in columns): row for row in results.rows()}
    asked = [tuple(each.values()) for each in wanted]
    if asked and all(each in found for each in asked):
        clear_saved(results)
        return [found[each] for each in asked], {}
    saved = results.load_progress_of_ranks()
    try:
        before = read_progress(saved, keys, total)
    except BrokenJSONError as error:  # another version or tool wrote it
        results.distrust_progress(error)
        before = {}
    results.merge_progress(as_json(before))
    return [], before


def clear_saved(results: Results[Any]) -> None:
    """Remove the progress of a run and its repaired values, which only an interrupted run needs."""
    results.clear_progress()
    KeptRepairs(results, {}).clear()


def score_variants(
    loader: Iterable[Any],
    variants: Mapping[str, Any],
    become: Callable[[Any], float],
    make_forward: Callable[[Callable[[str], None]], Forward],
    *,
    results: Results[Any] | None,
    ranks: Ranks,
    before: Mapping[str, Progress],
    save_every: float,
    show: bool | None,
    title: str = "Sweeping",
    beside_dense: BesideDense = False,
    calibration: Tensor | None = None,
) -> dict[str, Progress]:
    """Score variants on all images that are left, and save the progress from time to time.

    Args:
        loader: batches of (images, labels).
        variants: as for `EvaluationLoop`.
        become: as for `EvaluationLoop`.
        make_forward: makes what runs the model, of the function that it warns with.
        results: the folder in which each rank saves its own progress, None for none.
        ranks: the ranks, and which one this process is.
        before: the progress of earlier runs, the same on all ranks.
        save_every: seconds between two saves.
        show: False shows no progress.
        title: of the progress bar.
        beside_dense: as for `EvaluationLoop`.
        calibration: as for `EvaluationLoop`.

    Returns:
        The progress of each variant, on all ranks together.

    Raises:
        InvalidArgumentError: there are no images, or calibration images among them.
        FailureError: scoring failed, or images became readable or unreadable between runs.
    """
    in_order = is_sequential(loader)
    if not in_order:
        before = {}  # no index says which images were scored
    ranges = ranges_left(loader, before, variants)
    rank = ""
    if ranks.size > 1:  # then the loader reads in order
        rank = f"rank {ranks.rank}"
        title += f" ({rank} of {ranks.size})"
        batch_size: int = getattr(loader, "batch_size", 1)
        ranges = split(ranges, ranks.size, batch_size)[ranks.rank]
    mine: dict[str, Progress] = {}
    done, left = sum(each.seen for each in before.values()), _count(loader, ranges)

    def save() -> None:
        if results is None or not in_order:
            return
        progress = summed([before, mine]) if ranks.is_first else mine
        if any(each.seen for each in progress.values()):
            results.save_progress(as_json(progress), rank=ranks.rank)

    with progress_bar(
        title,
        None if left is None else done + left,
        show=show if ranks.is_first else False,
        per=len(variants),
    ) as bar:
        bar.skip(done)

        def say(text: str) -> None:
            bar.say(f"{rank}: {text}" if rank else text)

        try:
            EvaluationLoop(
                loader=loader,
                ranges=ranges,
                variants=variants,
                become=become,
                forward=make_forward(say),
                save=save,
                advance=bar.advance,
                save_every=save_every,
                progress=mine,
                beside_dense=beside_dense,
                calibration=calibration,
            ).run()
        except SecateursError as error:
            if rank:
                error.parts += (f" ({rank})",)
            raise
        gathered = ranks.gather(as_json(mine))  # inside, so that the bar stays while this waits
    nothing = {key: Progress() for key in variants}
    progress = summed([nothing, before, *map(from_json, gathered)])
    with ranks.together():
        counts = {each.tally.count for each in progress.values()}
        if len(counts) > 1 or 0 in counts:
            if results is not None and ranks.is_first:
                results.clear_progress()  # a run that continues from it would fail again
            raise _wrong_counts(counts, loader)
    return progress


def _count(loader: Iterable[Any], ranges: Sequence[IndexRange]) -> int | None:
    """How many images the ranges hold, counted for each variant; None if not known."""
    images = length(loader)
    if images is None:
        return None
    stops = [images if each.stop is None else each.stop for each in ranges]
    pairs = zip(stops, ranges, strict=True)
    return sum((stop - each.start) * len(each.keys) for stop, each in pairs)


def _wrong_counts(counts: set[int], loader: Iterable[Any]) -> SecateursError:
    if counts == {0}:
        return InvalidArgumentError(f"{why_no_images(loader)}: there is nothing to score")
    return FailureError(
        f"some variants saw {counted(min(counts), 'image')} and others {max(counts)}: images "
        "became readable or unreadable between two runs; run the sweep again"
    )
