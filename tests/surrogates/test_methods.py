"""Whatever runs a network through its surrogate is pruned, and gives what the network gives."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
import transformers
from surrogate_cases import Blocks, blocks, images, input_gradient, oracle
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import ModelOutput

import secateurs as sc
from secateurs.pruning import PRUNE_TYPES
from secateurs.surrogates import mup


class Encoder(Blocks):
    """A network with ways to run it beside ``forward``, and with methods that run nothing."""

    def encode(self, x: Tensor) -> Tensor:
        """Layers are called."""
        return self.stem(x).mean((2, 3)) @ self.head.weight.mT

    @torch.no_grad()
    def rank(self, x: Tensor) -> Tensor:
        """One method calls another."""
        return self.encode(x).argsort() + self(x).argsort()

    def stream(self, x: Tensor) -> Generator[Tensor, Tensor, str]:
        """Results come one by one, and the caller answers."""
        answer = yield self.head(self.stem(x).mean((2, 3)))
        yield self.head(self.stem(answer).mean((2, 3)))
        return "over"

    def weight_norm(self) -> Tensor:
        """A weight is read by hand."""
        return self.head.weight.square().sum()

    def describe(self) -> int:
        """Parameters are counted."""
        return sum(p.numel() for p in self.parameters())

    def save_stored(self) -> dict[str, Tensor]:
        """Parameters are written."""
        return {name: p.detach().clone() for name, p in self.named_parameters()}

    def weights_stored(self) -> dict[str, Tensor]:
        """The same by another name."""
        return {k: v.clone() for k, v in self.state_dict().items()}

    def reset_head(self) -> None:
        """Parameters are changed."""
        self.head.weight = nn.Parameter(self.head.weight.detach() * 2)

    @property
    def width(self) -> int:
        return self.head.in_features


def encoder() -> Encoder:
    torch.manual_seed(3)
    return Encoder().eval()


CALLS: dict[str, Callable[[Any, Tensor], Any]] = {
    "encode": lambda m, x: m.encode(x),
    "rank": lambda m, x: m.rank(x),
    "weight_norm": lambda m, x: m.weight_norm(),
    "forward": lambda m, x: m.forward(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_methods_that_use_weights_run_under_one_draw(name: str) -> None:
    model, x, call = encoder(), images(), CALLS[name]
    surrogate = sc.Diversified(model, 0.6, 0.5)
    for number in (1, 2):
        found = call(surrogate, x)
        assert surrogate.draws == number
        assert torch.equal(found, call(oracle(model, surrogate.masks), x))
    with surrogate.dense():
        assert torch.equal(call(surrogate, x), call(model, x))
    with surrogate.frozen():
        assert torch.equal(call(surrogate, x), found)
    assert surrogate.draws == 2


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_results_that_come_one_by_one_are_those_of_one_draw(prune_type: str) -> None:
    model, x = encoder(), images(4).requires_grad_()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)

    def both(network: Any) -> list[Tensor]:
        stream = network.stream(x)
        first = next(stream)
        dense = torch.autograd.grad(model(x).sum(), x)[0]  # while the stream waits
        second = stream.send(x * 2)
        with pytest.raises(StopIteration, match="over"):
            next(stream)
        return [first, second, torch.autograd.grad((first + second).sum(), x)[0], dense]

    found = both(surrogate)
    wanted = both(oracle(model, surrogate.masks, prune_type))
    assert surrogate.draws == 1
    torch.testing.assert_close(found, wanted)
    with surrogate.dense():
        assert all(map(torch.equal, both(surrogate), both(model)))


def test_methods_that_use_no_weights_are_the_models() -> None:
    model = encoder()
    surrogate = sc.Diversified(model, 0.6, 1.0)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for stored in (surrogate.save_stored(), surrogate.weights_stored()):
        assert all(torch.equal(value, wanted[name]) for name, value in stored.items())
    assert surrogate.describe() == model.describe()
    assert surrogate.width == 6
    assert surrogate.encode.__name__ == "encode"
    surrogate.reset_head()
    assert torch.equal(model.head.weight, wanted["head.weight"] * 2)
    assert surrogate.draws == 0


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_gradients_of_methods(prune_type: str) -> None:
    model, x = blocks(), images()
    model.__class__ = type(
        "Own", (Blocks,), {"score": lambda self, v: self.head(self.stem(v).mean((2, 3)))}
    )
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    found = input_gradient(surrogate.score, x)
    assert torch.equal(found, input_gradient(oracle(model, surrogate.masks, prune_type).score, x))
    assert surrogate.draws == 1
    with pytest.raises(sc.FailureError, match="without checkpoint"):
        checkpoint(surrogate.score, x.requires_grad_(), use_reentrant=False)


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_layers_are_pruned_inside_pruned(prune_type: str) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    assert torch.equal(input_gradient(surrogate.stem, x), input_gradient(model.stem, x))
    with surrogate.pruned() as network:
        assert network is model
        found = input_gradient(network.stem, x)
        assert torch.equal(input_gradient(network.stem, x), found)
    assert surrogate.draws == 1
    wanted = oracle(model, surrogate.masks, prune_type)
    assert torch.equal(found, input_gradient(wanted.stem, x))
    with surrogate.dense(), surrogate.pruned():
        assert torch.equal(model.stem(x), blocks().stem(x))


def test_mup_refuses_what_it_cannot_score() -> None:
    surrogate, x = mup(encoder()), images()
    with pytest.raises(sc.InvalidArgumentError, match="cannot prune encode"):
        surrogate.encode(x)
    with pytest.raises(sc.InvalidArgumentError, match="cannot prune pruned"), surrogate.pruned():
        pass
    with surrogate.dense():
        assert torch.equal(surrogate.encode(x), surrogate.network.encode(x))


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=17, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def clip() -> Any:
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2, "projection_dim": 4}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 17, "eos_token_id": 2},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    return transformers.CLIPModel(config).eval()


def test_generated_tokens_are_those_of_one_draw(tmp_path: Any) -> None:
    model, tokens = llama(), torch.tensor([[3, 5, 7]])
    surrogate = sc.Diversified(model, 0.9, 0.7, seed=1)
    found = surrogate.generate(tokens, max_new_tokens=6, do_sample=False)
    assert surrogate.draws == 1
    wanted = oracle(model, surrogate.masks).generate(tokens, max_new_tokens=6, do_sample=False)
    assert torch.equal(found, wanted)
    assert surrogate.num_parameters() == model.num_parameters()
    assert surrogate.get_input_embeddings() is model.get_input_embeddings()
    surrogate.save_pretrained(tmp_path)
    stored = transformers.LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(stored[name], p) for name, p in model.state_dict().items())
    assert surrogate.draws == 1


def test_features_of_clip() -> None:
    model, x = clip(), torch.rand(2, 3, 8, 8)
    surrogate = sc.Diversified(model, 0.6, 0.5)
    found = surrogate.get_image_features(pixel_values=x)
    wanted = oracle(model, surrogate.masks).get_image_features(pixel_values=x)
    assert surrogate.draws == 1
    for name, value in _tensors(found).items():
        assert torch.equal(value, _tensors(wanted)[name])


def _tensors(output: Any) -> dict[str, Tensor]:
    return {"": output} if isinstance(output, Tensor) else dict(output)


def vit(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        image_size=8, patch_size=4, num_labels=3, **options,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


def test_what_a_network_gives_beside_logits_is_kept() -> None:
    model, x, labels = vit(), torch.rand(2, 3, 8, 8), torch.tensor([0, 2])
    surrogate = sc.Diversified(model, 0.6, 0.5)
    assert isinstance(surrogate(x), Tensor)
    output = surrogate(x, labels=labels)
    wanted = oracle(model, surrogate.masks)(x, labels=labels)
    assert isinstance(output, ModelOutput)
    assert torch.equal(output.loss, wanted.loss)
    assert torch.equal(output.logits, wanted.logits)
    assert len(surrogate(x, output_hidden_states=True).hidden_states) == 2
    assert isinstance(surrogate(x, return_dict=False), tuple)
    with surrogate.dense():
        assert isinstance(surrogate(x), Tensor)
        assert torch.equal(surrogate(x, labels=labels).loss, model(x, labels=labels).loss)


def test_attacks_find_the_logits_of_any_output() -> None:
    from secateurs.attacks import attack

    surrogate, x = sc.Diversified(vit(output_hidden_states=True), 0.3, 0.5), torch.rand(2, 3, 8, 8)
    options: Any = {"method": "mi-logit", "eps": 0.1, "alpha": 0.05, "steps": 2}
    moved = attack([surrogate], x, torch.tensor([0, 1]), **options)
    assert surrogate.draws == 2
    assert not torch.equal(moved, x)
    assert sc.Ensemble([surrogate])(x).shape == (2, 3)
