import numpy as np
import torch

import reference
from secateurs._tensors.philox import Stream


def keys(seed: int) -> list[int]:
    words = torch.empty(3, dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(seed))
    return [word % 2**64 for word in words.tolist()]


def test_bytes_are_philox() -> None:
    low, high, _ = keys(0)
    expected = b"".join(
        word.to_bytes(8, "little")
        for counter in range(1, 40)
        for word in reference.philox(low | high << 64, counter)
    )
    stream = Stream(torch.Generator().manual_seed(0))
    for start, stop in ((0, 1248), (0, 1), (31, 32), (33, 100), (7, 7), (1000, 1248)):
        assert stream.bytes(start, stop).tobytes() == expected[start:stop]


def test_philox_of_the_oracle_is_the_published_one() -> None:
    """The known answer for a key and a counter of ones and of zeros, from Random123."""
    assert reference.philox(0, 0) == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]


def test_finer_numbers_are_splitmix() -> None:
    *_, seed = keys(1)
    expected = [(word >> 11) / 2**53 for word in reference.splitmix(seed, 100)]
    stream = Stream(torch.Generator().manual_seed(1))
    assert stream.finer(np.arange(100)).tolist() == expected
    assert stream.finer(np.array([99, 3])).tolist() == [expected[99], expected[3]]


def test_splitmix_of_the_oracle_is_the_published_one() -> None:
    assert reference.splitmix(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_large_indices_take_no_more_time() -> None:
    """A trillion weights in, without the numbers before."""
    stream = Stream(torch.Generator().manual_seed(0))
    low, high, _ = keys(0)
    words = reference.philox(low | high << 64, 10**12 // 32 + 1)
    assert stream.bytes(10**12, 10**12 + 8).tobytes() == words[0].to_bytes(8, "little")


def test_the_key_comes_from_the_generator() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = Stream(generator).bytes(0, 64), Stream(generator).bytes(0, 64)
    assert first.tolist() != second.tolist()
    assert Stream(torch.Generator().manual_seed(0)).bytes(0, 64).tolist() == first.tolist()
