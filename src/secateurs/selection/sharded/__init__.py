"""Selection and draws over the ranks that hold one model, each with its own part of it."""
