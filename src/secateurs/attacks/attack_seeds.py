"""Independent random numbers for each step, pass and member of an attack."""

import numpy as np
import torch


def generator_at(seed: int, *index: int) -> torch.Generator:
    """A generator that depends only on a seed and an index, such as (step, pass, copy, member).

    So the draws do not change when images are attacked in parts, over more steps or with more
    members.

    Args:
        seed: any integer.
        index: whole numbers from 0.

    Returns:
        A generator on the CPU.
    """
    # The algorithm of SeedSequence is fixed: it gives the same in every version of numpy.
    entropy = 2 * abs(seed) + (seed < 0)
    words = np.random.SeedSequence(entropy, spawn_key=index).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]))
