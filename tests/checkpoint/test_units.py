"""Units of stored tensors: where their outputs lie, and units whose elements lie apart."""

import re
from pathlib import Path

import pytest
import torch
from stored_models import DTYPES, assert_same, prune_in_small_blocks, to_file
from torch import nn

import secateurs as sc
from secateurs.checkpoint import load_checkpoint, plan_pruning, prune_checkpoint
from secateurs.checkpoint.contents import Entry
from secateurs.checkpoint.stored_units import Layouts


def unit(name: str, granularity: str, **shapes: tuple[int, ...]) -> tuple[int, int]:
    entries = [Entry(n.replace("__", "."), "F32", shape, 0, 0) for n, shape in shapes.items()]
    (entry,) = (entry for entry in entries if entry.name == name)
    return Layouts(entries).unit(entry, granularity)


@pytest.mark.parametrize(
    ("name", "shapes", "filters", "kernels"),
    [
        ("a.weight", {"a__weight": (4, 6)}, (6, 1), (1, 1)),
        ("a.weight", {"a__weight": (4, 6), "a__bias": (4,)}, (6, 1), (1, 1)),
        ("a.weight", {"a__weight": (4, 6), "a__bias": (6,)}, (4, 6), (1, 1)),
        ("a.weight", {"a__weight": (4, 6), "a__bias": (5,)}, (6, 1), (1, 1)),
        ("weight", {"weight": (4, 6), "bias": (6,)}, (4, 6), (1, 1)),
        # A square one, beside others of its name or none.
        ("x.a.weight", {"x__a__weight": (4, 4), "x__a__bias": (4,)}, (4, 1), (1, 1)),
        (
            "x.a.weight",
            {"x__a__weight": (4, 4), "y__a__weight": (4, 6), "y__a__bias": (6,)},
            (4, 4),
            (1, 1),
        ),
        (
            "x.a.weight",
            {
                "x__a__weight": (4, 4), "y__a__weight": (4, 6), "y__a__bias": (6,),
                "z__a__weight": (4, 6), "z__a__bias": (4,),
            },
            (4, 1),
            (1, 1),
        ),
        ("c.weight", {"c__weight": (4, 6, 3), "c__bias": (4,)}, (18, 1), (3, 1)),
        # Experts: told by the pair, by a bias, or taken for rows.
        (
            "experts.up",
            {"experts__up": (3, 4, 10), "experts__down": (3, 5, 4)},
            (4, 10),
            (1, 1),
        ),
        (
            "experts.down",
            {"experts__up": (3, 4, 8), "experts__down": (3, 4, 4)},
            (4, 4),
            (1, 1),
        ),
        (
            "experts.down",
            {"experts__up": (3, 10, 4), "experts__down": (3, 4, 5)},
            (5, 1),
            (1, 1),
        ),
        ("experts.w", {"experts__w": (3, 4, 5), "experts__w_bias": (3, 5)}, (4, 5), (1, 1)),
        ("experts.w", {"experts__w": (3, 4, 5), "experts__w_bias": (3, 4)}, (5, 1), (1, 1)),
        ("experts.w", {"experts__w": (3, 4, 5)}, (5, 1), (1, 1)),
        ("m.input_linear.weight", {"m__input_linear__weight": (3, 4, 5)}, (5, 1), (1, 1)),
        ("experts.0.weight", {"experts__0__weight": (3, 4, 5)}, (20, 1), (5, 1)),
    ],
)  # fmt: skip
def test_where_outputs_lie(name, shapes, filters, kernels) -> None:
    assert unit(name, "filter", **shapes) == filters
    assert unit(name, "kernel", **shapes) == kernels
    assert unit(name, "weight", **shapes) == (1, 1)


def test_what_a_file_does_not_say_is_said(tmp_path: Path) -> None:
    tensors = {"experts.w": torch.randn(3, 4, 5), "b.experts.0.w1.weight": torch.randn(4, 5)}
    source = to_file(tmp_path / "in.safetensors", tensors)
    for options, words in (
        ({}, []),
        ({"granularity": "filter"}, [r"outputs of 1 stacks .*experts\.w.*\(experts, out, in\)"]),
        (
            {"scope": "layer"},
            [r"each expert \(b\.experts\.0\.w1\.weight, \.\.\.\) is a separate layer"],
        ),
    ):
        notes = plan_pruning(source, 0.5, **options).notes
        assert len(notes) == len(words)
        assert all(re.search(word, note) for word, note in zip(words, notes, strict=True))


class SmallExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 9, 50))
        self.down_proj = nn.Parameter(torch.randn(3, 25, 9))


def network(dtype: torch.dtype) -> nn.Module:
    """Outputs in columns, fewer and more than a block has elements."""
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": conv1d(40, 12), "b": conv1d(5, 70), "experts": SmallExperts()})
    model["rows"] = nn.Linear(7, 9)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter.dim() > 1:
                values = nn.init.normal_(parameter).detach().to(dtype)
                module._parameters[name] = nn.Parameter(values, requires_grad=False)
    return model


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_pruned_as_those_of_the_model(tmp_path: Path, dtype) -> None:
    model = network(dtype)
    source = to_file(tmp_path / "in.safetensors", model.state_dict())
    output, small = tmp_path / "out.safetensors", tmp_path / "small.safetensors.zst"
    for options in (
        {"p_bern": 0.6, "seed": 1},
        {"scope": "layer"},
        {"score": "random", "seed": 2},
    ):
        options["granularity"] = "filter"
        found = prune_in_small_blocks(source, output, 0.4, **options)
        prune_in_small_blocks(source, small, 0.4, compress=True, **options)
        with sc.pruned(model, 0.4, **options):
            assert_same(load_checkpoint(output), model.state_dict())
            assert_same(load_checkpoint(small), model.state_dict())
            zeros = {layer.name: layer.zeros for layer in sc.sparsity(model)}
        if dtype.itemsize > 1:  # of 8 bits, some were zero before
            assert {weight.name: weight.pruned for weight in found.weights} == zeros


def test_experts_that_share_their_tensor_with_another_name(tmp_path: Path) -> None:
    up, down = torch.randn(2, 4, 12), torch.randn(2, 6, 4)  # (experts, in, out), by their shapes
    state = {"first": up, "m.experts.up": up, "m.experts.down": down}
    torch.save(state, tmp_path / "in.pt")
    shared = {"first": up, "m.experts.down": down}
    to_file(tmp_path / "in.safetensors", shared, {"m.experts.up": "first"})
    del state["first"]
    alone = to_file(tmp_path / "alone.safetensors", state)
    prune_checkpoint(alone, tmp_path / "expected.safetensors", 0.5, granularity="filter")
    expected = load_checkpoint(tmp_path / "expected.safetensors")
    for name in ("in.pt", "in.safetensors"):
        prune_checkpoint(tmp_path / name, tmp_path / f"out-{name}", 0.5, granularity="filter")
        found = load_checkpoint(tmp_path / f"out-{name}")
        assert torch.equal(found.pop("first"), expected["m.experts.up"])
        assert_same(found, expected)
