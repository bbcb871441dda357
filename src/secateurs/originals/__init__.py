"""The values that pruned parameters had: where they are kept, and whether they count."""
