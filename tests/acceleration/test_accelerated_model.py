"""`accelerate`: what it measures and chooses, its report and its plan."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from pruned_networks import (
    IMAGES,
    ROWS,
    accelerate,
    always,
    network,
    perceptron,
    pruned,
    quietly,
    replaced,
)
from torch import nn

import secateurs as sc
from secateurs.acceleration.stopwatch import Functions
from secateurs.errors import FailureError, InvalidArgumentError


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


@pytest.mark.parametrize(("progress", "said"), [(None, "Timing: 3 of 5 timings"), (False, "")])
def test_timing_that_takes_minutes_says_how_far_it_is(
    progress: bool | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def measure(functions: Functions) -> dict[str, float]:
        nonlocal now
        now += 25
        return dict.fromkeys(functions, 1.0)

    accelerate(pruned(), measure=measure, progress=progress)
    found = capsys.readouterr().err
    assert found.startswith(said) and bool(found) == bool(said)


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


def test_layers_that_the_example_does_not_call_are_named() -> None:
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()  # has a path of its own
    sc.global_prune(net, 0.9)
    made = accelerate(net, torch.rand(1, 3, 16))
    assert not made.layers
    assert made.left["linear1"] == "the example does not call it as a layer"
    assert "MultiheadAttention have no sparse kernel" in made.left["self_attn"]


def test_inputs_are_made_on_the_device_of_the_model() -> None:
    net = pruned()
    with torch.device("meta"):  # as torch.set_default_device
        accelerate(net)
    assert replaced(net)


class Growing(nn.Module):
    """Gives one tensor more at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.count = pruned(), 0

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.count += 1
        return [self.body(images)] * self.count


@dataclass
class Output:
    values: torch.Tensor


class Rounding(nn.Module):
    """Gives 0 where a value is not that of the dense model, and else 1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = pruned()
        with torch.no_grad():
            self.dense = self.body(IMAGES)

    def forward(self, images: torch.Tensor) -> Output:
        return Output((self.body(images) == self.dense).float())


class Strict(nn.Module):
    """Takes no other values, as `view` takes no other order in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Rounding()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not (values := self.body(images).values).all():
            raise RuntimeError
        return values


class Imaginary(nn.Module):
    """Gives the values of `Rounding` as the imaginary part of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Rounding()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.body(images).values
        return torch.complex(torch.ones_like(values), values)


def test_outputs_of_any_kind_are_compared() -> None:
    growing = Growing()
    accelerate(growing)
    assert not replaced(growing)
    for net, values in ((Rounding(), "values"), (Imaginary(), "imag"), (Strict(), "real")):
        accelerate(net)
        with torch.no_grad():
            assert getattr(net(IMAGES), values).all()


def test_zeros_in_plain_weights_count() -> None:
    net = pruned()
    sc.make_permanent(net)
    loaded = network()
    loaded.load_state_dict(net.state_dict())
    assert [layer.chosen for layer in accelerate(loaded).layers].count("csr") == 3


def test_an_example_that_the_model_changes_in_place_stays_as_it_is() -> None:
    net, rows = perceptron(nn.ReLU()), ROWS.clone()
    accelerate(nn.Sequential(nn.LeakyReLU(0.1, inplace=True), net), {"input": rows})
    assert torch.equal(rows, ROWS)


def test_refresh_measures_again() -> None:
    net = pruned()
    made = accelerate(net)
    sc.global_prune(net, 0.95, scope="layer")
    assert made.refresh() is made
    assert made.layers[2].zeros > 0.94
    with torch.no_grad():
        _, said = quietly(lambda: net(IMAGES))
    assert not said


def test_a_list_holds_examples_of_several_shapes() -> None:
    net = pruned()
    made = accelerate(net, [IMAGES, IMAGES[:1]])
    assert len(made.layers) == 8
    assert len(made.seconds) == 2
    with torch.no_grad():
        _, said = quietly(lambda: net(IMAGES[:1]))
    assert not said


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


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ('"csr": ', '"dcsr": ', "no seconds of csr"),
        ('"seconds": [', '"seconds": [[1, 2],', "other"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    tmp_path: Path, find: str, put: str, words: str
) -> None:
    made, path = accelerate(pruned()), tmp_path / "plan.json"
    made.save(path)
    path.write_text(path.read_text().replace(find, put))
    with pytest.raises(FailureError, match=f"no plan of this version of accelerate .*{words}"):
        accelerate(pruned(), plan=path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"format": 2}', "no"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(FailureError, match=r"plan\.json"):
        accelerate(pruned(), plan=tmp_path / "plan.json")


def test_a_plan_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = accelerate(pruned())
    made.save("~/plan.json")
    assert accelerate(pruned(), plan="~/plan.json").plan == made.plan
    with pytest.raises(InvalidArgumentError, match="plan must be a path as text, got 3"):
        accelerate(pruned(), plan=3)


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


def test_a_named_tuple_is_one_argument() -> None:
    class OfPacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = perceptron()

        def forward(self, packed: nn.utils.rnn.PackedSequence) -> torch.Tensor:
            return self.body(packed.data)

    packed = nn.utils.rnn.pack_sequence([ROWS[0], ROWS[1, :2]])
    assert len(accelerate(OfPacked(), packed).layers) == 2


class Viewed(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(-1)


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
