"""The small networks of the pruning literature."""

import pytest
import torch

from secateurs.cli.wording import in_options
from secateurs.errors import InvalidArgumentError
from secateurs.zoo import load_model


@pytest.mark.parametrize(
    ("name", "weights", "shape"),
    [
        ("lenet300", 266_200, (1, 28, 28)),  # Han et al. 2015, table 3: 266 K
        ("lenet5", 430_500, (1, 28, 28)),  # table 4: 431 K
        ("mlpnet", 32_360, (1, 28, 28)),
        ("resnet20", 270_896, (3, 32, 32)),
    ],
)
def test_sizes(name: str, weights: int, shape: tuple[int, ...]) -> None:
    loaded = load_model(name, weights="random")
    assert sum(p.numel() for p in loaded.model.parameters() if p.dim() > 1) == weights
    assert loaded.model(torch.zeros(2, *shape)).shape == (2, loaded.num_classes)
    assert loaded.preprocess.img_size == shape[1]


def test_nobody_published_their_weights() -> None:
    with pytest.raises(InvalidArgumentError, match="no published weights") as refused:
        load_model("lenet5")
    assert "as weights, or weights='random'" in str(refused.value)
    assert "as --weights, or --weights random" in in_options(refused.value)
