"""Threads that share a network do not see what surrogates of it do in others."""

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from surrogate_cases import blocks, images, input_gradient, oracle
from torch import Tensor, nn

import secateurs as sc
from secateurs.pruning import PRUNE_TYPES


@pytest.fixture(autouse=True)
def hurried() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def together(*jobs: Callable[[], Any]) -> None:
    """Run jobs in threads of their own; raise what one of them raised."""
    errors: list[BaseException] = []

    def run(job: Callable[[], Any]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def untouched(model: nn.Module, ids: dict[str, int]) -> bool:
    return {name: id(p) for name, p in model.named_parameters()} == ids and all(
        type(m._parameters) is dict and not m._forward_pre_hooks for m in model.modules()
    )


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_a_network_is_dense_for_whoever_calls_it_itself(prune_type: str) -> None:
    model, x = blocks(), images()
    ids = {name: id(p) for name, p in model.named_parameters()}
    surrogate, other = (
        sc.Diversified(model, 0.6, 0.5, prune_type=prune_type, seed=s) for s in (0, 1)
    )
    logits, gradient = model(x), input_gradient(model, x)

    def surrogates() -> None:
        for _ in range(12):
            input_gradient(surrogate, x)
            other(x)

    def dense() -> None:
        for _ in range(12):
            assert torch.equal(model(x), logits)
            assert torch.equal(input_gradient(model, x), gradient)
            assert all(isinstance(p, nn.Parameter) for p in model.parameters())

    together(surrogates, surrogates, dense, dense)
    assert surrogate.draws == other.draws == 24
    assert untouched(model, ids)


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_calls_of_one_surrogate_each_have_a_draw(prune_type: str) -> None:
    model, x = blocks(), images()
    alone = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type, seed=3)
    wanted = {tuple(input_gradient(alone, x).flatten().tolist()) for _ in range(16)}
    shared = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type, seed=3)
    found: list[Tensor] = []
    job = lambda: [found.append(input_gradient(shared, x)) for _ in range(4)]  # noqa: E731
    together(job, job, job, job)
    assert {tuple(gradient.flatten().tolist()) for gradient in found} == wanted


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_the_dense_network_may_checkpoint_while_a_surrogate_runs(prune_type: str) -> None:
    model, x = blocks(), images()
    model.reentrant = False
    wanted = input_gradient(model, x)
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)

    def dense() -> None:
        for _ in range(8):
            assert torch.equal(input_gradient(model, x), wanted)

    def refused() -> None:
        for _ in range(8):
            with pytest.raises(sc.FailureError, match="switch checkpointing off"):
                surrogate(x)

    together(dense, refused)


def test_settings_of_a_thread_act_in_it_alone() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    logits = model(x)
    with surrogate.dense():
        together(lambda: surrogate(x))
        assert surrogate.draws == 1
        assert torch.equal(surrogate(x), logits)
    with surrogate.frozen():
        kept = surrogate(x)
        together(lambda: [surrogate(x) for _ in range(3)])
        assert torch.equal(surrogate(x), kept)


def test_the_network_is_copied_and_saved_as_it_is_while_a_surrogate_runs() -> None:
    model, x = blocks(), images()
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    surrogate = sc.Diversified(model, 0.6, 1.0)
    seen: list[Any] = []

    def look(module: nn.Module, *_: Any) -> None:
        seen.append(module.weight.detach().clone())
        together(lambda: seen.append(module.weight))
        seen.append(model.state_dict())
        seen.append(copy.deepcopy(model.head))

    handle = model.head.register_forward_hook(look)
    surrogate(x)
    handle.remove()
    inside, elsewhere, stored, copied = seen
    assert torch.equal(inside, wanted["head.weight"] * surrogate.masks["head.weight"])
    assert elsewhere is model.head.weight
    assert all(torch.equal(stored[name], value) for name, value in wanted.items())
    assert type(copied._parameters) is dict
    assert torch.equal(copied.weight, wanted["head.weight"])


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_that_is_made_while_a_surrogate_runs_is_the_dense_network(
    copied: Callable[[nn.Module], nn.Module], prune_type: str
) -> None:
    model, x = blocks(), torch.rand(2, 6, 8, 8)
    surrogate = sc.Diversified(model, 0.6, 1.0, prune_type=prune_type)
    made: list[nn.Module] = []
    handle = model.head.register_forward_hook(lambda *_: made.append(copied(model.block)))
    surrogate(images())
    handle.remove()
    logits, gradient = made[0](x), input_gradient(made[0], x)
    assert torch.equal(logits, model.block(x))
    assert torch.equal(gradient, input_gradient(model.block, x))
    hooks = [h for m in made[0].modules() for h in m._forward_pre_hooks.values()]
    assert all(hook.__self__._thread == 0 for hook in hooks)  # those of no thread


def test_another_thread_may_run_a_hook_of_attention_while_it_is_removed() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    surrogate, x = sc.Diversified(layer, 0.6, 1.0, prune_type="gradient"), torch.rand(1, 3, 4)
    started = threading.Event()
    wanted = layer(x)

    def end_between(*_: Any) -> None:
        # Runs first of the hooks that a call of the layer goes through; then the surrogate ends.
        if threading.current_thread() is not calling:
            go_on.set()
            calling.join()

    def hold(*_: Any) -> None:
        if threading.current_thread() is calling:
            started.set()
            go_on.wait(30)

    go_on = threading.Event()
    calling = threading.Thread(target=lambda: surrogate(x))
    handles = [layer.register_forward_pre_hook(end_between)]
    handles.append(layer.linear2.register_forward_pre_hook(hold))
    calling.start()
    assert started.wait(30)
    found = layer(x)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, wanted)


def test_a_parameter_that_is_replaced_while_a_surrogate_runs_stays() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    new = nn.Parameter(torch.ones_like(model.head.weight))

    def replace(*_: Any) -> None:
        model.head.weight = new
        model.head.register_parameter("extra", nn.Parameter(torch.ones(1)))
        del model.head.bias
        model.head.bias = None

    handle = model.stem.register_forward_hook(replace)
    surrogate(x)
    handle.remove()
    assert model.head.weight is new
    assert [name for name, _ in model.head.named_parameters()] == ["weight", "extra"]
    assert torch.equal(surrogate(x), oracle(model, surrogate.masks)(x))


def test_copies_of_a_surrogate_have_locks_of_their_own() -> None:
    surrogate, x = sc.Diversified(blocks(), 0.6, 0.5), images()
    surrogate(x)
    for each in (copy.deepcopy(surrogate), pickle.loads(pickle.dumps(surrogate))):
        assert each.draws == 1
        together(lambda each=each: each(x), lambda each=each: each(x))
        assert each.draws == 3


def test_data_parallel_is_refused() -> None:
    surrogate = sc.Diversified(blocks(), 0.6, 0.5)
    with pytest.raises(sc.InvalidArgumentError, match="copy of the network for each device"):
        surrogate._replicate_for_data_parallel()
