from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.layer_uses import layer_uses


class Recorded(TorchFunctionMode):
    """Keeps the calls of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LayerCall] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if LayerCall.is_known(func):
            self.calls.append(LayerCall(func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _conv1d() -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(5, 4)


def _same() -> nn.Module:
    return pytest.importorskip("timm.layers").Conv2dSame(4, 6, 3, stride=2)


class Named(nn.Conv2d):
    """Hands its arguments in by name."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(input=x, weight=self.weight, bias=self.bias, groups=self.groups)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: nn.Linear(4, 5), (3, 4)),
        (lambda: nn.Linear(4, 5, bias=False), (3, 2, 4)),
        (_conv1d, (3, 2, 4)),
        (lambda: nn.Conv1d(4, 6, 3, groups=2, dilation=2), (3, 4, 9)),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (3, 4, 7, 8)),
        (lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), groups=2, bias=False), (3, 4, 7, 8)),
        (lambda: nn.Conv2d(4, 4, (2, 3), padding="same", groups=4), (3, 4, 5, 6)),
        (lambda: nn.Conv2d(4, 4, 3, padding="valid"), (4, 5, 6)),
        (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (3, 4, 5, 5)),
        (lambda: nn.Conv3d(2, 4, 2, stride=2, padding=1), (2, 2, 3, 4, 5)),
        (lambda: Named(4, 6, 3, groups=2), (3, 4, 5, 5)),
        (_same, (3, 4, 7, 8)),
        (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=2, output_padding=1), (3, 4, 5)),
        (lambda: nn.ConvTranspose2d(4, 6, (3, 2), groups=2, bias=False), (3, 4, 4, 5)),
        (lambda: nn.ConvTranspose2d(4, 4, 3, stride=(1, 2), groups=4, dilation=2), (3, 4, 4, 3)),
        (lambda: nn.ConvTranspose3d(2, 4, 2, stride=2, padding=1), (2, 2, 3, 2, 3)),
    ],
)
def test_a_layer_is_a_product_of_matrices(build: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, images = build().double(), torch.randn(shape, dtype=torch.float64)
    with Recorded() as recorded:
        output = layer(images)
    (call,) = recorded.calls
    assert call.weight is layer.weight
    matrix = call.matrix(layer.weight)
    assert torch.equal(call.unmatrix(matrix, layer.weight), layer.weight)
    bias = 0 if layer.bias is None else layer.bias.view(call.groups, 1, -1)
    for chosen in (None, torch.tensor([0, 1])):
        blocks = list(call.blocks(output, chosen, most=10))
        assert len(blocks) > 1 or not call.is_convolution or images.dim() < 4
        for rows, values in blocks:
            assert torch.allclose(rows @ matrix.mT + bias, values)


def test_what_a_network_still_refers_to_counts_as_held() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.last = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            parts = self.inner(x).relu().chunk(2, -1)
            return self.last(torch.cat(parts, -1)) + x

    # What goes into the stem is not the network's; parts are views of one tensor; weights do not
    # count. Before the last layer: x, the tensor with the parts, and what they are joined to.
    found = layer_uses(Shortcut(), torch.randn(1, 4))
    assert [size for _, size in found.sizes] == [0, 16, 48]
