from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference
import secateurs as sc
from secateurs import InvalidArgumentError
from secateurs.criteria import CRITERIA
from secateurs.repair import observed_inputs


def _conv1d() -> nn.Module:
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(5, 4)


LAYERS = [
    (lambda: nn.Linear(4, 3), (6, 4)),
    (_conv1d, (6, 4)),
    (lambda: nn.Conv2d(4, 6, 2, groups=2), (2, 4, 3, 4)),
    (lambda: nn.Conv2d(4, 4, 2, groups=4, padding="same"), (2, 4, 3, 3)),
    (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2, padding=1), (2, 4, 3, 2)),
    (lambda: nn.ConvTranspose1d(4, 4, 3, groups=2), (3, 4, 3)),
]


def seen_by(layer: nn.Module, images: Tensor) -> dict[int, list[list[float]]]:
    """For each element of the weight, the inputs of its output: which one is its own, and all.

    Found by asking: the derivative of an output with respect to an element is its input.
    """
    weight = layer.weight
    rows: dict[int, list[list[float]]] = {}
    output = layer(images)
    channels = output.transpose(0, 1).flatten(1)
    for channel, values in enumerate(channels):
        rows[channel] = [
            torch.autograd.grad(one, weight, retain_graph=True)[0].flatten().tolist()
            for one in values
        ]
    return rows


@pytest.mark.parametrize(("build", "shape"), LAYERS)
@pytest.mark.parametrize("score", ["wanda", "obs"])
def test_scores_are_those_of_the_oracle(build: Any, shape: tuple[int, ...], score: str) -> None:
    torch.manual_seed(0)
    layer, images = build().double(), torch.randn(shape, dtype=torch.float64)
    outputs = layer(images).shape[1]
    rows = seen_by(layer, images)
    # An element belongs to the output that it ever changes.
    owner = [
        next(c for c in range(outputs) if any(row[i] for row in rows[c]))
        for i in range(layer.weight.numel())
    ]
    weights = layer.weight.detach().flatten().tolist()
    expected = []
    for place, weight in enumerate(weights):
        channel = owner[place]
        mine = [i for i in range(len(weights)) if owner[i] == channel]
        inputs = [[row[i] for i in mine] for row in rows[channel]]
        own = mine.index(place)
        count, size = len(inputs), len(mine)
        if score == "wanda":
            norm = (sum(row[own] ** 2 for row in inputs) / count) ** 0.5
            expected.append(abs(weight) * norm)
            continue
        # The damping is that of the group: of all inputs that its outputs see, which are these.
        mean = sum(x * x for row in inputs for x in row) / count / size
        hessian = [
            [sum(r[i] * r[j] for r in inputs) / count + (0.01 * mean if i == j else 0)
             for j in range(size)] for i in range(size)
        ]  # fmt: skip
        unit = [float(i == own) for i in range(size)]
        expected.append(weight**2 / reference.solved(hessian, unit)[own])
    with observed_inputs(layer, images, batch_size=1 if images.dim() > 2 else 4):
        (target,) = sc.find_targets(layer)
        found = CRITERIA[score].function(target)
    assert found.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("same", [False, True])
def test_the_packed_weight_of_an_attention_meets_three_inputs(same: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(*((x, x, x) if same else (x[:, :1], x, x + 1)))[0]

    model, images = Attention(), torch.randn(6, 3, 4)
    shown = (images,) * 3 if same else (images[:, :1], images, images + 1)
    with observed_inputs(model, images, batch_size=2):
        target = next(t for t in sc.find_targets(model) if "in_proj" in t.name)
        found = CRITERIA["wanda"].function(target)
    norms = [rows.double().square().mean((0, 1)).sqrt() for rows in shown]
    parts = zip(target.weight.double().abs().chunk(3), norms, strict=True)
    assert torch.allclose(found, torch.cat([weight * norm for weight, norm in parts]))


def test_inputs_are_known_inside_of_the_block_only() -> None:
    model, images = nn.Linear(4, 4), torch.randn(8, 4)
    with observed_inputs(model, images):
        sc.select(model, 0.5, score="obs")
    words = r"^what goes into the layer of weight is not known: score inside of `with secateurs\."
    with pytest.raises(InvalidArgumentError, match=words):
        sc.select(model, 0.5, score="obs")
    assert not [name for name in vars(model) if name.startswith("_secateurs")]


def test_a_layer_that_is_called_twice_counts_both() -> None:
    layer = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(layer, layer)
    images = torch.eye(2)
    with observed_inputs(model, images):
        (target,) = sc.find_targets(model)
        both = torch.cat([images, layer(images)]).double().detach()
        assert torch.allclose(target.inputs.moment[0], both.T @ both / 4)
