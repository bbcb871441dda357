"""The sparsest network whose accuracy has dropped by less than a margin, with proof."""

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from secateurs._progress import Bar, progress_bar
from secateurs._validation import check_ratio
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.evaluation.batches import length, read, why_no_images, workers_watched
from secateurs.evaluation.forward import Forward
from secateurs.evaluation.measured_model import evaluating, moved_to
from secateurs.evaluation.metrics import Tally
from secateurs.evaluation.paired_drop import claims, images_needed, least_images, upper_limit
from secateurs.masks._sparsity import sparsity
from secateurs.pruning import global_prune, restore, set_aside
from secateurs.repair.pipeline import repair as repaired
from secateurs.selection.scopes import NOfM
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows

_STEPS = 100  # the ratios that are told apart: hundredths


@dataclass(frozen=True)
class Look:
    """A ratio that was tried.

    Attributes:
        p_prune: the ratio of units.
        count: images that it was scored on; fewer than all where the rest could not save it.
        lost: of them, images that the dense network gets right and this one wrong.
        won: of them, images that it gets wrong and this one right.
        passed: whether the drop is below the margin, with the confidence that was asked for.
    """

    p_prune: float
    count: int
    lost: int
    won: int
    passed: bool


@dataclass(frozen=True)
class Budget:
    """The sparsest network with the claim that was asked for.

    Attributes:
        p_prune: the ratio of units that are pruned; 0.0 where no pruned network passed.
        achieved: the ratio of prunable weights that is zero.
        max_drop: the drop that is excluded, points.
        confidence: of the claim, all looks together.
        count: images.
        dense_top1: accuracy of the dense network, percent.
        top1: accuracy of this one, percent.
        drop: dense_top1 - top1, points.
        drop_high: the upper limit of the drop, points, at this confidence for all looks together.
        lost: images that the dense network gets right and this one wrong.
        won: images that it gets wrong and this one right.
        needed: about how many images would be needed for a sparser network whose measured drop was
            below the margin, and which did not pass; None where there was none.
        needed_for: the ratio of that network.
        looks: the ratios that were tried, in order.
        passes: forward passes over all images that it took, the dense one included.
    """

    p_prune: float
    achieved: float
    max_drop: float
    confidence: float
    count: int
    dense_top1: float
    top1: float
    drop: float
    drop_high: float
    lost: int
    won: int
    needed: int | None
    needed_for: float | None
    looks: tuple[Look, ...] = field(repr=False)
    passes: float


@shows(SelectionOptions)
def budget(
    model: nn.Module,
    loader: Iterable[Any],
    max_drop: float = 1.0,
    *,
    confidence: float = 0.95,
    repair: Sequence[str] = (),
    calibration: Tensor | Iterable[Any] | None = None,
    device: str | torch.device | None = None,
    amp: bool = False,
    progress: bool | None = None,
    **options: Unpack[SelectionKeywords],
) -> Budget:
    """Prune as far as accuracy provably drops by less than ``max_drop`` points.

    The ratio is found by bisection over hundredths. Each network is compared with the dense one on
    the same images, by a one-sided test on the images that flip
    (`secateurs.evaluation.paired_drop`). Bisection looks at most 7 times at the same images, so
    each test has a seventh of the allowed error (Bonferroni): the claim on the network that is
    returned holds at ``confidence`` for all looks together, whatever path the bisection took. A
    network that cannot pass even if it were right on all images that are left is given up at once;
    this changes no outcome.

    The labels of ``loader`` decide where the bisection goes, and this is accounted for. They must
    have decided nothing before: not the criterion, the allocation or the repair.

    Args:
        model: a classifier, changed in place: afterwards pruned, and repaired if asked, as after
            `secateurs.global_prune`; ``secateurs.restore`` puts it back.
        loader: batches of (images, labels), the same in every pass.
        max_drop: points of top-1 accuracy, above 0 and below 100.
        confidence: of the claim, strictly between 0 and 1.
        repair: steps of `secateurs.repair` after each pruning, such as
            ``["batchnorm", "reconstruct"]``.
        calibration: the images of the repair; no label is read. Not those of ``loader``.
        device: where to run; the model is moved there. Default the device of the model.
        amp: whether to run under autocast.
        progress: False shows no progress.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        The ratio, the evidence, and how many images a sparser network would need.

    Raises:
        InvalidArgumentError: an argument is wrong, or the images are so few that no network could
            pass; the error says how many are needed.

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
    scope = SelectionOptions.read(budget, options).scope
    if NOfM.read(scope) is not None:
        raise InvalidArgumentError(
            Argument("scope", scope), " has one ratio, and a budget looks for one: write ",
            Argument("scope", "global"),
        )  # fmt: skip
    if not 0 < check_ratio("confidence", confidence) < 1:
        raise InvalidArgumentError(Argument("confidence", 0.95), " lies strictly between 0 and 1")
    if not 0 < max_drop < 100:
        raise InvalidArgumentError(f"max_drop must lie between 0 and 100 points, got {max_drop}")
    if repair and calibration is None:
        raise InvalidArgumentError(
            "a repair needs images: write ", Argument("calibration"), " with some unlabelled ones"
        )
    level = (1 - confidence) / math.ceil(math.log2(_STEPS))
    _refuse_few(length(loader), max_drop / 100, level)
    images = calibration if isinstance(calibration, Tensor) else list(calibration or ())
    with ExitStack() as stack:
        stack.enter_context(set_aside(model))
        placed = moved_to(model, device)
        stack.enter_context(evaluating(model))
        bar = stack.enter_context(progress_bar("Looking for the ratio", None, show=progress))
        search = _Search(model, loader, Forward(model, placed, amp, bar.say), bar, max_drop / 100)
        search.score_dense()
        _refuse_few(search.count, max_drop / 100, level)
        low, high = 0, _STEPS
        while high - low > 1:
            middle = (low + high) // 2
            _prune(model, middle / _STEPS, repair, images, options)
            passed = search.look(middle / _STEPS, level)
            low, high = (middle, high) if passed else (low, middle)
            restore(model)
    if low:
        _prune(model, low / _STEPS, repair, images, options)
    else:
        restore(model)
    achieved = sparsity(model, **_coverage(options)).ratio if low else 0.0
    return search.outcome(low / _STEPS, achieved, max_drop, confidence, level)


def _prune(
    model: nn.Module,
    p_prune: float,
    steps: Sequence[str],
    images: Tensor | Sequence[Any],
    options: SelectionKeywords,
) -> None:
    global_prune(model, p_prune, **options)
    if steps:
        repaired(model, images, tuple(steps))


def _coverage(options: SelectionKeywords) -> dict[str, Any]:
    given: dict[str, Any] = dict(options)
    return {name: given[name] for name in ("layers", "include", "exclude") if name in given}


def _refuse_few(count: int | None, margin: float, level: float) -> None:
    """Refuse images that are too few for any claim, before anything is computed."""
    least = least_images(margin, level)
    if count is None or count >= least:
        return
    shown = 100 * -math.expm1(math.log(level) / max(count, 1))
    raise InvalidArgumentError(
        f"{count} images cannot show a drop below {100 * margin:g} points, even if none flips: "
        f"that needs {least:,} images; or write ",
        Argument("max_drop", math.ceil(10 * shown) / 10),
        ", or a lower ",
        Argument("confidence"),
    )


@dataclass
class _Search:
    """Scores networks against the dense one, image by image."""

    model: nn.Module
    loader: Iterable[Any]
    forward: Forward
    bar: Bar
    margin: float
    dense: str = ""
    looks: list[Look] = field(default_factory=list[Look])

    @property
    def count(self) -> int:
        return len(self.dense)

    def score_dense(self) -> None:
        self.dense = "".join(self._hits())
        if not self.dense:
            raise InvalidArgumentError(f"{why_no_images(self.loader)}: there is nothing to score")

    def look(self, p_prune: float, level: float) -> bool:
        """Score the model as it is, as long as it can still pass."""
        lost = won = seen = 0
        possible = True
        for hits in self._hits():
            theirs = self.dense[seen : seen + len(hits)]
            pairs = list(zip(theirs, hits, strict=True))
            lost, won = lost + pairs.count(("1", "0")), won + pairs.count(("0", "1"))
            seen += len(hits)
            hopes = self.dense.count("0", seen)
            possible = claims(lost, won + hopes, self.count, self.margin, level)
            if not possible:
                break
        if possible and seen != self.count:
            raise FailureError(
                f"the loader gave {self.count} images in one pass and {seen} in another: use a "
                "DataLoader that does not shuffle"
            )
        self.looks.append(Look(p_prune, seen, lost, won, possible))
        return possible

    def outcome(
        self, p_prune: float, achieved: float, max_drop: float, confidence: float, level: float
    ) -> Budget:
        best = next((one for one in self.looks if one.p_prune == p_prune), None)
        lost, won = (best.lost, best.won) if best else (0, 0)
        dense, change = 100 * self.dense.count("1") / self.count, 100 * (won - lost) / self.count
        needed, ratio = self._needed(level)
        high = upper_limit(lost, won, self.count, self.margin, level) if best else 0.0
        return Budget(
            *(p_prune, achieved, max_drop, confidence, self.count),
            *(dense, dense + change, -change, 100 * high, lost, won, needed, ratio),
            looks=tuple(self.looks),
            passes=1 + sum(look.count for look in self.looks) / self.count,
        )

    def _needed(self, level: float) -> tuple[int | None, float | None]:
        """What the least sparse network that failed would need, if its drop was small enough."""
        failed = sorted((one for one in self.looks if not one.passed), key=lambda o: o.p_prune)
        for one in failed[:1]:
            shares = one.lost / one.count, one.won / one.count
            return images_needed(*shares, self.margin, level), one.p_prune
        return None, None

    def _hits(self) -> Iterable[str]:
        with workers_watched():
            for _, (images, labels) in read(self.loader, 0, None):
                if len(labels):
                    yield Tally().add(self.forward(self.forward.to_device(images)), labels)
                self.bar.advance(len(labels))
