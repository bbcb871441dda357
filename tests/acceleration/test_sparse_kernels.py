"""Every kernel gives what the dense layer gives."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from secateurs.acceleration.layer_form import form_of, why_not_form
from secateurs.acceleration.observed_calls import is_close
from secateurs.acceleration.sparse_kernels import kernels_for

Make = Callable[[], nn.Module]
LINEAR = {"csr", "smaller"}
LAYERS: list[tuple[Make, tuple[int, ...], set[str]]] = [
    (lambda: nn.Linear(12, 5), (1, 12), LINEAR),
    (lambda: nn.Linear(12, 5, bias=False), (12,), LINEAR),
    (lambda: nn.Linear(12, 5), (2, 3, 12), LINEAR),
    (lambda: nn.Linear(12, 5), (70, 12), {*LINEAR, "csr in blocks"}),
    (lambda: nn.Conv2d(12, 5, 1), (1, 12, 4, 3), {"csr", "smaller"}),
    (lambda: nn.Conv2d(12, 5, 1), (3, 12, 4, 3), {"csr", "csr, images joined", "smaller"}),
    (
        lambda: nn.Conv2d(6, 5, 1, stride=2, bias=False),
        (2, 6, 5, 4),
        {"im2col csr", "im2col csr, images joined", "smaller"},
    ),
    (
        lambda: nn.Conv2d(4, 5, 3, padding=1),
        (2, 4, 5, 6),
        {"im2col csr", "im2col csr, images joined", "shifted csr", "smaller"},
    ),
    (
        lambda: nn.Conv2d(4, 5, (3, 2), padding="same", dilation=(1, 2)),
        (1, 4, 5, 6),
        {"im2col csr", "shifted csr", "smaller"},
    ),
    (
        lambda: nn.Conv2d(4, 5, 3, stride=(2, 1), padding=(1, 0)),
        (1, 4, 6, 5),
        {"im2col csr", "smaller"},
    ),
    (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (1, 4, 5, 6), {"im2col csr", "shifted csr"}),
    (
        lambda: nn.Conv1d(4, 5, 3, padding=2),
        (2, 4, 9),
        {"im2col csr", "im2col csr, images joined", "shifted csr", "smaller"},
    ),
    (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 3, 3), {"im2col csr", "shifted csr", "smaller"}),
]


def pruned(make: Make) -> nn.Module:
    """A layer of which most weights are zero, and one output and one input wholly."""
    torch.manual_seed(0)
    layer = make().eval().requires_grad_(requires_grad=False)
    weight = layer.get_parameter("weight")
    weight[torch.rand(weight.shape) < 0.8] = 0
    weight[1] = 0
    weight[:, 1] = 0
    weight[0, 0] = 1
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("make", "shape", "names"), LAYERS)
def test_every_kernel_gives_what_the_dense_layer_gives(
    make: Make, shape: tuple[int, ...], names: set[str], dtype: torch.dtype
) -> None:
    layer = pruned(make).to(dtype)
    values = torch.randn(shape, dtype=dtype)
    kernels = kernels_for(form_of(layer), shape)
    assert kernels.keys() == names
    expected, bias = layer(values), layer._parameters["bias"]
    before = None if bias is None else bias.clone()
    for name, kernel in kernels.items():
        output = kernel()(values, bias)
        assert is_close(expected, output, 1e-6), name
        assert output.is_contiguous(), name
    assert bias is None or torch.equal(bias, before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("of_weight", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_outputs_have_channels_last_where_those_of_the_dense_layer_have(
    kernel_size: int, of_weight: bool, count: int
) -> None:
    layer = pruned(lambda: nn.Conv2d(4, 5, kernel_size, padding=1))
    values = torch.randn(count, 4, 5, 6)
    if of_weight:
        layer.to(memory_format=torch.channels_last)
    else:
        values = values.contiguous(memory_format=torch.channels_last)
    for name, kernel in kernels_for(form_of(layer), tuple(values.shape)).items():
        output, expected = kernel()(values, layer.get_parameter("bias")), layer(values)
        assert is_close(expected, output, 1e-6)
        assert output.stride() == expected.stride(), name
        assert output.is_contiguous(memory_format=torch.channels_last)


def test_what_has_few_zeros_is_left() -> None:
    assert not kernels_for(form_of(nn.Linear(8, 8)), (1, 8))
    assert not kernels_for(form_of(pruned(lambda: nn.Linear(12, 5))), (0, 12))
    unbatched = (12, 4, 3)
    assert not kernels_for(form_of(pruned(lambda: nn.Conv2d(12, 5, 1))), unbatched)


class Doubled(nn.Linear):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(values)


def sparsely_stored() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(layer.weight.detach().to_sparse())
    return layer


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.Linear(2, 2), ""),
        (lambda: Doubled(2, 2), "forward of its own"),
        (lambda: nn.ConvTranspose2d(2, 2, 1), "ConvTranspose2d have no sparse kernel"),
        (lambda: nn.LSTM(2, 2), "LSTM have no sparse kernel"),
        (lambda: nn.LazyLinear(2), "not initialised yet: run one forward pass"),
        (lambda: nn.Linear(2, 2, device="meta"), "on the meta device and has no values"),
        (lambda: nn.Linear(0, 2), "no weights"),
        (sparsely_stored, "stored as a sparse tensor"),
        (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "pads"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "its weight is computed"),
        (lambda: nn.utils.prune.random_unstructured(nn.Linear(2, 2), "bias", 1), "its bias is"),
    ],
)
def test_layers_that_compute_something_else_are_left(make: Make, why: str) -> None:
    found = why_not_form(make())
    assert why in found
    assert bool(why) == bool(found)
