import pytest
import torch
from torch import Tensor

from secateurs import layout


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
    order = layout.storage_order(values)
    assert sorted(order) == list(range(values.dim()))
    strides = values.permute(order).stride()
    assert sorted(strides, reverse=True) == list(strides)
    back = values.permute(order).permute(layout.inverse(order))
    assert back.stride() == values.stride()
    if values.numel() == values.untyped_storage().nbytes() // 4:
        assert values.permute(order).reshape(-1).data_ptr() == values.data_ptr()


def test_pieces_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "BLOCK", 4)
    for length in (0, 1, 4, 5, 8):
        flat = torch.arange(length)
        found = [flat[piece] for piece in layout.pieces(flat)]
        assert [x for f in found for x in f.tolist()] == list(range(length))
        assert all(1 <= len(f) <= 4 for f in found)
