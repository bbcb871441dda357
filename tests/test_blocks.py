import pytest
import torch

from secateurs import blocks, layout
from secateurs.blocks import key_blocks, multiply_blocks, share_out
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


@pytest.mark.parametrize("block", [3, 1 << 16])
@pytest.mark.parametrize("integer", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0, 2), (7,), (4, 3, 5, 2)])
@pytest.mark.parametrize("kind", ["same", "broadcast", "channels_last", "strided"])
def test_multiplying_by_blocks_is_multiplying(
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    integer: torch.dtype,
    shape: tuple[int, ...],
    kind: str,
) -> None:
    monkeypatch.setattr(layout, "BLOCK", block)
    source = torch.randint(1, 100, shape).to(integer)
    keep, target = torch.rand(shape) < 0.5, torch.full(shape, 77).to(integer)
    if kind == "broadcast" and shape:
        keep = torch.rand(*shape[:1], *(1 for _ in shape[1:])) < 0.5
    elif kind == "channels_last" and len(shape) == 4:
        source, target = (t.to(memory_format=torch.channels_last) for t in (source, target))
    elif kind == "strided" and shape:
        target = torch.full((*shape, 2), 77).to(integer)[..., 0]
    multiply_blocks(source, keep, target)
    assert torch.equal(target, source * keep)
