"""Numbers as tables, plots and pages write them."""

from secateurs.results import Row

_FINE = 10_000
"""From this many images on, accuracies have two significant decimals."""


def percent(ratio: float) -> str:
    """A ratio as a percentage of at most six digits: 0.3 is "30%", 0.125 is "12.5%"."""
    return f"{round(100 * ratio, 6):g}%"


def rounded_percent(ratio: float) -> str:
    """A measured ratio as a percentage: 0.2999 is "30%", 0.9167 is "91.7%"."""
    return f"{100 * ratio:.1f}".removesuffix(".0") + "%"


def p_text(p: float) -> str:
    """A p value with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval_text(low: float, high: float, shown: str = "{:.1f}") -> str:
    """The two ends of an interval; ``shown`` is how Python writes each."""
    return f"{shown.format(low)} to {shown.format(high)}"


def accuracy(row: Row) -> str:
    """Top-1 with the decimals that are significant for the number of images."""
    return f"{row.top1:.{2 if row.count >= _FINE else 1}f}"
