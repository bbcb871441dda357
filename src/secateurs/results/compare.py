"""Success rates over images, seeds and targets: intervals, and paired tests of two attacks.

The unit is the image. Outcomes of one image under several seeds, or on several targets, are
correlated, so they are first averaged within the image; intervals and tests then run over the
images. All results are exact or in closed form: nothing is drawn at random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from secateurs.errors import InvalidArgumentError
from secateurs.results.interval import wilson_interval

EXACT = 4_000_000_000
"""The most bytes that are added up for an exact p value, about a second's work.

Where it would take more, the normal limit differs from the exact p by less than 0.001.
"""


@dataclass(frozen=True)
class Estimate:
    """A success rate: `value`, and `low` and `high` of its interval, percent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Success with a method compared to success without it, on the same images.

    Attributes:
        difference: Success with minus success without, points.
        low: Lower end of its interval, points.
        high: Upper end of it, points.
        p: Two-sided p value of the hypothesis that the method makes no difference.
        discordant: Number of images whose outcomes differ with and without.
        count: Number of images.
    """

    difference: float
    low: float
    high: float
    p: float
    discordant: int
    count: int


def success_interval(hits: str | Sequence[str], confidence: float = 0.95) -> Estimate:
    r"""Mean success over seeds (or targets), with Wilson's interval over the images.

    With x_i the mean of image i, p and v the mean and the variance of the x_i over n images, the
    interval is Wilson's for p on the effective number of images,

        n* = n p (1 - p) / v,    n <= n* <= n m for m seeds.

    With one seed v = p (1 - p), and this is Wilson's own interval. Where seeds agree on every image
    they add nothing (n* = n); where they are independent they count like other images (n* = n m).
    The interval stays inside 0 to 100, and unlike a bootstrap it has a width also where nothing, or
    everything, succeeds: there n* = n.

    Source: E. L. Korn and B. I. Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Survey Methodology 24 (1998), 193-201,
    for the effective number; N. Dean and M. Pagano, Journal of Survey Statistics and Methodology 3
    (2015), 484-503, for its use in Wilson's interval.

    Args:
        hits: One digit an image, 1 for success; one such text a seed or target.
        confidence: Coverage of the interval, strictly between 0 and 1.

    Raises:
        InvalidArgumentError: There are no images, or texts of different lengths.

    Example:
        >>> one = success_interval("1100000000")
        >>> two = success_interval(["1100000000", "0011000000"])
        >>> f"{one.value:.0f} ({one.low:.0f} to {one.high:.0f})"
        '20 (6 to 51)'
        >>> f"{two.value:.0f} ({two.low:.0f} to {two.high:.0f})"
        '20 (8 to 42)'
    """
    return _estimate(_counts(hits), _seeds(hits), confidence)


def paired_test(
    with_hits: str | Sequence[str],
    without_hits: str | Sequence[str],
    confidence: float = 0.95,
    *,
    exact: int = EXACT,
) -> Comparison:
    r"""Whether success with a method differs from success without it, on the same images.

    The test: let d_i be the difference of image i, summed over seeds and targets. If the method
    makes no difference, each d_i is as probable as -d_i. p is the share of the 2^n choices of signs
    with \|sum of +-d_i\| >= \|sum of d_i\|. It is computed exactly (above a few thousand images by
    its normal limit). With one seed and one target this is McNemar's exact test.

    The interval: with l, u and l', u' the ends of `success_interval` with (p) and without (p'), and
    r the correlation of the two over images,

        low  = p - p' - sqrt((p - l)^2 - 2 r (p - l)(u' - p') + (u' - p')^2),
        high = p - p' + sqrt((u - p)^2 - 2 r (u - p)(p' - l') + (p' - l')^2).

    It has a width also where nothing succeeds. If the outcomes of all n images are the same with
    and without, then r = 1, and at p = 1/2 the width would vanish. The ends are then those that
    n images without any success have, whatever p is:

        high = -low = u of `success_interval` for 0 of n.

    The interval and p come from different formulas: in
    rare cases the one excludes "no difference" and the other does not; then p decides.

    Source: R. A. Fisher, "The Design of Experiments" (1935), section 21, for the test; Q. McNemar,
    Psychometrika 12 (1947), 153-157; R. G. Newcombe, Statistics in Medicine 17 (1998), 2635-2650,
    and G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008), 1693-1702, for the
    interval.

    Args:
        with_hits: One digit an image, 1 for success; one such text a seed or target.
        without_hits: The same without the method: the same images, seeds and targets in the same
            order.
        confidence: Coverage of the interval, strictly between 0 and 1.
        exact: The most bytes of additions for the exact p, see `EXACT`.

    Raises:
        InvalidArgumentError: There are no images, or the two do not pair.

    Example:
        >>> found = paired_test("1111111000", "0000001000")
        >>> f"{found.difference:+.0f} points, p = {found.p:.3f}"
        '+60 points, p = 0.031'
    """
    ours, theirs = _counts(with_hits), _counts(without_hits)
    seeds = _seeds(with_hits)
    if len(ours) != len(theirs) or seeds != _seeds(without_hits):
        raise InvalidArgumentError(
            f"{seeds} x {len(ours)} outcomes with and {_seeds(without_hits)} x {len(theirs)}"
            " without; a paired test needs the same images, seeds and targets on both sides"
        )
    a, b = (_estimate(counts, seeds, confidence) for counts in (ours, theirs))
    r = _correlation(ours, theirs)
    differences = [x - y for x, y in zip(ours, theirs, strict=True)]
    below = _distance(a.value - a.low, b.high - b.value, r)
    above = _distance(a.high - a.value, b.value - b.low, r)
    if not any(differences):
        below = above = success_interval("0" * len(ours), confidence).high
    return Comparison(
        difference=a.value - b.value,
        low=a.value - b.value - below,
        high=a.value - b.value + above,
        p=_sign_flip(differences, exact),
        discordant=sum(map(bool, differences)),
        count=len(ours),
    )


def unpaired_interval(
    ours: tuple[float, float], theirs: tuple[float, float], confidence: float = 0.95
) -> tuple[float, float]:
    """Newcombe's interval for the difference of two proportions of independent images.

    That of `paired_test` with r = 0.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998), 873-890.

    Args:
        ours: The proportion, from 0 to 1, and the number of images.
        theirs: The same of the other.
        confidence: Coverage of the interval, strictly between 0 and 1.

    Returns:
        The lower and the upper end of ours - theirs, points.

    Example:
        >>> low, high = unpaired_interval((0.7, 80), (0.6, 80))
        >>> f"{low:.1f} {high:.1f}"
        '-4.7 24.1'
    """
    p, q = ours[0], theirs[0]
    (low, high), (other_low, other_high) = (
        wilson_interval(share * count, count, confidence) for share, count in (ours, theirs)
    )
    down, up = _distance(p - low, other_high - q, 0.0), _distance(high - p, q - other_low, 0.0)
    return 100 * (p - q - down), 100 * (p - q + up)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of several tests: at 5%, the chance of any false alarm is at most 5%.

    The i-th smallest of n (from 1) becomes the largest of p_j (n - j + 1) over j <= i, at most 1.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6 (1979), 65-70.

    Args:
        p_values: The p values, in any order.

    Returns:
        The adjusted p values, in that order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted


def _seeds(hits: str | Sequence[str]) -> int:
    return 1 if isinstance(hits, str) else len(hits)


def _counts(hits: str | Sequence[str]) -> list[int]:
    """How often each image succeeded."""
    texts = [hits] if isinstance(hits, str) else list(hits)
    lengths = {len(text) for text in texts}
    if lengths in (set(), {0}):
        raise InvalidArgumentError("there are no outcomes; give one digit an image")
    if len(lengths) > 1 or set("".join(texts)) - {"0", "1"}:
        raise InvalidArgumentError(
            "outcomes are texts of equal length with a 0 or a 1 for every image; got lengths"
            f" {', '.join(map(str, sorted(lengths)))}"
        )
    return [column.count("1") for column in zip(*texts, strict=True)]


def _estimate(counts: Sequence[int], seeds: int, confidence: float) -> Estimate:
    means = [count / seeds for count in counts]
    n, p = len(means), fmean(means)
    spread = fmean((x - p) ** 2 for x in means)
    effective = n * p * (1 - p) / spread if spread else n
    effective = min(max(effective, n), n * seeds)
    low, high = wilson_interval(p * effective, effective, confidence)
    return Estimate(100 * p, 100 * low, 100 * high)


def _distance(a: float, b: float, r: float) -> float:
    """The square root of a^2 - 2 r a b + b^2."""
    # Where r = 1, rounding may give a little less than zero.
    return math.sqrt(max(a * a - 2 * r * a * b + b * b, 0.0))


def _correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one of the two does not vary."""
    a, b = fmean(x), fmean(y)
    scale = math.sqrt(sum((i - a) ** 2 for i in x) * sum((j - b) ** 2 for j in y))
    return sum((i - a) * (j - b) for i, j in zip(x, y, strict=True)) / scale if scale else 0.0


def _sign_flip(differences: Sequence[int], exact: int) -> float:
    """The share of all choices of signs whose sum is at least as far from zero."""
    sizes = [abs(difference) for difference in differences if difference]
    observed, total, n = abs(sum(differences)), sum(sizes), len(sizes)
    if observed == 0:
        return 1.0
    if n * n * total / 8 > exact:
        # The sum changes in steps of 2; half a step is the continuity correction.
        return math.erfc((observed - 1) / math.sqrt(2 * sum(size * size for size in sizes)))
    # In the product of all (1 + x^size), the coefficient of x^t is the number of choices of signs
    # whose positive sizes add up to t. With x = 2^slot the polynomial is one integer, each
    # coefficient in bits of its own: a coefficient is at most 2^n.
    slot = n + 1
    ways = 1
    for size in sizes:
        ways += ways << (size * slot)
    tail = ways >> ((total + observed) // 2 * slot)
    # Modulo x - 1, x is 1: the remainder is the sum of the coefficients.
    return 2 * (tail % ((1 << slot) - 1)) / (1 << n)
