import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.mkldnn import to_mkldnn

import secateurs as sc
from secateurs import CoverageWarning, find_targets, sparsity
from secateurs.evaluation import sweep
from secateurs.parameters.coverage import grouped, percent
from secateurs.parameters.coverage_count import coverage_of
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.parameters.model_contents import ModelContents
from secateurs.surrogates import mup


class Own(nn.Module):
    """A linear layer that somebody wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(20, 20))


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(3, 20, 20))


class Experts(Stacked):
    """Known by its name."""


class Routed(nn.Module):
    """More router than experts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(20, 50, bias=False)
        self.experts = nn.ModuleList([nn.Linear(1, 1, bias=False)])


class Integers(nn.Module):
    """A quantised layer: bytes, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("packed", torch.ones(20, 20, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(20, 1))


def beside(part: nn.Module) -> nn.Module:
    """One layer that is found, and something else."""
    return nn.ModuleDict({"part": part, "fc": nn.Linear(4, 4, bias=False)})


def blocks() -> nn.Module:
    return nn.ModuleList([nn.ModuleDict({"mlp": Stacked()}) for _ in range(3)])


def tied(part: nn.Module, of: nn.Module) -> nn.Module:
    """As language models are: the embedding is the head's weight as well."""
    of.weight = part.weight
    return nn.ModuleDict({"wte": part, "lm_head": of})


# What competes, the advice, and how many weights compete if it is followed.
LOW: list[tuple[Callable[[], nn.Module], str, str, int]] = [
    (lambda: nn.Embedding(50, 20), r"part\.weight \(98%, Embedding\)", "'part.weight'", 1016),
    (lambda: nn.EmbeddingBag(50, 20), r"part\.weight \(98%, Emb", "'part.weight'", 1016),
    (lambda: nn.Bilinear(9, 9, 9), r"part\.weight \(97%, Bilinear\)", "'part.weight'", 745),
    (Own, r"part\.matrix \(96%, Own\)", "'part.matrix'", 416),
    (blocks, r"part\.\*\.mlp\.gate_up \(99\.6%, Sta", "'part.*.mlp.gate_up'", 3616),
    (lambda: nn.LSTMCell(4, 4), r"part.weight_ih \(36%, LSTMCell\)",
     "'part.weight_ih', 'part.weight_hh', 'part.bias_ih'", 160),
    (Routed, r"part\.gate\.weight \(98%, Linear, a router", "'part.gate.weight'", 1017),
    (lambda: tied(nn.Embedding(50, 20), nn.Linear(20, 50, bias=False)),
     r"part\.wte\.weight \(98%, Embedding tied to part\.lm_head\)", "'part.wte.weight'", 1016),
]  # fmt: skip


@pytest.mark.parametrize(("part", "largest", "glob", "after"), LOW)
@pytest.mark.parametrize(
    "function",
    [
        lambda m, **o: sc.select(m, 0.5, **o),
        lambda m, **o: sc.select_levels(m, [0.1, 0.5], **o),
        lambda m, **o: sc.global_prune(m, 0.5, **o),
        lambda m, **o: sc.Diversified(m, 0.5, 0.5, **o),
    ],
)
def test_low_coverage_is_one_warning_whose_advice_works(
    part: Callable[[], nn.Module],
    largest: str,
    glob: str,
    after: int,
    function: Callable[..., object],
) -> None:
    model = beside(part())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(model)
    (warning,) = caught
    assert warning.category is CoverageWarning
    assert warning.filename == __file__  # the caller's line, not one of ours
    text = str(warning.message)
    assert re.match(rf"only .*% of the model's weights compete .*\(1[67] of .*: {largest}", text)
    assert text.endswith(f"; to prune them too write include=['*', {glob}]")
    sc.restore(model)
    include = eval(text.rpartition("include=")[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(model, include=include)
    assert sum(t.parameter.numel() for t in find_targets(model, include=include)) == after


def recurrent() -> nn.Module:
    return beside(nn.ModuleDict({"rnn": nn.GRU(9, 9, 2), "table": nn.Embedding(9, 50)}))


BARRED: list[tuple[Callable[..., object], str, str]] = [
    (sc.global_prune, "", "'part.rnn.weight_ih_l*', 'part.rnn.weight_hh_l*', 'part.table.weight'"),
    (sc.gradient_prune,
     "; {rnn}, part.table.weight cannot be pruned in the backward pass alone", ""),
    (sc.Diversified, "; {rnn} cannot be pruned in a surrogate", "'part.table.weight'"),
    (lambda m, p, **o: sc.Diversified(m, p, 1.0, prune_type="gradient", **o),
     "; {rnn} cannot be pruned in a surrogate; part.table.weight cannot be pruned in the", ""),
    (lambda m, p, **o: sweep(m, [], p_prune=p, prune_type=["global", "gradient"], **o),
     "; {rnn}, part.table.weight cannot be pruned in the backward pass alone", ""),
]  # fmt: skip


@pytest.mark.parametrize(("function", "said", "include"), BARRED)
@pytest.mark.parametrize("layers", [None, "linear"])
def test_advice_leaves_out_what_gradient_pruning_or_surrogates_refuse(
    function: Callable[..., object], said: str, include: str, layers: str | None
) -> None:
    model = recurrent()
    with warnings.catch_warnings(record=True) as caught, suppress(sc.InvalidArgumentError):
        warnings.simplefilter("always")
        if function is sc.Diversified:
            function(model, 0.5, 0.5, layers=layers)
        else:
            function(model, 0.5, layers=layers)
    text = str(caught[0].message)
    rnn = "part.rnn.weight_ih_l*, part.rnn.weight_hh_l*"
    assert said.format(rnn=rnn) in text
    if layers and function is sc.global_prune:
        advice = "layers=['linear', 'recurrent'], include=['*', 'part.table.weight']"
    else:
        advice = f"include=['*', {include}]" if include else ""
    assert text.partition("; to prune them too write ")[2] == advice


def test_kinds_that_were_not_asked_for_are_advised_and_work() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 2), "moe": Experts(), "rnn": nn.LSTM(15, 15)})
    with pytest.warns(CoverageWarning) as caught:
        sc.select(model, 0.5, layers="conv")
    text = str(caught[0].message)
    assert text.endswith("write layers=['conv', 'experts', 'recurrent']")
    targets = find_targets(model, layers=eval(text.rpartition("layers=")[2]))
    names = ["conv.weight", "moe.gate_up", "rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert [target.name for target in targets] == names
    # Those that stay out of their kind are not: only their names bring them in.
    for part in (tied(nn.Embedding(9, 9), nn.Linear(9, 9, bias=False)), Routed()):
        with pytest.warns(CoverageWarning, match=r"too write include=\['\*', '1\..*weight'\]$"):
            sc.select(nn.Sequential(nn.Conv2d(1, 2, 2), part), 0.5, layers="conv")


def test_a_lazy_layer_is_said_to_be_unseen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.select(model, 0.5, exclude="1")
    assert sparsity(model, exclude="1").model_total == 20
    with pytest.warns(CoverageWarning, match="weights of a LazyLinear that has not run yet cannot"):
        sc.select(model.append(nn.Conv2d(9, 9, 3)), 0.5, layers="conv")


def test_gradient_pruning_and_each_sweep_warn_once() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.PReLU(100))
    model[2].forward = lambda x: x  # type: ignore[method-assign]
    data = [(torch.randn(4), i % 4) for i in range(4)]
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    for call in (
        lambda: sc.gradient_prune(model, 0.5),
        lambda: sweep(model, loader, p_prune=[0, 0.2, 0.5], granularity=["weight", "filter"],
                      score=["magnitude", "random"], draws=3),
        lambda: [mup(model, seed=1)(torch.randn(2, 4)) for _ in range(1)],
    ):  # fmt: skip
        sc.restore(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [w.category for w in caught] == [CoverageWarning]


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, True),
        ({"include": "*"}, True),
        ({"layers": "linear"}, True),
        ({"layers": "all"}, False),
        # Named, so known.
        ({"include": "fc"}, False),
        ({"include": ["*", "part"]}, False),
        ({"exclude": nn.Embedding}, False),
        ({"exclude": "part"}, False),
        ({"exclude": "part.0"}, True),
    ],
)
def test_weights_left_out_by_name_do_not_lower_the_coverage(
    options: dict[str, Any], warned: bool
) -> None:
    model = beside(nn.ModuleList([nn.Embedding(4, 4), nn.Embedding(50, 20)]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sc.select(model, 0.5, **options)
    assert [w.category for w in caught] == [CoverageWarning] * warned
    if options.get("exclude") == "part.0":
        assert "part.0" not in str(caught[0].message)


def test_layers_that_were_not_asked_for_are_named_as_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.Linear(20, 20, bias=False))
    with pytest.warns(CoverageWarning, match=r"write layers=\['conv2d', 'linear'\]$"):
        sc.select(model, 0.5, layers="conv2d")
    model.append(nn.Embedding(50, 10))
    words = r"layers=\[Conv2d, 'linear'\], include=\['\*', '2\.weight'\]$"
    with pytest.warns(CoverageWarning, match=words):
        sc.select(model, 0.5, layers=nn.Conv2d)


@pytest.mark.parametrize("models", [1, 5])
def test_ordinary_models_do_not_warn(models: int) -> None:
    blocks = [
        nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()) for _ in range(models)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.select(nn.Sequential(*blocks), 0.5)


def test_numbers_stored_as_integers_are_counted_but_not_offered() -> None:
    model = beside(Integers())
    words = r"part\.packed \(96%, Integers\).*; part\.packed cannot be pruned once quant"
    with pytest.warns(CoverageWarning, match=words) as caught:
        sc.select(model, 0.5)
    assert "include" not in str(caught[0].message)
    assert (sparsity(model).model_total, sparsity(model).total) == (416, 16)
    # A table of flags or indices is no weight.
    model.register_buffer("flags", torch.ones(99, 99, dtype=torch.uint8))
    model.register_buffer("places", torch.ones(99, 99, dtype=torch.int64))
    assert sparsity(model).model_total == 416


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated:UserWarning")
def test_layers_that_torch_quantised_are_counted() -> None:
    quantise = torch.ao.quantization.quantize_dynamic
    part = quantise(nn.Sequential(nn.Linear(20, 20), nn.LSTM(4, 4)), {nn.Linear, nn.LSTM})
    model = beside(part)
    words = r"\(16 of 416\).* part\.0 \(96%, quantised Linear\).*of a quantised LSTM cannot be seen"
    with pytest.warns(CoverageWarning, match=words):
        sc.select(model, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sc.select(model, 0.5, include="fc")
    with pytest.raises(sc.InvalidArgumentError, match=r"weights of 0, 1 are quantised.*before it"):
        sc.select(part, 0.5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_modules_whose_weights_cannot_be_counted_are_named() -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(8, 8)).eval()))
    with pytest.warns(CoverageWarning, match="weights of a frozen scripted module cannot be seen"):
        sc.select(beside(frozen), 0.5)
    packed = to_mkldnn(nn.Sequential(nn.Linear(8, 8)).eval())
    with pytest.warns(CoverageWarning, match=r"weights of a module of torch\.utils\.mkldnn cannot"):
        sc.select(beside(packed), 0.5)
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8)).eval())
    with pytest.warns(CoverageWarning, match=r"\(16 of 88\).*part\.0\.weight \(73%"):
        sc.select(beside(scripted), 0.5)
    # Of two biases, of which one could be pruned, no glob says that both cannot be.
    both = beside(torch.jit.script(nn.Sequential(nn.Linear(4, 4)).eval()))
    both.other = nn.BatchNorm1d(4)
    words = r"; each of part\.0\.weight, part\.0\.bias is inside a scripted"
    with pytest.warns(CoverageWarning, match=words):
        sc.select(both, 0.5)


@pytest.mark.parametrize("name", ["weight_scale", "weight_scaling_factor"])
def test_scales_are_never_advised(name: str) -> None:
    layer = nn.Linear(8, 8, bias=False)
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    layer.register_parameter(name, nn.Parameter(torch.ones(8, 8), requires_grad=False))
    model = nn.ModuleList([layer, nn.Embedding(10, 20)])
    with pytest.warns(CoverageWarning, match=r"include=\['\*', '1\.weight'\]$"):
        sc.select(model, 0.5, score="random", seed=0)


def test_a_tied_weight_counts_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(50, 20), "head": nn.Linear(20, 50, bias=False)})
    model["head"].weight = model["embed"].weight
    targets = find_targets(model, layers=nn.Linear)
    found = coverage_of(ModelContents(model), targets, LayerChoice(nn.Linear))
    assert (found.competing, found.total, found.share, found.left) == (1000, 1000, 1.0, ())


def test_sparsity_tells_the_coverage() -> None:
    model = beside(nn.Embedding(49, 4))
    counted = sparsity(sc.global_prune(model, 0.5, include="fc"), include="fc")
    assert (counted.ratio, counted.model_total) == (0.5, 212)
    assert counted.coverage == 16 / 212
    assert counted.overall == 8 / 212
    assert repr(counted) == (
        "Sparsity(ratio=0.5, zeros=8 of 16 in 1 parameter, overall=0.03774 of the model's 212)"
    )
    assert str(counted).splitlines()[-1].split() == ["whole", "model", "8", "212", "3.77%"]
    masks = sc.select(model, 0.5, include="fc").draw().table
    assert (masks.coverage, masks.overall, masks.model_total) == (1.0, 0.5, None)
    assert "whole model" not in str(masks)
    full = sparsity(nn.Linear(4, 4, bias=False))
    assert "whole model" not in str(full)


def test_tensors_of_a_file_are_grouped() -> None:
    sizes = {"l.0.a": 5, "l.0.b": 30, "l.1.a": 6, "l.1.b": 1}
    assert [(g.glob, g.elements) for g in grouped(sizes, ())] == [("l.*.a", 11), ("l.*.b", 31)]


def test_shares_in_percent() -> None:
    shares = (0, 0.0001, 0.00123, 0.012, 0.5, 0.996, 1)
    said = ["0%", "less than 0.1%", "0.1%", "1.2%", "50%", "99.6%", "100%"]
    assert list(map(percent, shares)) == said
