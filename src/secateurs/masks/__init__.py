"""Masks: granularity, Bernoulli draws, masks as values, apply and restore, sparsity."""
