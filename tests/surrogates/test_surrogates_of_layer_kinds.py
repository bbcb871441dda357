"""Surrogates of networks with other layers than convolutions and `nn.Linear`."""

from typing import Any

import pytest
import torch
from surrogate_cases import input_gradient, oracle
from torch import Tensor, nn

import secateurs as sc
from language_models import EXPERTS, language_model

both_prune_types = pytest.mark.parametrize("prune_type", ["global", "gradient"])
IMPLEMENTATIONS = [
    ("gpt2", ""),
    ("llama4", ""),
    *((name, kind) for name in EXPERTS for kind in ("eager", "batched_mm", "grouped_mm")),
]


def logits(model: Any) -> Any:
    """The model from embeddings, which have a gradient, to logits."""

    def call(x: Tensor) -> Tensor:
        output = model(inputs_embeds=x)
        return output if isinstance(output, Tensor) else output.logits

    return call


@both_prune_types
@pytest.mark.parametrize(("name", "implementation"), IMPLEMENTATIONS)
def test_linear_layers_and_experts_of_transformers(
    name: str, implementation: str, prune_type: str
) -> None:
    pytest.importorskip("transformers")
    model: Any = language_model(name).requires_grad_()
    if implementation:
        model.set_experts_implementation(implementation)
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(0))
    surrogate = sc.Diversified(model, 0.5, 0.5, prune_type=prune_type)
    others = [t for t in surrogate.targets if not isinstance(t.module, nn.Linear)]
    assert len(others) == (4 if name == "gpt2" else 2)
    gradient = input_gradient(logits(surrogate), x)
    masks = surrogate.masks
    assert all(0 < masks[t.name].float().mean() < 1 for t in others)
    assert torch.equal(gradient, input_gradient(logits(oracle(model, masks, prune_type)), x))
    with surrogate.frozen():
        output = logits(surrogate)(x)
    assert torch.equal(output, logits(oracle(model, masks, prune_type))(x))
    assert torch.equal(output, logits(model)(x)) == (prune_type == "gradient")
    assert not torch.equal(gradient, input_gradient(logits(model), x))


class Recurrent(nn.Module):
    """A recurrent layer or cell below a linear layer."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core, self.head = core, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.core(x)
        return self.head(hidden[0] if isinstance(hidden, tuple) else hidden)


CELLS = [nn.LSTMCell, nn.GRUCell, nn.RNNCell]


def recurrent(cls: Any) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = Recurrent(cls(3, 4))
    return model, torch.randn(5, 3)


@pytest.mark.parametrize("cls", CELLS)
def test_recurrent_cells(cls: Any) -> None:
    model, x = recurrent(cls)
    surrogate = sc.Diversified(model, 0.5, 0.5, include=["*", "core"])
    assert {"core.weight_ih", "core.weight_hh"} < {t.name for t in surrogate.targets}
    gradient = input_gradient(surrogate, x)
    masks = surrogate.masks
    assert torch.equal(gradient, input_gradient(oracle(model, masks), x))
    assert not masks["core.weight_ih"].all()
    assert not torch.equal(gradient, input_gradient(model, x))


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU, nn.RNN, *CELLS])
def test_recurrent_weights_are_refused_by_name(cls: Any) -> None:
    model, x = recurrent(cls)
    for prune_type in ("gradient",) if cls in CELLS else ("global", "gradient"):
        with pytest.raises(sc.InvalidArgumentError, match=r"core\.weight_ih") as refused:
            sc.Diversified(model, 0.5, 0.5, prune_type=prune_type, include=["*", "core"])
        assert cls.__name__ in str(refused.value)
        # By default they do not compete.
        surrogate = sc.Diversified(model, 0.5, 0.5, prune_type=prune_type)
        gradient = input_gradient(surrogate, x)
        assert [t.name for t in surrogate.targets] == ["head.weight"]
        assert torch.equal(gradient, input_gradient(oracle(model, surrogate.masks, prune_type), x))


@both_prune_types
@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(1, 4))])
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_scripted_parts(make: Any, prune_type: str) -> None:
    with pytest.raises(sc.InvalidArgumentError, match="the model is scripted or traced"):
        sc.Diversified(make(nn.Linear(4, 4)), 0.5, 0.5, prune_type=prune_type)
    model = nn.Sequential(nn.Linear(4, 4), make(nn.Linear(4, 4)))
    with pytest.raises(sc.InvalidArgumentError, match=r"1\.weight.*scripted or traced.*exclude="):
        sc.Diversified(model, 0.5, 0.5, prune_type=prune_type, layers="all", include="1.weight")
    surrogate = sc.Diversified(
        model,
        0.5,
        0.5,
        prune_type=prune_type,
        layers="all",
        exclude=[torch.jit.ScriptModule, "0.bias"],
    )
    surrogate(torch.ones(1, 4))
    assert [t.name for t in surrogate.targets] == ["0.weight"]
