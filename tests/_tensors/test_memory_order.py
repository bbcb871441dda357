import pytest
import torch
from torch import Tensor

from secateurs._tensors import memory_order


@pytest.mark.parametrize(
    "values",
    [
        torch.rand(2, 3, 4),
        torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.rand(4, 3).t(),
        torch.rand(6, 8)[::2, 1::3],
        torch.rand(3, 1).expand(3, 4),
        torch.rand(1, 4).expand(3, 4),
        torch.rand(()),
        torch.rand(0, 3),
    ],
)
def test_memory_order_is_a_permutation_and_a_view_where_it_can_be(values: Tensor) -> None:
    order = memory_order.storage_order(values)
    assert sorted(order) == list(range(values.dim()))
    strides = values.permute(order).stride()
    assert sorted(strides, reverse=True) == list(strides)
    back = values.permute(order).permute(memory_order.inverse(order))
    assert back.stride() == values.stride()
    if values.numel() == values.untyped_storage().nbytes() // 4:
        assert values.permute(order).reshape(-1).data_ptr() == values.data_ptr()


def test_pieces_cover_everything_once() -> None:
    for length in (0, 1, 4, 5, 8):
        flat = torch.arange(length)
        found = [flat[piece] for piece in memory_order.pieces(flat, 4)]
        assert [x for f in found for x in f.tolist()] == list(range(length))
        assert all(1 <= len(f) <= 4 for f in found)


LIKE = (
    torch.rand(2, 3, 4),
    torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    torch.rand(4, 3).t(),
    torch.rand(0, 3),
    torch.rand(()),
    torch.rand(3, 1).expand(3, 4),
    torch.rand(2, 1, 3, 1).permute(3, 2, 0, 1),
)


def test_side_by_side_is_one_piece_of_memory_in_order() -> None:
    made = memory_order.side_by_side(LIKE, torch.uint8)
    assert [m.shape for m in made] == [t.shape for t in LIKE]
    assert all(m.dtype == torch.uint8 for m in made)
    for mask, tensor in zip(made, LIKE, strict=True):
        if tensor.numel() == tensor.untyped_storage().nbytes() // 4:
            assert memory_order.same_order(mask, tensor)
    flats = [(memory_order.flattened(m),) for m in made]
    ((whole,),) = memory_order.joined(flats)
    whole.copy_(torch.arange(len(whole)))
    assert torch.equal(torch.cat([flat for (flat,) in flats]), whole)
    again = memory_order.side_by_side(made, torch.bool)
    assert all(memory_order.same_order(a, b) for a, b in zip(made, again, strict=True))


def test_only_neighbours_are_joined() -> None:
    memory, other = torch.arange(10), torch.arange(10)
    rows = [(memory[:2], other[:2]), (memory[2:4], other[2:4]), (memory[4:4], other[:0])]
    rows += [(memory[4:5], other[5:6]), (memory[5:7], other[6:8]), (memory[8:], other[8:])]
    found = memory_order.joined(rows)
    assert [(a.tolist(), b.tolist()) for a, b in found] == [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([4, 5, 6], [5, 6, 7]),
        ([8, 9], [8, 9]),
    ]
    assert memory_order.joined([(memory[:0],)]) == []
    assert len(memory_order.joined([(memory[:5],), (memory.view(torch.int32)[5:],)])) == 2


@pytest.mark.parametrize("block", [1, 2, 4, 7, 1 << 18])
@pytest.mark.parametrize("tensor", LIKE)
def test_logical_pieces_follow_the_flat_index(block: int, tensor: Tensor) -> None:
    twin = tensor.clone()
    found = list(memory_order.logical_pieces(tensor, twin, block=block))
    assert all(a.numel() <= block for a, _ in found)
    assert torch.equal(torch.cat([a.reshape(-1) for a, _ in found]), tensor.reshape(-1))
    for _, piece in found:
        piece.zero_()
    assert not twin.any()
