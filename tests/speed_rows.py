"""Rows of a measurement of speed, to test tables, plots and files with."""

from typing import Any

from secateurs.results import SpeedRow


def make_speed_row(ratio: float, speedup: float = 1.0, **changes: Any) -> SpeedRow:
    """A row of a network of 1,000 weights that takes a millisecond for an image, dense."""
    values: dict[str, Any] = {
        "model": "lenet300",
        "weights": "random",
        "input_size": "1x28x28",
        "granularity": "weight",
        "scope": "global",
        "score": "magnitude",
        "layers": "",
        "include": "",
        "exclude": "",
        "p_prune": ratio,
        "seed": 0,
        "batch_size": 1,
        "threads": 1,
        "device": "cpu",
        "achieved": ratio,
        "prunable": 1000,
        "param_count": 0.001,
        "dense_seconds": 0.001,
        "seconds": 0.001 / speedup,
        "replaced": int(speedup > 1),
        "found": 3,
        "processor": "a processor",
        "dtype": "float32",
        "weights_sha256": "0" * 16,
        "versions": "secateurs=0",
    }
    return SpeedRow(**{**values, **changes})
