"""Checkpoints larger than memory: prune, compress and load them without building a model."""

from secateurs.checkpoint.prune import Plan, PrunedWeight, Summary, plan_pruning, prune_checkpoint

__all__ = ["Plan", "PrunedWeight", "Summary", "plan_pruning", "prune_checkpoint"]
