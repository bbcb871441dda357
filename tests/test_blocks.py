import pytest
import torch

from secateurs import blocks, layout
from secateurs.blocks import key_blocks, share_out
from secateurs.keys import key_of

SIZES = (5, 0, 1, 130, 64, 3)


@pytest.mark.parametrize("most", [1, 2, 7])
def test_shares_cover_everything_in_order(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(blocks, "_WORTH_A_THREAD", 10)
    flats = [(torch.randn(size), True) for size in SIZES]
    shares = share_out(flats, most)
    assert len(shares) == most
    spans = [span for share in shares for span in share]
    covered = [flats[s.index][0][s.start : s.stop] for s in spans]
    assert torch.equal(torch.cat(covered), torch.cat([flat for flat, _ in flats]))
    sizes = [sum(s.stop - s.start for s in share) for share in shares]
    assert max(sizes) <= -(-sum(SIZES) // most)


def test_small_work_stays_on_one_thread() -> None:
    assert len(share_out([(torch.randn(1000), True)], 8)) == 1
    assert share_out([], 8) == [[]]


@pytest.mark.parametrize("block", [1, 4, 1 << 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_blocks_hold_all_keys_in_order(
    monkeypatch: pytest.MonkeyPatch, block: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(layout, "BLOCK", block)
    flats = [(torch.randn(size).bfloat16(), index % 2 == 0) for index, size in enumerate(SIZES)]
    (spans,) = share_out(flats, 1)
    found = [torch.from_numpy(keys.copy()) for keys in key_blocks(spans, dtype)]
    assert all(len(keys) == min(block, sum(SIZES)) for keys in found[:-1])
    expected = [key_of(flat, dtype, absolute=absolute) for flat, absolute in flats]
    assert torch.equal(torch.cat(found), torch.cat(expected))


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("total", [0, 1, 63, 64, 65, 1000])
def test_ranges_are_full_blocks_that_cover_everything(
    monkeypatch: pytest.MonkeyPatch, threads: int, total: int
) -> None:
    monkeypatch.setattr(blocks, "_WORTH_A_THREAD", 10)
    monkeypatch.setattr(layout, "BLOCK", 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    parts = blocks.ranges(total)
    assert len(parts) <= threads
    assert all(part.start % 16 == 0 and len(part) > 0 for part in parts)
    covered = [place for part in parts for block in blocks.blocks_of(part) for place in
               range(block.start, block.stop)]  # fmt: skip
    assert covered == list(range(total))


def test_threads_are_few_and_errors_come_back() -> None:
    assert blocks.in_threads(lambda x: 2 * x, [1, 2, 3]) == [2, 4, 6]
    assert blocks.in_threads(lambda x: 2 * x, [4]) == [8]
    assert blocks.threads_for(10) == 1
    with pytest.raises(ZeroDivisionError):
        blocks.in_threads(lambda x: 1 // x, [1, 0])
