"""Read from the environment, without torch, whether this process is one of several."""

import os


def is_one_of_several() -> bool:
    """Whether a launcher such as torchrun has started this process as one of several."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(os.environ.get(name) for name in names) and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Whether this process is the one that prints."""
    return not is_one_of_several() or os.environ["RANK"] == "0"
