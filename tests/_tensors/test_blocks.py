import numpy as np
import pytest
import torch

from secateurs._tensors import blocks
from secateurs._tensors.blocks import TensorKeys, key_blocks, share_out
from secateurs._tensors.float_keys import Scores, key_of

SIZES = (5, 0, 1, 130, 64, 3)


def sources(dtype: torch.dtype = torch.float32) -> tuple[list[TensorKeys], torch.Tensor]:
    """Tensors of all kinds, and their keys one after the other."""
    scores = [Scores("", torch.randn(size).bfloat16(), i % 2 == 0) for i, size in enumerate(SIZES)]
    scores.append(Scores("", torch.randn(6, 5).to(dtype).t(), True))
    made = [key_of(s.values, dtype, absolute=s.absolute) for s in scores[:-1]]
    made.append(key_of(scores[-1].values.t().reshape(-1), dtype, absolute=True))
    return [TensorKeys(s, dtype) for s in scores], torch.cat(made)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("block", [1, 4, 1 << 18])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_chunks_and_blocks_hold_all_keys_in_order(
    block: int, dtype: torch.dtype, threads: int
) -> None:
    made, expected = sources(dtype)
    chunks = share_out(made, threads)
    assert len(chunks) == threads
    length = blocks.block_length(dtype, block)
    found: list[torch.Tensor] = []
    for chunk in chunks:
        made_blocks = [torch.from_numpy(keys.copy()) for keys in key_blocks(chunk, dtype, length)]
        full = min(length, chunk.end - chunk.begin)
        assert all(len(keys) == full for keys in made_blocks[:-1])
        assert sum(map(len, made_blocks)) == chunk.end - chunk.begin
        assert chunk.begin == sum(map(len, found))
        found += made_blocks
    assert torch.equal(torch.cat(found), expected)
    assert max(chunk.end - chunk.begin for chunk in chunks) <= -(-len(expected) // threads)


def test_a_sample_of_keys() -> None:
    for source in sources()[0]:
        keys = np.empty(source.size, source.dtype)
        source.keys_into(0, source.size, keys)
        assert source.keys(slice(1, None, 3)).tolist() == keys[1::3].tolist()


def test_small_work_stays_on_one_thread() -> None:
    assert len(share_out(sources()[0])) == 1
    (chunk,) = share_out([])
    assert list(key_blocks(chunk, torch.float32)) == []


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("total", [0, 1, 63, 64, 65, 1000])
def test_ranges_are_full_blocks_that_cover_everything(threads: int, total: int) -> None:
    found = blocks.ranges(total, 16, threads)
    assert len(found) <= threads
    assert all(one.start % 16 == 0 and len(one) > 0 for one in found)
    covered = [index for one in found for block in blocks.blocks_of(one, 16) for index in
               range(block.start, block.stop)]  # fmt: skip
    assert covered == list(range(total))


def test_threads_are_few_and_errors_come_back() -> None:
    assert blocks.in_threads(lambda x: 2 * x, [1, 2, 3]) == [2, 4, 6]
    assert blocks.in_threads(lambda x: 2 * x, [4]) == [8]
    assert blocks.threads_for(10) == 1
    with pytest.raises(ZeroDivisionError):
        blocks.in_threads(lambda x: 1 // x, [1, 0])
