"""Score the images that are left of a sweep, in one process or on ranks that split them."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from secateurs._io.json_objects import BrokenJSONError
from secateurs._io.text import counted
from secateurs._progress import Bar, progress_bar
from secateurs.errors import (
    Argument,
    FailureError,
    InvalidArgumentError,
    SecateursError,
    SecateursWarning,
)
from secateurs.evaluation.batches import is_sequential, length, why_no_images
from secateurs.evaluation.evaluation_loop import Becomes, BesideDense, EvaluationLoop, Named
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.index_ranges import IndexRange, ranges_left, split
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.partial_results import (
    Progress,
    as_json,
    from_json,
    read_progress,
    summed,
)
from secateurs.evaluation.ranks import Ranks
from secateurs.results import Results

IMAGE_SAMPLES = "image_samples"
"""The name of the loader's `fingerprint` in a configuration."""


def open_folder(results: Results[Any], config: Mapping[str, Any], *, overwrite: bool) -> None:
    """Lock a folder for a run of this configuration, whose images are compared where known.

    A warning says if they are not known.

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


def clear_saved(results: Results[Any]) -> None:
    """Remove the progress of a run and its repaired values, which only an interrupted run needs."""
    results.clear_progress()
    KeptRepairs(results.folder, {}).clear()


def earlier_progress(
    results: Results[Any], keys: list[str], total: int | None
) -> dict[str, Progress]:
    """What the ranks of earlier runs have saved, merged into one file.

    Args:
        results: the folder.
        keys: the variants.
        total: how many images there are, None if not known.
    """
    saved = results.load_progress_of_ranks()
    try:
        before = read_progress(saved, keys, total)
    except BrokenJSONError as error:  # another version or tool wrote it
        results.distrust_progress(error)
        before = {}
    results.merge_progress(as_json(before))
    return before


@dataclass
class SweepRun:
    """The part of a sweep that is left to score, and where its progress is saved.

    Attributes:
        loader: batches of (images, labels).
        variants: the networks to score.
        model: becomes each of them.
        device: of the model.
        amp: whether to run under autocast.
        results: the folder in which each rank saves its own progress, None for none.
        ranks: the ranks, and which one this process is.
        before: the progress of earlier runs, the same on all ranks.
        save_every: seconds between two saves.
        mine: the progress of this process, by variant.
        title: of the progress bar.
        beside_dense: as for `EvaluationLoop`.
        forward_of: makes what runs the model.
    """

    loader: Iterable[Any]
    variants: Sequence[Named]
    model: Becomes
    device: torch.device
    amp: bool
    results: Results[Any] | None
    ranks: Ranks
    before: dict[str, Progress]
    save_every: float
    mine: dict[str, Progress] = field(default_factory=dict[str, Progress])
    title: str = "Sweeping"
    beside_dense: BesideDense = False
    forward_of: Callable[[nn.Module, torch.device, bool, Callable[[str], None]], Forward] = Forward

    def run(self, show: bool | None) -> dict[str, Progress]:
        """Score the variants on all images that are left.

        Args:
            show: False shows no progress.

        Returns:
            The progress of each variant, on all ranks together.

        Raises:
            InvalidArgumentError: there are no images.
            FailureError: scoring failed, or images became readable or unreadable between runs.
        """
        if not is_sequential(self.loader):
            self.before = {}  # no index says which images were scored
        ranges = self._ranges()
        done = sum(each.seen for each in self.before.values())
        left = self._length_of(ranges)
        with progress_bar(
            self._title(),
            None if left is None else done + left,
            show=show if self.ranks.is_first else False,
            per=len(self.variants),
        ) as bar:
            bar.skip(done)
            self._score(ranges, bar)
            gathered = self.ranks.gather(
                as_json(self.mine)
            )  # inside, so that the bar stays while this rank waits
        nothing = {variant.key: Progress() for variant in self.variants}
        progress = summed([nothing, self.before, *map(from_json, gathered)])
        with self.ranks.together():
            self._check_counts(progress)
        return progress

    def _ranges(self) -> list[IndexRange]:
        """The images of this rank."""
        keys = [variant.key for variant in self.variants]
        all_ranges = ranges_left(self.loader, self.before, keys)
        if self.ranks.size == 1 or not is_sequential(self.loader):
            return all_ranges
        batch_size: int = getattr(self.loader, "batch_size", 1)
        return split(all_ranges, self.ranks.size, batch_size)[self.ranks.rank]

    def _length_of(self, ranges: list[IndexRange]) -> int | None:
        """How many images the ranges hold, counted for each variant; None if not known."""
        images = length(self.loader)
        if images is None:
            return None
        stops = [images if each.stop is None else each.stop for each in ranges]
        pairs = zip(stops, ranges, strict=True)
        return sum((stop - each.start) * len(each.keys) for stop, each in pairs)

    def _title(self) -> str:
        ranks = self.ranks
        return self.title + f" (rank {ranks.rank} of {ranks.size})" * (ranks.size > 1)

    def _score(self, ranges: list[IndexRange], bar: Bar) -> None:
        rank = "" if self.ranks.size == 1 else f"rank {self.ranks.rank}"

        def say(text: str) -> None:
            bar.say(f"{rank}: {text}" if rank else text)

        try:
            EvaluationLoop(
                loader=self.loader,
                ranges=ranges,
                variants=self.variants,
                model=self.model,
                forward=self.forward_of(self.model.model, self.device, self.amp, say),
                save=self._save,
                advance=bar.advance,
                save_every=self.save_every,
                progress=self.mine,
                beside_dense=self.beside_dense,
            ).run()
        except SecateursError as error:
            if rank:
                raise type(error)(f"{error} ({rank})") from error
            raise

    def _save(self) -> None:
        """Save the progress of this rank; rank 0 adds that of earlier runs."""
        if self.results is None or not is_sequential(self.loader):
            return
        progress = summed([self.before, self.mine]) if self.ranks.is_first else self.mine
        if any(each.seen for each in progress.values()):
            self.results.save_progress(as_json(progress), rank=self.ranks.rank)

    def _check_counts(self, progress: Mapping[str, Progress]) -> None:
        counts = {each.tally.count for each in progress.values()}
        if len(counts) == 1 and 0 not in counts:
            return
        if self.results is not None and self.ranks.is_first:
            self.results.clear_progress()  # a run that continues from it would fail again
        if counts == {0}:
            raise InvalidArgumentError(f"{why_no_images(self.loader)}: there is nothing to score")
        raise FailureError(
            f"some variants saw {counted(min(counts), 'image')} and others {max(counts)}: images "
            "became readable or unreadable between two runs; run the sweep again"
        )
