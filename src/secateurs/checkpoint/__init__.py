"""Checkpoints larger than memory: prune, compress and load them without building a model."""

from secateurs.checkpoint._prune import (
    Decision,
    PrunedWeight,
    Summary,
    decide_pruning,
    prune_checkpoint,
    write_pruned,
)
from secateurs.checkpoint.decompression import decompress_checkpoint, load_checkpoint
from secateurs.checkpoint.pruning_plan import PruningPlan, plan_pruning

__all__ = [
    "Decision",
    "PrunedWeight",
    "PruningPlan",
    "Summary",
    "decide_pruning",
    "decompress_checkpoint",
    "load_checkpoint",
    "plan_pruning",
    "prune_checkpoint",
    "write_pruned",
]
