"""Keys in blocks of many tensors, as accelerators like them; the CPU stands for one here."""

import pytest
import torch

from secateurs._tensors.device_keys import device_blocks, fetched
from secateurs._tensors.float_keys import Scores, key_of


@pytest.mark.parametrize("size", [1, 5, 7, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_hold_the_keys_of_all_tensors_in_order(size: int, dtype: torch.dtype) -> None:
    tensors = [torch.randn(3, 2), torch.randn(0), torch.randn(11).bfloat16(), torch.randn(4, 1)]
    scores = [Scores(str(i), t, absolute=i != 3) for i, t in enumerate(tensors)]
    blocks = list(device_blocks(scores, dtype, size))
    assert all(0 < len(block) <= size for block in blocks)
    expected = [
        key_of(s.values.reshape(-1), dtype, absolute=s.absolute) for s in scores if len(s.values)
    ]
    assert torch.equal(torch.cat(blocks), torch.cat(expected))


def test_blocks_follow_the_order_of_memory() -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    (block,) = device_blocks([Scores("", image, True)], torch.float32)
    assert torch.equal(
        block, key_of(image.permute(0, 2, 3, 1).reshape(-1), torch.float32, absolute=True)
    )


def test_fetched_tensors_keep_order_and_size() -> None:
    tensors = [torch.arange(3), torch.randn(2), torch.tensor(7), torch.empty(0), torch.arange(2)]
    for got, sent in zip(fetched(tensors), tensors, strict=True):
        assert torch.equal(got, sent.reshape(-1))
    assert fetched([]) == []
