"""Running models: the memory format in which convolutions are computed."""

import pytest
import torch
from torch import Tensor, nn

from secateurs.outputs import use_channels_last


class Viewing(nn.Module):
    """A convolution whose output is viewed as if channels came first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images).view(len(images), -1)


def usual() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


@pytest.mark.parametrize(("build", "last"), [(usual, True), (Viewing, False)])
def test_channels_come_last_where_the_model_runs_so(build: type[nn.Module], last: bool) -> None:
    model = build().train()
    images = torch.randn(4, 2, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = list(model.parameters())
    expected = model.eval()(images)
    use_channels_last(model.train(), images)
    weight = next(model.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last) == last
    assert weight.is_contiguous() != last
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    torch.testing.assert_close(model.eval()(images), expected)


def test_models_without_a_convolution_do_not_run() -> None:
    model = nn.Linear(2, 2)
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    use_channels_last(model, torch.ones(1, 2))


class Deep(nn.Module):
    """A 2-D convolution, and a 3-D one, whose weight has five dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.deep = nn.Conv2d(2, 3, 3), nn.Conv3d(1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.deep(self.flat(images)[:, None])


def test_only_weights_of_2d_convolutions_change_their_format() -> None:
    model = Deep()
    model.deep.to(memory_format=torch.channels_last_3d)
    strides = model.deep.weight.stride()
    use_channels_last(model, torch.randn(4, 2, 4, 4))
    assert model.flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.deep.weight.stride() == strides
