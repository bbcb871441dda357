"""`accelerate`: what it chooses, when it falls back, and what it refuses."""

import copy
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.acceleration.layer_swap import fast_layer
from secateurs.acceleration.stopwatch import Functions
from secateurs.errors import AccelerationWarning, FailureError, InvalidArgumentError

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(288, 16), nn.Linear(16, 4)).eval()


def pruned(ratio: float = 0.9) -> nn.Module:
    net = network()
    sc.global_prune(net, ratio, scope="layer")
    return net


def always(seconds: Mapping[str, float]) -> Callable[[Functions], dict[str, float]]:
    """A clock by which each way takes always the same; 2 seconds where nothing is said."""
    return lambda functions: {name: seconds.get(name, 2.0) for name in functions}


SPARSE = always(
    {"dense": 1.0, "csr": 0.5, "im2col csr": 0.8, "shifted csr": 0.7, "accelerated": 0.6}
)


def accelerate(net: nn.Module, example: Any = IMAGES, **options: Any) -> sc.Acceleration:
    return sc.accelerate(net, example, **{"measure": SPARSE, **options})


def replaced(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if fast_layer(module) is not None]


def test_the_fastest_way_is_taken_for_each_layer() -> None:
    net = pruned()
    state, parameters = copy.deepcopy(net.state_dict()), list(net.parameters())
    expected = net(IMAGES)
    made = accelerate(net)
    chosen = {layer.name: layer.chosen for layer in made.layers}
    assert chosen == {"0": "shifted csr", "2": "csr", "4": "csr", "5": "csr"}
    assert replaced(net) == ["0", "2", "4", "5"]
    assert made.speedup == pytest.approx(1 / 0.6)
    with torch.inference_mode():
        output = net(IMAGES)
    assert not torch.equal(output, expected)  # summed in another order: the kernels are at work
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    assert list(net.state_dict()) == list(state)
    assert type(net[0]).__name__ == "Conv2d"
    made.restore()
    made.restore()
    assert not replaced(net)
    assert type(net[0]) is nn.Conv2d
    assert torch.equal(net(IMAGES), expected)


def test_it_works_with_the_clock_of_this_machine() -> None:
    with sc.accelerate(pruned(), IMAGES) as made, torch.no_grad():
        made.model(IMAGES)
    assert made.speedup > 0


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ({"csr": 0.94}, ["2", "4", "5"]),
        ({"csr": 0.96}, []),  # within the margin
        ({"csr": 0.5, "accelerated": 0.985}, []),  # not by 2% faster as a whole
    ],
)
def test_what_does_not_pay_is_left_dense(seconds: dict[str, float], taken: list[str]) -> None:
    net = pruned()
    made = accelerate(net, measure=always({"dense": 1.0, "accelerated": 0.9, **seconds}))
    assert replaced(net) == taken
    assert taken or made.speedup == 1


def test_choices_that_do_not_pay_as_a_whole_are_dropped_the_least_useful_first() -> None:
    wholes = iter([1.1, 0.9])

    def measure(functions: Functions) -> dict[str, float]:
        if "accelerated" in functions:
            return {"dense": 1.0, "accelerated": next(wholes)}
        return {
            name: {"dense": 1.0, "csr": 0.5, "shifted csr": 0.8}.get(name, 2.0)
            for name in functions
        }

    net = pruned()
    made = accelerate(net, measure=measure)
    assert replaced(net) == ["4", "5"]
    assert made.seconds == ((1.0, 0.9),)


def test_dense_is_measured_without_replaced_layers() -> None:
    net = pruned()
    found: dict[str, list[str]] = {}

    def measure(functions: Functions) -> dict[str, float]:
        for name in ("dense", "accelerated", "dense") if "accelerated" in functions else ():
            functions[name]()
            found[name] = replaced(net)
        return {name: {"csr": 0.5, "accelerated": 0.6}.get(name, 1.0) for name in functions}

    accelerate(net, measure=measure)
    assert found == {"dense": [], "accelerated": replaced(net)} and replaced(net)


def test_what_one_example_drops_is_no_longer_counted_for_another() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16)]
    net = nn.Sequential(*layers).eval()
    sc.global_prune(net, 0.9, scope="layer")
    wholes = iter([0.9, 1.1])

    def measure(functions: Functions) -> dict[str, float]:
        if "accelerated" in functions:
            return {"dense": 1.0, "accelerated": next(wholes)}
        return {name: 0.5 if name == "csr" else 1.0 for name in functions}

    made = accelerate(net, [IMAGES, torch.rand(2, 3, 8, 8)], measure=measure)
    assert not replaced(net)
    assert made.seconds == ((1.0, 1.0), (1.0, 1.0))


def test_zeros_in_plain_weights_count() -> None:
    net = pruned()
    sc.make_permanent(net)
    loaded = network()
    loaded.load_state_dict(net.state_dict())
    assert [layer.chosen for layer in accelerate(loaded).layers].count("csr") == 3


def quietly(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = run()
    return found, [str(w.message) for w in caught if w.category is AccelerationWarning]


def change_mask(net: nn.Module) -> None:
    sc.global_prune(net, 0.3)


def load_others(net: nn.Module) -> None:
    net.load_state_dict(network().state_dict())


def set_data(net: nn.Module) -> None:
    net[4].weight.data = torch.ones_like(net[4].weight)


def move_memory(net: nn.Module) -> None:
    net[4].weight.data = net[4].weight.data.clone()


def new_parameter(net: nn.Module) -> None:
    net[4].weight = nn.Parameter(torch.ones(16, 288))


def restore_pruning(net: nn.Module) -> None:
    sc.restore(net)


@pytest.mark.parametrize(
    "change", [change_mask, load_others, set_data, move_memory, new_parameter, restore_pruning]
)
def test_changed_weights_are_noticed(change: Callable[[nn.Module], None]) -> None:
    net = pruned()
    made = accelerate(net)
    change(net)
    with torch.no_grad():
        output, said = quietly(lambda: net(IMAGES))
        _, again = quietly(lambda: net(IMAGES))
    assert "the weights were changed" in said[0]
    assert len(said) == 1
    assert not again
    made.restore()
    torch.testing.assert_close(output, net(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}])
def test_a_step_of_an_optimizer_is_noticed(options: dict[str, bool]) -> None:
    net = pruned()
    made = accelerate(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, **options)
    other = torch.optim.SGD(network().parameters(), lr=0.1)
    with torch.no_grad():
        other.step()
        _, said = quietly(lambda: net(IMAGES))
        assert not said  # other weights were changed
        for parameter in net.parameters():
            parameter.grad = parameter.clone()  # zeros stay zeros
        optimizer.step()  # a fused one leaves the weights' version counters as they are
        output, said = quietly(lambda: net(IMAGES))
        assert "the weights were changed" in said[0]
        assert torch.equal(output, copy.deepcopy(net)(IMAGES))
        made.refresh()
        _, said = quietly(lambda: net(IMAGES))
    assert not said


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


def test_a_parametrization_put_on_later_runs_dense_and_outlives_restore() -> None:
    net = pruned()
    sc.make_permanent(net)
    made = accelerate(net)
    nn.utils.parametrize.register_parametrization(net[5], "weight", Doubled())
    with torch.no_grad():
        expected, _ = quietly(lambda: copy.deepcopy(net)(IMAGES))
        output, _ = quietly(lambda: net(IMAGES))
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
        made.restore()
        torch.testing.assert_close(net(IMAGES), expected, rtol=1e-5, atol=1e-6)
    nn.utils.parametrize.remove_parametrizations(net[5], "weight")
    assert type(net[5]) is nn.Linear


def test_an_example_that_the_model_changes_in_place_stays_as_it_is() -> None:
    net, rows = perceptron(nn.ReLU()), ROWS.clone()
    accelerate(nn.Sequential(nn.LeakyReLU(0.1, inplace=True), net), {"input": rows})
    assert torch.equal(rows, ROWS)


def test_sparse_and_nested_inputs_run_dense() -> None:
    net = perceptron()
    accelerate(net, ROWS)
    sparse = ROWS[0].to_sparse()
    nested = torch.nested.nested_tensor([ROWS[0], ROWS[1, :2]])
    with torch.no_grad():
        assert torch.equal(net[0](sparse), copy.deepcopy(net)[0](sparse))
        assert torch.equal(net(nested)[0], copy.deepcopy(net)(nested)[0])


@pytest.mark.parametrize("change", [torch.jit.script, lambda net: sc.gradient_prune(net, 0.5)])
def test_what_cannot_be_done_to_an_accelerated_model_is_refused(
    change: Callable[[nn.Module], object],
) -> None:
    net = pruned()
    accelerate(net)
    with pytest.raises(InvalidArgumentError, match=r"accelerated.*call restore\(\)"):
        change(net)


def test_refresh_measures_again() -> None:
    net = pruned()
    made = accelerate(net)
    sc.global_prune(net, 0.95, scope="layer")
    assert made.refresh() is made
    assert made.layers[2].zeros > 0.94
    with torch.no_grad():
        _, said = quietly(lambda: net(IMAGES))
    assert not said


def test_a_bias_is_read_anew() -> None:
    net = pruned()
    accelerate(net)
    with torch.no_grad():
        net[5].bias += 1
        before = copy.deepcopy(net)(IMAGES)
        torch.testing.assert_close(net(IMAGES), before, rtol=1e-5, atol=1e-6)


def test_another_shape_is_computed_dense_and_said_once() -> None:
    net = pruned()
    accelerate(net)
    others = torch.randn(3, 3, 6, 6)
    with torch.no_grad():
        output, said = quietly(lambda: net(others))
        assert torch.equal(output, copy.deepcopy(net)(others))
    assert len(said) == 1
    assert "(3, 3, 6, 6), and (2, 3, 6, 6) was measured" in said[0]


def test_a_list_holds_examples_of_several_shapes() -> None:
    net = pruned()
    made = accelerate(net, [IMAGES, IMAGES[:1]])
    assert len(made.layers) == 8
    assert len(made.seconds) == 2
    with torch.no_grad():
        _, said = quietly(lambda: net(IMAGES[:1]))
    assert not said


def dense_output(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return copy.deepcopy(net)(images)


@pytest.mark.parametrize(
    ("prepare", "images", "words"),
    [
        (lambda net: net.train(), IMAGES, "training mode"),
        (lambda net: net.double(), IMAGES.double(), "weights were changed, replaced or moved"),
        (lambda net: net.eval(), IMAGES, ""),
    ],
)
def test_a_model_that_runs_otherwise_falls_back(
    prepare: Callable[[nn.Module], object], images: torch.Tensor, words: str
) -> None:
    net = pruned()
    accelerate(net)
    prepare(net)
    with torch.no_grad():
        output, said = quietly(lambda: net(images))
    assert len(said) == bool(words)
    assert words in "".join(said)
    torch.testing.assert_close(output, dense_output(net, images), rtol=1e-5, atol=1e-6)


def test_gradients_flow_as_in_the_dense_model() -> None:
    net = pruned()
    accelerate(net)
    plain = copy.deepcopy(net)
    output, said = quietly(lambda: net(IMAGES))
    assert "gradients are needed" in said[0]
    output.sum().backward()
    plain(IMAGES).sum().backward()
    assert torch.equal(net[0].weight.grad, plain[0].weight.grad)


def test_autocast_and_threads_fall_back() -> None:
    net = pruned()
    accelerate(net)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output, said = quietly(lambda: net(IMAGES))
    assert output.dtype == torch.bfloat16
    assert "autocast" in said[0]
    other = accelerate(pruned(), threads=torch.get_num_threads() + 1)
    with torch.no_grad():
        _, said = quietly(lambda: other.model(IMAGES))
    assert "number of threads" in said[0]


def test_transforms_compute_dense() -> None:
    net = pruned()
    accelerate(net)
    with torch.no_grad():
        mapped, said = quietly(lambda: torch.func.vmap(net)(IMAGES[:, None]))
        assert not said
        torch.testing.assert_close(mapped[:, 0], net(IMAGES), rtol=1e-5, atol=1e-6)
        _, tangent = torch.func.jvp(net, (IMAGES,), (IMAGES,))
        assert tangent.shape == (2, 4)
        traced = torch.jit.trace(net, IMAGES)
        torch.testing.assert_close(traced(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-6)


def test_copies_and_pickles_are_of_the_plain_model() -> None:
    net = pruned()
    accelerate(net)
    for other in (copy.deepcopy(net), copy.copy(net[0]), pickle.loads(pickle.dumps(net))):
        assert not replaced(other)
    assert replaced(net)
    assert type(copy.deepcopy(net)[0]) is nn.Conv2d


def test_a_plan_is_saved_and_taken_without_a_clock(tmp_path: Path) -> None:
    net = pruned()
    made = accelerate(net)
    made.save(tmp_path / "plan.json")
    made.restore()

    def never(_: Functions) -> dict[str, float]:
        raise AssertionError

    again = accelerate(net, plan=tmp_path / "plan.json", measure=never)
    assert again.layers == made.layers
    assert again.seconds == made.seconds
    assert replaced(net) == ["0", "2", "4", "5"]


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ('"threads": "', '"threads": "7', "the plan was made for threads 7"),
        ('"torch": "', '"torch": "0.', "the plan was made for torch 0."),
        ("2x3x6x6", "9x3x6x6", "the plan was made for inputs of 9x3x6x6"),
        ('"name": "5"', '"name": "body.5"', "a layer body.5"),
        ('"zeros": 0.9', '"zeros": 0.5', "zeros in"),
    ],
)
def test_a_plan_of_something_else_is_refused(
    tmp_path: Path, find: str, put: str, words: str
) -> None:
    net = pruned()
    made = accelerate(net)
    path = tmp_path / "plan.json"
    made.save(path)
    made.restore()
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, put))
    with pytest.raises(InvalidArgumentError, match="leave plan out") as error:
        accelerate(net, plan=path)
    assert words in str(error.value)
    assert not replaced(net)


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 2}', "no"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(FailureError, match=r"plan\.json"):
        accelerate(pruned(), plan=tmp_path / "plan.json")


def test_the_report_has_a_line_for_each_layer(tmp_path: Path) -> None:
    made = accelerate(pruned())
    lines = str(made).splitlines()
    assert lines[0].split() == ["layer", "input", "zeros", "chosen", "dense", "us", "us", "gain"]
    assert lines[2].split() == ["2", "2x8x6x6", "90.6%", "csr", "1000000.0", "500000.0", "2.00x"]
    assert lines[-1] == "2x3x6x6: dense 1e+03 ms, accelerated 600 ms, 1.67x"
    assert repr(made) == "Acceleration(1.67x, 4 of 4 layers replaced)"
    made.to_csv(tmp_path / "layers.csv")
    written = (tmp_path / "layers.csv").read_text().splitlines()
    assert len(written) == 5
    assert written[0].startswith("layer,kind,input,zeros,calls,chosen,")


class Quantised(nn.Module):
    """Stands for a layer whose weights are packed integers."""


Quantised.__module__ = "torch.ao.nn.quantized.modules.linear"


def compiled_in_place() -> nn.Module:
    net = pruned()
    net.compile()
    return net


def gradient_pruned() -> nn.Module:
    net = network()
    sc.gradient_prune(net, 0.9)
    return net


def accelerated() -> nn.Module:
    net = pruned()
    accelerate(net)
    return net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (network, "no zeros to make use of: prune it first"),
        (nn.ReLU, "no zeros to make use of"),
        (lambda: torch.jit.script(pruned()), "scripted or traced: call accelerate before"),
        (lambda: torch.compile(pruned()), "is compiled"),
        (compiled_in_place, "is compiled"),
        (lambda: nn.Sequential(pruned(), Quantised()), "1 of the model is quantised"),
        (gradient_pruned, "pruned in its backward pass alone"),
        (lambda: sc.Diversified(network(), 0.5, 0.5, seed=0), "pruned afresh at every call"),
        (accelerated, "accelerated already"),
        (lambda: 3, "model must be a torch.nn.Module"),
    ],
)
def test_models_that_cannot_be_accelerated_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        accelerate(make())


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (torch.rand(2, 5, 6, 6), "the model does not take the example input (2x5x6x6): Given"),
        ([], "example_input must be what the model is called with"),
        ("x", "got str without a tensor"),
        ((IMAGES, IMAGES), "does not take the example input (2x3x6x6, 2x3x6x6)"),
    ],
)
def test_examples_that_do_not_fit_are_refused(example: object, words: str) -> None:
    net = pruned()
    with pytest.raises(InvalidArgumentError) as error:
        accelerate(net, example)
    assert words in str(error.value)
    assert not replaced(net)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"threads": 0}, "threads"), ({"margin": 2}, "margin"), ({"tolerance": -1}, "tolerance")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        accelerate(pruned(), **options)


def test_an_interruption_leaves_the_model_as_it_was() -> None:
    net = pruned()

    def stop(_: Functions) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accelerate(net, measure=stop)
    assert not replaced(net)


def test_arguments_may_be_given_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = pruned()

        def forward(self, *, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.body(images)}

    assert len(accelerate(Named(), {"images": IMAGES}).layers) == 4


class Viewed(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(-1)


def perceptron(*between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 9), *between, nn.Linear(9, 5)).eval()
    sc.global_prune(net, 0.7, scope="layer")
    return net


ROWS = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
TRANSPOSED = "csr, output transposed"
HANDED_ON = always({"dense": 1.0, "csr": 0.5, "accelerated": 0.6, TRANSPOSED: 0.5})


def test_outputs_are_handed_on_transposed_where_that_is_faster(tmp_path: Path) -> None:
    net = perceptron(nn.GELU())
    expected = net(ROWS)
    made = accelerate(net, ROWS, measure=HANDED_ON)
    assert [layer.chosen for layer in made.layers] == [TRANSPOSED, "csr"]
    assert made.speedup == 2
    with torch.no_grad():
        assert not net[0](ROWS).is_contiguous()
        assert net(ROWS).is_contiguous()
        torch.testing.assert_close(net(ROWS), expected, rtol=1e-5, atol=1e-6)
    made.save(tmp_path / "plan.json")
    made.restore()
    accelerate(net, ROWS, plan=tmp_path / "plan.json")
    with torch.no_grad():
        assert not net[0](ROWS).is_contiguous()
        torch.testing.assert_close(net(ROWS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "seconds"),
    [
        (perceptron(nn.GELU()), {TRANSPOSED: 0.7}),  # slower
        (perceptron(Viewed(), nn.Unflatten(0, (2, 3, 9))), {TRANSPOSED: 0.5}),  # does not work
    ],
)
def test_outputs_are_turned_where_that_is_better(net: nn.Module, seconds: dict[str, float]) -> None:
    times = {"dense": 1.0, "csr": 0.5, "accelerated": 0.6}
    made = accelerate(net, ROWS, measure=always({**times, **seconds}))
    assert [layer.chosen for layer in made.layers] == ["csr", "csr"]
    assert made.speedup == pytest.approx(1 / 0.6)
    with torch.no_grad():
        assert net[0](ROWS).is_contiguous()
