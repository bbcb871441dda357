"""The pass of a sweep from where it was to its end, alone or with other ranks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from secateurs._progress import Bar, progress_bar
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation.batches import is_sequential, length, none_given
from secateurs.evaluation.data_pass import Pass, Saver
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.grid import Variant
from secateurs.evaluation.index_ranges import Stretch, left, share
from secateurs.evaluation.partial_results import Progress, added
from secateurs.evaluation.pruned_model import Variants
from secateurs.evaluation.ranks import Ranks
from secateurs.results import Results, Row


@dataclass
class Work:
    """What is left of a sweep, and where it is kept.

    Attributes:
        loader: batches of (images, labels).
        variants: the networks to evaluate.
        model: becomes each of them.
        device: where it is.
        amp: whether to run under autocast.
        results: where to save, if anywhere; with ranks, rank 0's alone.
        ranks: who else sees a part of the images.
        before: what earlier runs have done.
        mine: what this process does, by variant.
    """

    loader: Iterable[Any]
    variants: list[Variant]
    model: Variants
    device: torch.device
    amp: bool
    results: Results[Row] | None
    ranks: Ranks | None
    before: dict[str, Progress]
    mine: dict[str, Progress] = field(default_factory=dict[str, Progress])

    def run(self, show: bool | None) -> dict[str, Progress]:
        """Do it.

        Args:
            show: False for no bar and no lines about the progress.

        Returns:
            How far each variant has come, on all ranks together; on others than rank 0, here.

        Raises:
            InvalidArgumentError: there are no images.
            FailureError: it cannot be done, or images became readable or unreadable on the way.
        """
        if not is_sequential(self.loader):
            self.before = {}  # the same images cannot be found again
        images = length(self.loader)
        total = None if images is None else images * len(self.variants)
        if self.ranks is not None and not self.ranks.first:
            show = False
        with progress_bar("Sweeping", total, show=show, per=len(self.variants)) as bar:
            bar.skip(sum(each.seen for each in self.before.values()))
            try:
                self._see(bar)
            except BaseException as error:
                self._break_off(error)
                raise
        progress = self._together()
        if self.ranks is None or self.ranks.first:
            self._check_counts(progress)
        return progress

    def _see(self, bar: Bar) -> None:
        ranks = self.ranks

        def say(text: str) -> None:
            bar.say(text if ranks is None else f"rank {ranks.rank}: {text}")

        def advance(images: int) -> None:
            bar.advance(images if ranks is None else ranks.advance(images))

        Pass(
            loader=self.loader,
            stretches=self._stretches(),
            variants=self.variants,
            model=self.model,
            forward=Forward(self.model.model, self.device, self.amp, say),
            save=self._save,
            advance=advance,
            progress=self.mine,
        ).run()
        if ranks is None:
            return
        saver = Saver(self._save)

        def idle() -> None:
            bar.advance(ranks.advanced())
            saver.step()

        ranks.tell(self.mine)
        bar.advance(ranks.advanced())
        ranks.say_here("seen")
        ranks.wait_for_all("seen", idle)

    def _stretches(self) -> list[Stretch]:
        keys = [variant.key for variant in self.variants]
        if not is_sequential(self.loader):
            return [Stretch(0, None, frozenset(keys))]
        all_of_them = left(self.before, keys, length(self.loader) or 0)
        if self.ranks is None:
            return all_of_them
        size: int = getattr(self.loader, "batch_size", 1)
        return share(all_of_them, self.ranks.size, size)[self.ranks.rank]

    def _together(self) -> dict[str, Progress]:
        """What all ranks have done, as far as this one knows."""
        others = [] if self.ranks is None else self.ranks.told()
        nothing = {variant.key: Progress() for variant in self.variants}
        return added([nothing, self.before, self.mine, *others])

    def _save(self) -> None:
        if self.ranks is not None:
            self.ranks.tell(self.mine)
        if self.results is None or not is_sequential(self.loader):
            return
        progress = self._together()
        if any(each.seen for each in progress.values()):
            self.results.save_progress({key: each.to_dict() for key, each in progress.items()})

    def _break_off(self, error: BaseException) -> None:
        """Keep also what the other ranks have done until now."""
        if self.ranks is None:
            return
        self.ranks.end(error)
        if self.ranks.first and self.results is not None:
            self.ranks.wait_for_last_progress()
            self._save()

    def _check_counts(self, progress: Mapping[str, Progress]) -> None:
        counts = {each.tally.count for each in progress.values()}
        if len(counts) == 1 and 0 not in counts:
            return
        if self.results is not None:
            self.results.clear_progress()  # going on from here would end here
        if counts == {0}:
            raise InvalidArgumentError(f"{none_given(self.loader)}: there is nothing to score")
        raise FailureError(
            f"some variants saw {min(counts)} images and others {max(counts)}: images became "
            "readable or unreadable between two runs; run the sweep again"
        )
