"""Rows of a sensitivity run to test with."""

from typing import Any

from result_rows import BASE
from secateurs.results import SensitivityRow


def make_sensitivity_row(layer: str, p_prune: float, **changes: Any) -> SensitivityRow:
    """A row of 300 images; lost and won follow from the accuracies."""
    known = {name: BASE[name] for name in SensitivityRow.columns() if name in BASE}
    measured: dict[str, Any] = {
        "labels": "data",
        "layer": layer,
        "p_prune": p_prune,
        "achieved": p_prune,
        "targets": 1000,
        "units": 1000,
        "top1": 80.0,
        "dense_top1": 90.0,
        "agreement": 85.0,
        "loss": 0.9,
        "dense_loss": 0.4,
        "divergence": 0.2,
        "duration": 1.5,
    }
    row = known | measured | changes
    flipped = round((row["dense_top1"] - row["top1"]) * row["count"] / 100)
    row["change"] = -100 * flipped / row["count"]
    row["lost"], row["won"] = max(flipped, 0) + 2, max(-flipped, 0) + 2
    return SensitivityRow(**row)
