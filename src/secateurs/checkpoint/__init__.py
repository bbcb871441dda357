"""Checkpoints larger than memory: prune, compress and load them without building a model."""

from secateurs.checkpoint.expanding import decompress_checkpoint, load_checkpoint
from secateurs.checkpoint.planning import Plan, plan_pruning
from secateurs.checkpoint.prune import (
    Decision,
    PrunedWeight,
    Summary,
    decide_pruning,
    prune_checkpoint,
    write_pruned,
)

__all__ = [
    "Decision",
    "Plan",
    "PrunedWeight",
    "Summary",
    "decide_pruning",
    "decompress_checkpoint",
    "load_checkpoint",
    "plan_pruning",
    "prune_checkpoint",
    "write_pruned",
]
