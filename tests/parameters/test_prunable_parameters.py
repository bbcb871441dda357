import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from helpers import Attention, Case, Tied, every_case
from secateurs import InvalidArgumentError, find_targets, global_prune, gradient_prune
from secateurs.parameters.layer_kinds import KINDS


def names(model: nn.Module, **options: object) -> list[str]:
    return [target.name for target in find_targets(model, **options)]  # type: ignore[arg-type]


def network() -> nn.Module:
    """One layer of every kind."""
    layers = {
        "conv1d": nn.Conv1d(1, 1, 1),
        "conv2d": nn.Conv2d(1, 1, 1),
        "conv3d": nn.Conv3d(1, 1, 1),
        "conv_transpose1d": nn.ConvTranspose1d(1, 1, 1),
        "conv_transpose2d": nn.ConvTranspose2d(1, 1, 1),
        "conv_transpose3d": nn.ConvTranspose3d(1, 1, 1),
        "linear": nn.Linear(2, 2),
        "attention": nn.MultiheadAttention(2, 1),
        "norm": nn.LayerNorm(2),
        "embed": nn.Embedding(3, 2),
    }
    model = nn.Module()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return model


@every_case
def test_by_default_every_convolution_linear_and_attention_weight_competes(case: Case) -> None:
    model = case.model()
    targets = find_targets(model)
    assert tuple(target.name for target in targets) == case.targets
    assert all(target.parameter is model.get_parameter(target.name) for target in targets)


def test_targets_come_in_the_order_of_named_parameters() -> None:
    model = network()
    assert names(model, layers="all") == [name for name, _ in model.named_parameters()]


def test_each_kind_picks_its_layers() -> None:
    model = network()
    for kind in ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"):
        assert names(model, layers=kind) == [f"{kind}.weight"]
    assert len(names(model, layers="conv")) == 6
    assert names(model, layers="attention") == [
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]
    assert names(model, layers=("conv3d", nn.Embedding)) == ["conv3d.weight", "embed.weight"]
    assert names(model, layers=nn.MultiheadAttention) == names(model, layers="attention")
    assert names(model, layers="default") == names(model)


def test_conv2d_takes_what_the_original_method_prunes_and_nothing_else() -> None:
    model = network()
    model.add_module("sub", type("Sub", (nn.Conv2d,), {})(1, 1, 1))
    assert names(model, layers="conv2d") == ["conv2d.weight", "sub.weight"]


def test_a_model_without_conv2d_is_fine() -> None:
    assert names(nn.Sequential(nn.Linear(2, 2))) == ["0.weight"]


def test_tied_and_shared_weights_count_once_with_all_their_places() -> None:
    model = Tied()
    first, body = find_targets(model, include=["*", "embed"])
    assert first.places == ((model.embed, "weight"), (model.head, "weight"))
    assert (first.module, first.attribute) == (model.embed, "weight")
    assert body.places == ((model.body, "weight"),)
    layer = nn.Linear(2, 2)
    (shared,) = find_targets(nn.ModuleDict({"a": layer, "b": layer}))
    assert (shared.name, shared.places) == ("a.weight", ((layer, "weight"),))


@pytest.mark.parametrize("pattern", ["head", "head.weight", "he*", "embed"])
def test_a_pattern_may_match_any_name_of_a_tied_weight(pattern: str) -> None:
    assert names(Tied(), include=pattern) == ["embed.weight"]
    assert names(Tied(), layers=nn.Linear, exclude=pattern) == ["body.weight"]


def test_a_pattern_may_match_any_name_of_a_shared_module() -> None:
    layer = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer, nn.Linear(2, 2))})
    assert names(model, include="b.0") == ["a.weight"]
    assert names(model, exclude="b.0") == ["b.1.weight"]


@pytest.mark.parametrize(
    ("include", "found"),
    [
        ("attention", ["attention.in_proj_weight", "attention.out_proj.weight"]),
        ("conv?d", ["conv1d.weight", "conv2d.weight", "conv3d.weight"]),
        ("conv2d.weight", ["conv2d.weight"]),
        (["linear", "conv1d"], ["conv1d.weight", "linear.weight"]),
        (nn.Linear, ["linear.weight", "attention.out_proj.weight"]),
        ((nn.Conv3d, "linear"), ["conv3d.weight", "linear.weight"]),
        # Names of what does not compete by default bring it in.
        ("norm", ["norm.weight", "norm.bias"]),
        ("norm.weight", ["norm.weight"]),
        ("*.bias", ["all the biases"]),
        ("embed", ["embed.weight"]),
        (nn.Embedding, ["embed.weight"]),
    ],
)
def test_include(include: object, found: list[str]) -> None:
    model = network()
    if include == "*.bias":
        found = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    assert names(model, include=include) == found


def test_the_default_and_one_more() -> None:
    model = network()
    both = names(model, include=["*", "embed.weight"])
    assert set(both) == {*names(model), "embed.weight"}


def test_include_stays_inside_layers_where_it_can() -> None:
    assert names(network(), layers="conv", include="conv*1d") == [
        "conv1d.weight",
        "conv_transpose1d.weight",
    ]


@pytest.mark.parametrize("exclude", ["conv*", ["conv?d", "conv_*"], KINDS["conv"]])
def test_exclude_is_applied_last(exclude: object) -> None:
    rest = ["linear.weight", "attention.in_proj_weight", "attention.out_proj.weight"]
    assert names(network(), exclude=exclude) == rest
    assert names(network(), include=["*", "embed"], exclude=exclude) == [*rest, "embed.weight"]


def test_integer_parameters_stay_out_of_all() -> None:
    model = nn.Linear(2, 2)
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    assert names(model, layers="all") == ["weight", "bias"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": "conv2"}, r"layers must be one of .*; got 'conv2'; did you mean conv2d"),
        ({"layers": ()}, r"layers is empty; write one of conv1d, .*, all$"),
        ({"layers": 3}, r"layers takes names and nn.Module types, got 3; write layers='conv2d' or"),
        ({"layers": int}, r"layers takes names and nn.Module types, got <class 'int'>"),
        ({"include": 3}, r"include takes names and nn.Module types, got 3"),
        ({"include": nn.Linear(1, 1)}, r"include takes names and nn.Module types, got Linear"),
        ({"include": ()}, r"include is empty; leave it out"),
        ({"include": "linaer"}, r"include='linaer' matches no parameter.*did you mean linear"),
        ({"include": ""}, r"include='' matches no parameter and no module with parameters \(model"),
        (
            {"exclude": "zzz"},
            r"exclude='zzz' matches no parameter and no module with parameters \(model",
        ),
        ({"include": nn.RNN}, "include: the model has no RNN with weights"),
        ({"exclude": nn.RNN}, "exclude: the model has no RNN with weights"),
        ({"layers": ["linear", nn.RNN]}, "layers: the model has no RNN with weights; leave it out"),
        ({"layers": [nn.LSTM, "all"]}, "layers: the model has no LSTM with weights; leave it out"),
        ({"layers": nn.Sequential}, "layers: the model has no Sequential with weights"),
        (
            {"layers": "linear", "exclude": "*"},
            r"nothing to prune with layers='linear', exclude='\*': exclude drops all that competes "
            r"\(linear.weight, .*\); narrow it",
        ),
    ],
)
def test_wrong_choices_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        names(network(), **options)


def test_a_module_without_parameters_is_not_proposed_in_its_own_place() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'7' matches .* with parameters \(model"):
        names(nn.Sequential(nn.Linear(2, 2), *(nn.ReLU() for _ in range(7))), include="7")


def test_a_type_whose_weights_have_other_names_says_how_to_name_them() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(2, 2))

    model = nn.Sequential(nn.Linear(2, 2), Own())
    words = r"layers: Own has no parameter called weight; name .* with include=\['\*', Own\]"
    with pytest.raises(InvalidArgumentError, match=words):
        find_targets(model, layers=["linear", Own])
    assert names(model, include=["*", Own]) == ["0.weight", "1.matrix"]


@pytest.mark.parametrize("layers", [None, "linear", "conv2d"])
def test_kinds_of_layers_that_are_proposed_pick_something(layers: str | None) -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    with pytest.raises(InvalidArgumentError, match=r"Embedding, Linear; .* by layers='all', or"):
        names(model, layers=layers)
    assert names(model, layers="all") == ["0.weight"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.ReLU()), "nothing to prune: the model has no parameters$"),
        (nn.Sequential(nn.LayerNorm(2)), "nothing to prune with the default layers: .* LayerNorm"),
        (nn.LazyLinear(2), "weight is not initialised yet: run one forward pass"),
        (nn.Linear(2, 2, device="meta"), "weight is on the meta device and has no values"),
        ([nn.Linear(2, 2)], "model must be a torch.nn.Module, got list"),
    ],
)
@pytest.mark.parametrize("function", [find_targets, lambda m: global_prune(m, 0.5)])
def test_models_that_cannot_be_pruned(model: nn.Module, words: str, function: object) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        function(model)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e8m0fnu])
def test_dtypes_that_cannot_be_pruned(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.ones(2, 2).to(dtype), requires_grad=False)
    with pytest.raises(InvalidArgumentError, match=rf"weight has dtype {dtype}.*exclude='weight'"):
        find_targets(model)


def computed_weights() -> list[nn.Module]:
    pruned = nn.Linear(2, 2)
    prune.l1_unstructured(pruned, "weight", 0.5)
    return [
        parametrizations.weight_norm(nn.Linear(2, 2)),
        parametrizations.spectral_norm(nn.Conv2d(1, 2, 2)),
        pruned,
    ]


@pytest.mark.parametrize("layer", computed_weights())
def test_a_computed_weight_is_refused_not_left_out(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 2), layer)
    words = r"1\.weight is not a parameter but computed .* exclude='1'"
    for function in (find_targets, lambda m: gradient_prune(m, 0.5)):
        with pytest.raises(InvalidArgumentError, match=words):
            function(model)
    for include in ("*", iter(["*"])):
        with pytest.raises(InvalidArgumentError, match=words):
            find_targets(model, include=include)
    assert names(model, exclude="1") == ["0.weight"]
    assert names(model, include="0") == ["0.weight"]


@pytest.mark.parametrize("where", ["in_proj_weight", "out_proj"])
@pytest.mark.parametrize("layers", [None, "attention", nn.MultiheadAttention])
def test_a_computed_attention_weight_is_refused_not_left_out(
    where: str, layers: str | None
) -> None:
    model = Attention()
    if where == "out_proj":
        parametrizations.weight_norm(model.attention.out_proj)
    else:
        parametrizations.weight_norm(model.attention, where)
    with pytest.raises(InvalidArgumentError, match=rf"attention\.{where}.* is not a parameter"):
        find_targets(model, layers=layers)


def test_which_parameters_are_convolutions_and_transposed() -> None:
    by_name = {target.name: target for target in find_targets(network(), layers="all")}
    assert by_name["conv_transpose2d.weight"].is_transposed
    assert by_name["conv2d.weight"].is_convolution
    assert not by_name["conv2d.weight"].is_transposed
    assert not by_name["conv2d.bias"].is_convolution
    assert not by_name["conv_transpose2d.bias"].is_transposed
    assert not by_name["linear.weight"].is_convolution
