"""The threshold as accelerators find it; the CPU stands for one here."""

import pytest
import torch

from helpers import DTYPES
from secateurs._tensors.float_keys import Scores, key_dtype, key_of
from secateurs.selection.device_threshold import find_threshold_on_device


def ranked(scores: list[Scores]) -> list[int]:
    dtype = key_dtype(scores)
    keys = [key_of(s.values.reshape(-1), dtype, absolute=s.absolute) for s in scores]
    return torch.cat(keys).sort().values.tolist()


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_key_and_its_ties(dtype: torch.dtype, absolute: bool) -> None:
    sizes = (300, 1, 0, 700)
    scores = [Scores(str(n), torch.randn(n).to(dtype), absolute) for n in sizes]
    keys = ranked(scores)
    for k in (1, 2, 499, 500, 998, 1001):
        key, ties, tied = find_threshold_on_device(scores, k) or (None, 0, 0)
        assert key == keys[k - 1]
        assert tied == keys.count(key)
        assert ties == k - sum(other < key for other in keys)


def test_samples_of_many_scores_lead_to_the_key() -> None:
    scores = [Scores("", torch.randn(40_000), True) for _ in range(5)]
    keys = ranked(scores)
    for k in (1, 1000, 100_000, 199_999, 200_000):
        found = find_threshold_on_device(scores, k)
        assert found is None or found == (keys[k - 1], 1, 1)
    assert find_threshold_on_device(scores, 100_000) is not None


def test_what_cannot_be_found_on_the_device_is_none() -> None:
    equal = [Scores("", torch.ones(100), True)]
    assert find_threshold_on_device(equal, 50, few=99) is None
    assert find_threshold_on_device(equal, 50, few=100) == (ranked(equal)[0], 50, 100)
    strange = [Scores("", torch.tensor([1.0, torch.nan, 2.0]), True)]
    assert find_threshold_on_device(strange, 1) is None
