import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from helpers import assert_same, snapshot
from repair.repair_cases import images, network, pruned_network
from secateurs import InvalidArgumentError, RepairWarning

EVERYTHING = ("batchnorm", "reconstruct", "channels", "distill")


def repaired(model: nn.Module, steps: Any = EVERYTHING, **options: Any) -> nn.Module:
    sc.repair(model, images(), steps, **{"iterations": 4} | options)
    return model


@pytest.mark.parametrize("steps", [[step] for step in EVERYTHING] + [EVERYTHING])
def test_restore_puts_everything_back(steps: Any) -> None:
    dense = snapshot(network())
    model = network().train()
    model[4].eval()
    modes = [module.training for module in model.modules()]
    grad = model[0].weight.grad = torch.ones_like(model[0].weight)
    model[3].weight.requires_grad_(False)
    objects = [*model.parameters(), *model.buffers()]
    sc.global_prune(model, 0.5)
    zeros = {name: one.detach() == 0 for name, one in model.named_parameters()}
    repaired(model, steps)
    assert snapshot(model).keys() == dense.keys()
    count = sum(int(zero.sum()) for name, zero in zeros.items() if "bias" not in name)
    assert sc.sparsity(model).zeros == count
    for target in sc.find_targets(model):
        assert torch.equal(target.parameter.detach() == 0, zeros[target.name])
    assert [module.training for module in model.modules()] == modes
    assert model[0].weight.grad is grad
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    tensors = (*model.parameters(), *model.buffers())
    assert all(a is b for a, b in zip(objects, tensors, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was trained
        assert_same(snapshot(sc.restore(model)), dense)
    assert not hasattr(model[1], "running_mean_orig")


def test_pruning_again_starts_from_the_originals() -> None:
    model = sc.global_prune(repaired(pruned_network(0.7)), 0.5)
    assert_same(snapshot(model), snapshot(pruned_network(0.5)))


def test_training_after_a_repair_is_seen() -> None:
    model = repaired(pruned_network(), "reconstruct")
    with torch.no_grad():
        model[7].weight.mul_(2)
    with pytest.warns(
        sc.LostTrainingWarning, match=r"^restore puts back the values that 7\.weight"
    ):
        sc.restore(model)


@pytest.mark.parametrize("changed", ["weight", "head"])
def test_what_was_trained_since_pruning_is_not_taken_back(changed: str) -> None:
    model = pruned_network()
    if changed == "head":  # no longer pruned, so there is nothing to refuse
        model[7].weight = nn.Parameter(torch.randn_like(model[7].weight))
        learned = model[7].weight.detach().clone()
        repaired(model, "reconstruct")
        assert torch.equal(model[7].weight, learned)
        return
    dense = copy.deepcopy(network())
    model[7].weight.data.mul_(2)
    before = snapshot(model)
    with pytest.raises(InvalidArgumentError, match=r"^7\.weight: trained since.*prune again"):
        repaired(model, "reconstruct")
    assert_same(snapshot(model), before)
    repaired(model, "reconstruct", dense=dense)
    repaired(sc.global_prune(model, 0.5), "reconstruct")


def test_a_block_of_other_pruning_brings_the_repair_back() -> None:
    model = repaired(pruned_network())
    before = snapshot(model)
    with sc.pruned(model, 0.2):
        assert_same(snapshot(model), snapshot(pruned_network(0.2)))
    assert_same(snapshot(model), before)
    assert_same(snapshot(sc.restore(model)), snapshot(network()))


@pytest.mark.parametrize(
    "change",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.double().float()],
    ids=["copied", "pickled", "moved"],
)
def test_a_repair_goes_where_the_model_goes(change: Callable[[nn.Module], nn.Module]) -> None:
    model = change(repaired(pruned_network()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(snapshot(sc.restore(model)), snapshot(network()))


def test_a_permanent_repair_stays() -> None:
    model = repaired(pruned_network())
    before = snapshot(model)
    assert_same(snapshot(sc.restore(sc.make_permanent(model))), before)


def test_the_dense_network_may_be_handed_in() -> None:
    model = repaired(sc.make_permanent(pruned_network()), dense=network())
    # Sums over values elsewhere in memory may be rounded in another way.
    expected = repaired(pruned_network()).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(value == 0, expected[name] == 0), name
    assert_same(snapshot(sc.restore(model)), snapshot(pruned_network()))


def test_a_repair_of_a_repair_starts_where_the_first_one_ended() -> None:
    model = repaired(repaired(pruned_network(), "batchnorm"), "reconstruct")
    assert_same(snapshot(sc.restore(model)), snapshot(network()))


def test_labels_are_not_read() -> None:
    class Loader:
        def __iter__(self):
            yield from ((part, object()) for part in images().split(16))

    model = pruned_network()
    sc.repair(model, Loader(), ["batchnorm", "reconstruct"])
    assert_same(snapshot(model), snapshot(repaired(pruned_network(), ["batchnorm", "reconstruct"])))


def test_distillation_keeps_what_was_best_on_held_out_images() -> None:
    model = pruned_network(0.7)
    (done,) = sc.repair(model, images(), ["distill"], iterations=60, learning_rate=0.01)
    assert done.loss[1] < done.loss[0] / 2
    model = pruned_network(0.7)
    before = snapshot(model)
    sc.repair(model, images(), ["distill"], iterations=1, learning_rate=100.0)
    assert_same(snapshot(model), before)


class Twice(nn.Module):
    """Calls one layer twice, and one never if told so."""

    def __init__(self, unused: bool = False) -> None:
        super().__init__()
        self.again, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        if unused:
            self.never = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.again(x)))


def test_a_layer_that_is_called_twice_is_left() -> None:
    torch.manual_seed(0)
    model = sc.global_prune(Twice(), 0.5)
    before = model.again.weight.clone()
    with pytest.warns(RepairWarning, match=r"^again\.weight cannot be solved layer by layer"):
        (done,) = sc.repair(model, torch.randn(20, 4), ["reconstruct"])
    assert done.left == ("again.weight",)
    assert torch.equal(model.again.weight, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_scripted_part_stays_as_it_is() -> None:
    torch.manual_seed(0)
    part = torch.jit.trace(nn.Linear(8, 4), torch.ones(1, 8))
    model = sc.global_prune(nn.Sequential(nn.Linear(4, 8), part), 0.5, include="0")
    before = part.weight.clone()
    (done,) = sc.repair(model, torch.randn(40, 4), ["reconstruct"])
    assert done.loss[1] < done.loss[0]
    assert torch.equal(part.weight, before)


def test_few_images() -> None:
    with pytest.warns(RepairWarning, match=r"^7\.weight has 24 inputs, .* 5 values") as caught:
        sc.repair(pruned_network(), images(5), ["reconstruct"])
    assert caught[0].filename == __file__


def test_inference_mode_makes_no_difference() -> None:
    model = pruned_network()
    with torch.inference_mode():
        repaired(model)
    assert_same(snapshot(model), snapshot(repaired(pruned_network())))


def test_a_dense_network_of_another_dtype_or_with_the_same_tensors() -> None:
    model, dense = pruned_network().bfloat16(), network()
    repaired(model, dense=dense)
    model = pruned_network()
    before = copy.deepcopy(model.state_dict())
    repaired(model, ["batchnorm", "reconstruct"], dense=model)  # which it equals already
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_empty_layers_stay_as_they_are() -> None:
    empty = nn.Linear(6, 0), nn.Linear(0, 4)
    model = sc.global_prune(nn.Sequential(nn.Linear(4, 6), *empty, nn.Linear(4, 3)), 0.5)
    (done,) = sc.repair(model, torch.randn(40, 4), ["reconstruct"])
    assert list(done.layers) == ["0.weight", "3.weight"]


def test_more_threads_than_the_system_has() -> None:
    model = pruned_network()
    before, usual = snapshot(model), threading.stack_size(2**46)
    try:
        with pytest.raises(sc.FailureError, match=r"cannot start 10 threads, .* batch_size"):
            sc.repair(model, images(), ["batchnorm"])
    finally:
        threading.stack_size(usual)
    assert_same(snapshot(model), before)


def linear() -> nn.Module:
    return sc.global_prune(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), 0.5)


def infinite() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, float("inf"))
    return sc.global_prune(model, 0.5)


class Picky(nn.Sequential):
    """Asserts the size of images, as networks of timm do."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == 6, "height is not 6"
        return super().forward(x)


def compiled() -> nn.Module:
    model = linear()
    model.compile()
    return model


@pytest.mark.parametrize(
    ("build", "shown", "steps", "words"),
    [
        (network, images(), ["reconstruct"], r"not pruned, .*global_prune.* with dense$"),
        (lambda: sc.gradient_prune(network(), 0.5), images(), ["distill"], "gradient pruning"),
        (pruned_network, images(), ["batch_norm"], "steps must be one of .*did you mean batchnorm"),
        (pruned_network, images(), [], "steps names none"),
        (pruned_network, images(0), ["distill"], "no calibration images"),
        (pruned_network, [], ["distill"], "no calibration images"),
        (pruned_network, 3, ["distill"], "images must be a tensor or batches of tensors, got int"),
        (pruned_network, ["a"], ["distill"], "a batch .* must be a tensor, .* got str"),
        (pruned_network, [{"x": images()}], ["distill"], r"got dict: write .*\['pixel_values'\]"),
        (pruned_network, [torch.tensor(1.0)], ["distill"], "a batch .* must be a tensor"),
        (
            lambda: sc.global_prune(Picky(network()), 0.5), torch.ones(4, 3, 8, 8), ["batchnorm"],
            r"of shape \(3, 8, 8\): height is not 6; give images of the size",
        ),
        (
            lambda: sc.global_prune(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), 0.5),
            torch.ones(4, 4), ["reconstruct"], r"must return logits .* got \(4,\): wrap it",
        ),
        (pruned_network, [images(2), torch.ones(2, 3, 4, 4)], ["distill"], "of several shapes"),
        (pruned_network, images()[:, :2], ["batchnorm"], r"of shape \(2, 6, 6\): .*channels"),
        (pruned_network, images() * torch.nan, ["batchnorm"], "a calibration image holds NaN"),
        (pruned_network, images(1), ["distill"], "needs two images"),
        (linear, torch.ones(4, 4), ["batchnorm"], "no BatchNorm layer .* out of steps"),
        (compiled, torch.ones(4, 4), ["reconstruct"], "the model is compiled, .*before"),
        (infinite, torch.ones(4, 4), ["reconstruct"], r"comes out of 0\.weight is NaN or infinite"),
        (infinite, torch.ones(4, 4), ["distill"], "dense network's outputs are NaN or infinite"),
        (
            lambda: sc.global_prune(Twice(unused=True), 0.5), torch.ones(4, 4), ["reconstruct"],
            r"^never\.weight is pruned, but its layer is never called",
        ),
    ],
)  # fmt: skip
def test_bad_input_leaves_the_model_as_it_was(
    build: Callable[[], nn.Module], shown: Any, steps: Any, words: str
) -> None:
    model = build()
    before = snapshot(model)
    with pytest.raises(sc.SecateursError, match=words) as caught:
        sc.repair(model, shown, steps)
    assert "\n" not in str(caught.value)
    assert_same(snapshot(model), before)


@pytest.mark.parametrize(
    "option",
    [{"damping": 0}, {"learning_rate": -1}, {"batch_size": 0}, {"iterations": 0.5}, {"memory": 0},
     {"seed": 2**64}],
)  # fmt: skip
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{next(iter(option))} must "):
        sc.repair(pruned_network(), images(), **option)


@pytest.mark.parametrize("damping", [1e-300, 1e308])
@pytest.mark.parametrize("step", ["reconstruct", "sparsegpt"])
@pytest.mark.filterwarnings("ignore::secateurs.RepairWarning")
def test_a_damping_beyond_what_can_be_computed(step: str, damping: float) -> None:
    model = pruned_network()
    before = snapshot(model)
    with pytest.raises(
        sc.FailureError, match=r"cannot be solved for with damping=.* damping=0\.1$"
    ):
        sc.repair(model, 1e3 * images(5), [step], damping=damping)
    assert_same(snapshot(model), before)


def test_a_failure_half_way_undoes_what_was_done() -> None:
    model = pruned_network()
    before = snapshot(model)
    calls: list[int] = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) > 9:  # past the image that is tried first and what is reported
            raise KeyError("broken")

    model[7].register_forward_pre_hook(fail)
    with pytest.raises(KeyError, match="broken"):
        sc.repair(model, images(), ["batchnorm", "reconstruct"])
    assert_same(snapshot(model), before)
