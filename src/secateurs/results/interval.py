"""The interval around a measured accuracy."""

import math
from statistics import NormalDist

from secateurs.errors import Argument, InvalidArgumentError


def wilson_interval(correct: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    r"""Wilson's score interval for a proportion.

    With p = correct / count, n = count and z the normal quantile at (1 + confidence) / 2, the ends
    are

        (p + z^2 / 2n  -+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).

    Unlike p -+ z sqrt(p (1 - p) / n), it stays inside [0, 1] and keeps its width at p = 0 and
    p = 1, which are frequent for pruned networks.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212.

    Args:
        correct: How many were correct, from 0 to `count`; may be a fraction, such as the mean over
            several draws.
        count: How many were scored, at least 1; may be a fraction, as an effective number is.
        confidence: Coverage of the interval, strictly between 0 and 1.

    Returns:
        The lower and the upper end, as fractions from 0 to 1.

    Raises:
        InvalidArgumentError: `count` is below 1, `correct` is outside [0, count], or `confidence`
            is outside (0, 1).

    Example:
        >>> low, high = wilson_interval(249, 300)
        >>> f"{low:.3f} {high:.3f}"
        '0.783 0.868'
    """
    if count < 1:
        raise InvalidArgumentError(f"count is {count}; an interval needs at least one image")
    if not 0 <= correct <= count:
        raise InvalidArgumentError(f"correct is {correct}; it must lie between 0 and count={count}")
    if not 0 < confidence < 1:
        raise InvalidArgumentError(
            Argument("confidence"),
            f" must be strictly between 0 and 1, got {confidence:g}; write ",
            Argument("confidence", 0.95),
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / count
    middle = p + z * z / (2 * count)
    reach = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At p = 0 and p = 1 one end is exactly p; near them, rounding may leave [0, 1] by 1e-17.
    low = 0.0 if correct == 0 else max((middle - reach) / scale, 0.0)
    high = 1.0 if correct == count else min((middle + reach) / scale, 1.0)
    return low, high
