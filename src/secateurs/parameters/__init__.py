"""Which parameters of a model compete for pruning, which cannot, and how much of it they are."""
