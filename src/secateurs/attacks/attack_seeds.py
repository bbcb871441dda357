"""Random numbers by place: those of one step, pass and member do not hang on any other's."""

import numpy as np
import torch


def generator_at(seed: int, *place: int) -> torch.Generator:
    """A generator for one place, such as (step, pass, copy, member), that depends on nothing else.

    So attacking in parts, over more steps or with more members does not shift anyone's draws.

    Args:
        seed: any integer.
        place: counts, 0 or more.

    Returns:
        On the CPU.
    """
    # SeedSequence is a fixed algorithm: the same words in every version of numpy.
    entropy = 2 * abs(seed) + (seed < 0)
    words = np.random.SeedSequence(entropy, spawn_key=place).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]))
