"""Random numbers by index: the number of a unit depends on its index and the key alone.

Each thread, block, rank or file can therefore draw only the numbers that it needs.
"""

import numpy as np
import torch

from secateurs._tensors.blocks import Array

# Philox makes four words of eight bytes for each value of its counter.
_BYTES_A_COUNT = 32


class Stream:
    """A random byte for each index, and a number of 53 bits for indices where a byte is too coarse.

    The bytes come from the counter-based generator Philox4x64-10 (Salmon et al. 2011,
    doi:10.1145/2063384.2063405), the numbers from SplitMix64 (Steele et al. 2014,
    doi:10.1145/2660193.2660195). Both are fixed algorithms: the same key gives the same numbers on
    every machine.

    Args:
        generator: draws the key of 192 bits; its state advances.
    """

    def __init__(self, generator: torch.Generator):
        words = torch.empty(3, dtype=torch.int64, device=generator.device)
        low, high, finer = words.random_(-(2**63), None, generator=generator).tolist()
        self._key = low % 2**64 | (high % 2**64) << 64
        self._finer = np.uint64(finer % 2**64)

    def bytes(self, start: int, stop: int) -> Array:
        """The bytes from ``start`` to ``stop``, uint8."""
        first, skipped = divmod(start, _BYTES_A_COUNT)
        philox = np.random.Philox(counter=first, key=self._key)
        count = -(-(skipped + stop - start) // 8)
        # Over the full range, these are the raw words. random_raw would hold Python's lock.
        words = np.random.Generator(philox).integers(
            0, 2**64 - 1, size=count, dtype=np.uint64, endpoint=True
        )
        return words.astype("<u8", copy=False).view(np.uint8)[skipped : skipped + stop - start]

    def finer(self, indices: Array) -> Array:
        """Uniform numbers in [0, 1) for some indices: float64 with 53 random bits."""
        bits = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        bits += self._finer
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        return (bits >> np.uint64(11)) * 2.0**-53
