"""The row of a transfer benchmark: one attack's success on one network at one step."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from secateurs._io.text import counted, quoted, storable
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.results.interval import wilson_interval
from secateurs.results.record import COUNT, ROUNDING, SIZE, Limits, Record


@dataclass(frozen=True, kw_only=True)
class TransferRow(Record):
    """How often one attack fooled one network at one step; the fields are columns of results.csv.

    A row holds the outcome of every image, so that tests can pair rows image by image: `images`
    is equal in rows of the same images in the same order.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        surrogates: The networks that the attack used, such as "timm:lite0", joined by ";"; "" for
            noise, which needs none.
        surrogates_weights: First 16 hex digits of a SHA-256 over each one's weights, joined by ";".
        target: The network that was scored.
        target_sha256: First 16 hex digits of a SHA-256 over its weights.
        role: "holdout": a network that the attack did not use. "whitebox": one of the surrogates,
            scored dense.
        variant: The name of the row in tables: "plain" (the surrogates dense), "noise", or a recipe
            with its ratios, such as "dwp 0.3 0.5". Differences are taken from "plain".
        recipe: "dwp", "rapa", "mup", "noise", or "" for plain.
        prune_type: "global" (the masks act on both passes) or "gradient" (on the backward pass
            alone); "" where nothing is pruned.
        redraw: When masks are drawn: "forward", "step", or a number of fixed draws such as "8"; ""
            where nothing is pruned.
        granularity: "weight", "kernel" or "filter"; "" where nothing is pruned.
        scope: "global", "layer", or "N:M", such as "2:4"; "" where nothing is pruned.
        score: "magnitude", "gradient", "taylor", "random", or the name of a callable; "" where
            nothing is pruned.
        p_prune: Ratio of units that are candidates, 0 to 1; 0.0 where nothing is pruned.
        p_bern: Probability with which each candidate is pruned; 0.0 where nothing is pruned.
        method: The attack, with its loss: "mi-ti-di-logit".
        passes: Gradient passes that are averaged in a step.
        eps: The most that a pixel may change, of 1 (16/255 is 0.0627).
        alpha: The change of a pixel in a step, of 1.
        steps: Steps of the whole attack.
        seed: Seed of the attack and of the masks.
        targeted_attack: Whether the attack aims at a class.
        target_classes: The origin of these classes: "given" (by the data), "drawn, seed 0", or ""
            for an untargeted attack.
        images: Digest of the ids of the attacked images, in order (`digest_of`).
        search_part: "" without a search; "search" for images that settings were chosen on, and
            "report" for the others, which the success is measured on.
        img_size: Side of the attacked images in pixels.
        preprocess: The preprocessing of the target, in one line.
        batch_size: Images that are attacked together; the draws depend on it.
        rounded: Whether the images were rounded to 8 bits before they were scored.
        dtype: Data type of the target's weights, such as "float32".
        step: The step after which this was measured, at most `steps`.
        achieved: Ratio of prunable weights (elements) that a draw prunes, mean over draws and
            surrogates; 0.0 where nothing is pruned.
        candidates_count: Images that were classified to find `count` of them.
        count: Images that were attacked; all networks classify them correctly.
        targeted_hits: One digit an image, in the order of `images`: 1 where the network gives the
            class that was aimed at. "" for an untargeted attack.
        untargeted_hits: One digit an image: 1 where it does not give the true class.
        targeted: Images given the class that was aimed at, percent; None for an untargeted attack.
        targeted_low: Lower end of its 95% interval (Wilson), percent, or None.
        targeted_high: Upper end of it, percent, or None.
        untargeted: Images not given their true class, percent.
        untargeted_low: Lower end of its 95% interval (Wilson), percent.
        untargeted_high: Upper end of it, percent.
        seconds: Seconds that the attack took to this step, over all images.
    """

    KIND: ClassVar[str] = "transfer"
    LAST_ASKED: ClassVar[str] = "step"
    LIMITS: ClassVar[Limits] = {
        **dict.fromkeys(("passes", "steps", "step", "candidates_count"), COUNT),
        **dict.fromkeys(("count", "img_size", "batch_size"), (1, COUNT[1])),
        "seconds": SIZE,
    }

    surrogates: str
    surrogates_weights: str
    target: str
    target_sha256: str
    role: str
    variant: str
    recipe: str
    prune_type: str
    redraw: str
    granularity: str
    scope: str
    score: str
    layers: str
    include: str
    exclude: str
    p_prune: float
    p_bern: float
    method: str
    passes: int
    eps: float
    alpha: float
    steps: int
    seed: int
    targeted_attack: bool
    target_classes: str
    data: str
    split: str
    images: str
    search_part: str
    img_size: int
    preprocess: str
    batch_size: int
    rounded: bool
    dtype: str
    step: int
    achieved: float
    candidates_count: int
    count: int
    targeted_hits: str
    untargeted_hits: str
    targeted: float | None
    targeted_low: float | None
    targeted_high: float | None
    untargeted: float
    untargeted_low: float
    untargeted_high: float
    seconds: float
    device: str
    versions: str

    def _check(self) -> None:
        for name, measured in (("targeted", self.targeted_attack), ("untargeted", True)):
            hits: str = getattr(self, f"{name}_hits")
            if len(hits) != (self.count if measured else 0) or hits.strip("01"):
                raise FailureError(
                    f"column {name}_hits of a result row disagrees with the count of "
                    f"{counted(self.count, 'image')}: it must hold one digit an image, 0 or 1"
                )
            percent, expected = getattr(self, name), _percent(hits) if measured else None
            if (percent is None) != (expected is None) or not _close(percent, expected):
                raise FailureError(
                    f"column {name} of a result row holds {quoted(percent)}, but the hits give "
                    f"{expected}"
                )


def hit_columns(
    untargeted: Iterable[bool | int], targeted: Iterable[bool | int] | None = None
) -> dict[str, Any]:
    """The columns that follow from the outcomes of the images, with percentages and intervals.

    Args:
        untargeted: For each image, whether the network does not give its true class.
        targeted: For each image, whether it gives the class that was aimed at; None for an
            untargeted attack.

    Returns:
        `count`, the hits as text, and the percentages with their ends, to hand to `TransferRow`.

    Raises:
        InvalidArgumentError: There are no images, or the two are not equally long.

    Example:
        >>> columns = hit_columns([True, True, False, True], [True, False, False, False])
        >>> columns["count"], columns["targeted_hits"], columns["targeted"], columns["untargeted"]
        (4, '1000', 25.0, 75.0)
    """
    escaped = _digits(untargeted)
    reached = "" if targeted is None else _digits(targeted)
    if targeted is not None and len(reached) != len(escaped):
        raise InvalidArgumentError(
            f"{len(escaped)} untargeted and {len(reached)} targeted outcomes; give one of each"
            " for every image"
        )
    return {
        "count": len(escaped),
        "targeted_hits": reached,
        "untargeted_hits": escaped,
        **_rates("targeted", reached if targeted is not None else None),
        **_rates("untargeted", escaped),
    }


def digest_of(ids: Iterable[str]) -> str:
    """First 16 hex digits of a SHA-256 over the ids of images, one a line, in order."""
    return hashlib.sha256(storable("\n".join(ids)).encode()).hexdigest()[:16]


def _digits(outcomes: Iterable[bool | int]) -> str:
    return "".join("1" if outcome else "0" for outcome in outcomes)


def _rates(name: str, hits: str | None) -> dict[str, float | None]:
    if hits is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = wilson_interval(hits.count("1"), len(hits))
    return {name: _percent(hits), f"{name}_low": 100 * low, f"{name}_high": 100 * high}


def _percent(hits: str) -> float:
    return 100 * hits.count("1") / len(hits)


def _close(value: float | None, expected: float | None) -> bool:
    return value is None or expected is None or abs(value - expected) < ROUNDING
