"""Rows to test with: realistic, and quick to make."""

from typing import Any

from secateurs.results import Row, wilson_interval

BASE: dict[str, Any] = {
    "model": "torchvision:resnet18",
    "weights": "IMAGENET1K_V1",
    "weights_sha256": "0123456789abcdef",
    "data": "imagenet",
    "split": "val",
    "count": 300,
    "prune_type": "global",
    "granularity": "weight",
    "scope": "global",
    "score": "magnitude",
    "score_data": "",
    "layers": "",
    "include": "",
    "exclude": "",
    "p_bern": 1.0,
    "draws": 1,
    "seed": 0,
    "targets": 11_166_912,
    "units": 11_166_912,
    "top1_std": 0.0,
    "param_count": 11.69,
    "img_size": 224,
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "preprocess": "resize 256, crop 224",
    "batch_size": 64,
    "amp": False,
    "device": "cpu",
    "dtype": "float32",
    "infer_samples_per_sec": 41.5,
    "duration": 7.25,
    "versions": "secateurs=0.1.0;torch=2.11.0",
}


def make_row(p_prune: float = 0.3, top1: float = 83.0, **changes: Any) -> Row:
    """A row with this accuracy (percent); anything else can be named."""
    count = changes.get("count", BASE["count"])
    correct = round(top1 * count / 100)
    low, high = wilson_interval(correct, count)
    top1 = 100 * correct / count
    correct5 = round(min(100.0, top1 + 10) * count / 100)
    top5 = 100 * correct5 / count
    measured = {
        "p_prune": p_prune,
        "achieved": p_prune,
        "top1": top1,
        "top1_err": 100 - top1,
        "top1_low": 100 * low,
        "top1_high": 100 * high,
        "top5": top5,
        "top5_err": 100 - top5,
        "loss": 0.7,
        "correct1": str(correct),
        "correct5": str(correct5),
    }
    return Row(**(BASE | measured | changes))
