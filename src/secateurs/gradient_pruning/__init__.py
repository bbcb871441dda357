"""Pruning of the backward pass alone."""
