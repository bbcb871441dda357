"""Rows of a budget to test with."""

from typing import Any

from result_rows import BASE
from secateurs.results import BudgetRow


def make_budget_row(p_prune: float, lost: int, **changes: Any) -> BudgetRow:
    """A network that lost so many of 1,000 images; it passed where these are fewer than 20."""
    known = {name: BASE[name] for name in BudgetRow.columns() if name in BASE}
    passed = lost < 20
    measured: dict[str, Any] = {
        "repair": "",
        "calibration": "",
        "calibration_sha256": "",
        "calibration_count": 0,
        "max_drop": 2.0,
        "confidence": 0.95,
        "images": 1000,
        "p_prune": p_prune,
        "count": 1000,
        "dense_top1": 90.0,
        "lost": lost,
        "won": 5,
        "passed": passed,
        "needed": None if passed or lost > 25 else 1500,
        "achieved": None,
    }
    row = known | measured | changes
    row["drop"] = 100 * (row["lost"] - row["won"]) / row["count"]
    row["drop_high"] = row["drop"] + 0.9
    return BudgetRow(**row)


BUDGET = [
    make_budget_row(0.5, 12),
    make_budget_row(0.75, 300, count=400),
    make_budget_row(0.62, 22),
    make_budget_row(0.56, 14, achieved=0.56),
]
"""A bisection: two networks passed, one was given up, and one needs more images."""
