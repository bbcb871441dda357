"""A pruned model is an ordinary one for exporters: equal outputs, and its zeros stay zeros."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from secateurs.training import hold

pytestmark = pytest.mark.filterwarnings("ignore")  # of exporters


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),  # exporters multiply it into the convolution
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.Flatten(),
        nn.Linear(288, 10),
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def held(model: nn.Module) -> nn.Module:
    hold(model, torch.optim.SGD(model.parameters(), 0.1), sc.select(model, 0.7).draw())
    return model


def from_torch(model: nn.Module) -> nn.Module:
    return sc.from_torch_prune(sc.to_torch_prune(sc.global_prune(model, 0.7)))


PRUNED = {
    "weights": lambda model: sc.global_prune(model, 0.7),
    "filters": lambda model: sc.global_prune(model, 0.3, granularity="filter"),
    "2:4": lambda model: sc.global_prune(model, scope="2:4", include="5"),
    "held": held,
    "from torch.nn.utils.prune": from_torch,
}


def pruned_networks(
    kinds: list[str],
) -> list[tuple[Callable[[], nn.Module], tuple[int, ...], str]]:
    return [
        *((convolutions, (2, 3, 8, 8), kind) for kind in kinds),
        (Attention, (2, 5, 8), "weights"),
    ]


def build(network: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return network().eval(), torch.randn(shape)


def zeros(model: nn.Module) -> dict[str, Tensor]:
    found = {t.name: model.get_parameter(t.name) == 0 for t in sc.find_targets(model)}
    assert sum(map(torch.sum, found.values())) > 50
    return found


@pytest.mark.parametrize(("network", "shape", "how"), pruned_networks(["weights", "held"]))
def test_torch_export(network, shape: tuple[int, ...], how: str) -> None:
    model, x = build(network, shape)
    names = list(model.state_dict())
    model = PRUNED[how](model)
    kept_zero, expected = zeros(model), model(x)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    program = torch.export.load(file)
    torch.testing.assert_close(program.module()(x), expected)
    assert sorted(program.state_dict) == sorted(names)
    for name, zero in kept_zero.items():
        assert torch.equal(program.state_dict[name] == 0, zero)


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "exported"])
@pytest.mark.parametrize(("network", "shape", "how"), pruned_networks(list(PRUNED)))
def test_onnx(tmp_path: Path, network, shape: tuple[int, ...], how: str, dynamo: bool) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer ONNX exporter needs onnxscript")
    model, x = build(network, shape)
    model = PRUNED[how](model)
    kept_zero, expected = zeros(model), model(x).detach()
    torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=dynamo)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs[0]), expected)
    loaded = onnx.load(tmp_path / "m.onnx")
    stored = [onnx.numpy_helper.to_array(each) == 0 for each in loaded.graph.initializer]
    for name, zero in kept_zero.items():  # exporters rename and transpose
        shown = (zero.numpy(), zero.numpy().T)
        assert any(
            (one == each).all() for one in stored for each in shown if one.shape == each.shape
        ), name
    assert zeros(model).keys() == kept_zero.keys()  # what was exported is as it was
    assert all(torch.equal(zero, kept_zero[name]) for name, zero in zeros(model).items())


def test_a_model_whose_backward_pass_is_pruned_exports_as_the_dense_one(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, x = build(convolutions, (2, 3, 8, 8))
    expected = model(x).detach()
    sc.gradient_prune(model, 0.7)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)
    torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=False)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(outputs[0]), expected)


def test_a_surrogate_says_what_to_export_instead() -> None:
    model, x = build(convolutions, (2, 3, 8, 8))
    surrogate = sc.Diversified(model, 0.7, 0.5, seed=0)
    expected = surrogate(x)
    with pytest.raises(Exception, match=r"export surrogate\.network, or one draw of it"):
        torch.export.export(surrogate, (x,))
    draw = sc.apply_masks(copy.deepcopy(surrogate.network), surrogate.masks)
    torch.testing.assert_close(torch.export.export(draw, (x,)).module()(x), expected)
