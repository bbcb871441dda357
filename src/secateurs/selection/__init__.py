"""Which units are candidates: the exact k smallest of any number of scores."""
