"""What the rows of a made-up retraining have in common."""

from typing import Any

from secateurs.results import RetrainRow

COLUMNS: dict[str, Any] = {
    "model": "small", "weights": "random", "data": "made up", "seed": 0, "granularity": "weight",
    "scope": "global", "score": "magnitude", "layers": "", "include": "", "exclude": "",
    "p_prune": 0.75, "schedule": "cubic", "regrowth": "none", "preprocess": "", "param_count": 0.0,
    "device": "cpu", "dtype": "float32", "versions": "",
}  # fmt: skip
"""The columns that a run is handed."""

ROW = RetrainRow(
    **COLUMNS, optimizer="", learning_rate=0.0, weight_decay=0.0, augment="", train_batch_size=1,
    train_count=1, amp=False, phase="dense", epoch=0, split="", count=0, train_loss=0.0, loss=0.0,
    top1=0.0, correct=0, achieved=0.0, kept=0, prunable=0, duration=0.0, ranks=1,
    weights_sha256="",
)  # fmt: skip
