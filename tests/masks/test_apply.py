"""Masks on a model, and the original bits back."""

import copy
import warnings

import pytest
import torch
from torch import nn

import reference
import secateurs as sc
from helpers import (
    DTYPES,
    Case,
    Tied,
    assert_same,
    bits,
    every_case,
    every_granularity,
    flags,
    snapshot,
)
from secateurs import (
    InvalidArgumentError,
    Masks,
    apply_masks,
    find_targets,
    global_prune,
    make_permanent,
    restore,
    select,
    sparsity,
)
from secateurs._tensors.multiply import Product, multiply
from secateurs.masks import apply
from secateurs.originals import restore_weights
from secateurs.originals.restore_weights import copy_bits


def half_of(case: Case, model: nn.Module, granularity: str = "weight") -> Masks:
    return select(model, 0.5, granularity=granularity).draw()


@every_case
@every_granularity
def test_pruned_weights_are_those_of_the_oracle(case: Case, granularity: str) -> None:
    model = case.model()
    weights, before = case.weights(model), snapshot(model)
    candidates = select(model, 0.5, granularity=granularity)
    apply_masks(model, candidates.draw())
    for name, weight in weights.items():
        found = model.get_parameter(name).double().reshape(-1).tolist()
        assert found == reference.pruned(weight, granularity, flags(candidates.chosen[name]))
    for name, value in snapshot(model).items():  # biases, norms, buffers
        assert name.endswith(("weight", "proj")) or torch.equal(value, before[name])


@every_case
@every_granularity
def test_restored_bit_for_bit_once_and_twice(case: Case, granularity: str) -> None:
    model = case.model()
    before, output = snapshot(model), case.run(model)
    apply_masks(model, half_of(case, model, granularity))
    assert not torch.equal(case.run(model), output)
    for _ in range(2):
        assert restore(model) is model
        assert_same(snapshot(model), before)
        assert torch.equal(case.run(model), output)
        assert not hasattr(model, "weight_orig")
        assert all("_orig" not in name for name, _ in model.named_buffers())


@every_case
def test_every_pruned_parameter_has_a_weight_orig(case: Case) -> None:
    model = case.model()
    originals = {t.name: bits(t.parameter) for t in find_targets(model)}
    apply_masks(model, half_of(case, model))
    for target in find_targets(model):
        for module, attribute in target.places:
            original = getattr(module, attribute + "_orig")
            assert not isinstance(original, nn.Parameter)
            assert torch.equal(bits(original), originals[target.name])
            assert torch.equal(bits(target.weight), originals[target.name])


def test_weight_orig_takes_the_parameter_s_name() -> None:
    model = nn.MultiheadAttention(4, 2, kdim=3)
    global_prune(model, 0.5, layers="all")
    for name in ("in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
        assert hasattr(model, name + "_orig")
    assert hasattr(model.out_proj, "bias_orig")
    packed = global_prune(nn.MultiheadAttention(4, 2), 0.5)
    assert packed.in_proj_weight_orig.shape == packed.in_proj_weight.shape


@every_case
def test_by_hand(case: Case) -> None:
    """``module.weight = nn.Parameter(module.weight_orig.clone())`` restores a weight."""
    model = case.model()
    before, output = snapshot(model), case.run(model)
    apply_masks(model, half_of(case, model))
    for target in find_targets(model):
        fresh = nn.Parameter(getattr(target.module, target.attribute + "_orig").clone())
        for module, attribute in target.places:
            setattr(module, attribute, fresh)
    torch.testing.assert_close(case.run(model), output)  # a clone may lie otherwise in memory
    restore(model)
    assert_same(snapshot(model), before)
    assert all("_orig" not in name for name, _ in model.named_buffers())


@every_case
@pytest.mark.parametrize("dtype", [torch.half, torch.double, torch.bfloat16])
def test_originals_follow_a_change_of_dtype(case: Case, dtype: torch.dtype) -> None:
    """The original code's weight_orig stayed behind at ``.half()``."""
    model = apply_masks(case.model(), half_of(case, case.model())).to(dtype)
    expected = case.model().to(dtype)
    for target in find_targets(model):
        assert getattr(target.module, target.attribute + "_orig").dtype == dtype
    restore(model)
    assert_same(snapshot(model), snapshot(expected))


def test_originals_follow_half_double_and_a_device() -> None:
    for change in (nn.Module.half, nn.Module.double, lambda m: m.to("meta")):
        model = change(global_prune(nn.Linear(4, 4), 0.5))
        assert model.weight_orig.dtype == model.weight.dtype
        assert model.weight_orig.device == model.weight.device
        assert restore(model) is model


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_odd_values_survive(dtype: torch.dtype) -> None:
    """NaN of any payload, both zeros, infinities, denormals: kept or restored as they were."""
    size = torch.empty(0, dtype=dtype).element_size()
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (4096 * size,), dtype=torch.uint8, generator=generator)
    values[:size] = 255  # a NaN in most formats
    values[size : 2 * size] = 0
    values[2 * size - 1] = 128  # the sign bit alone
    model = nn.Linear(64, 64, bias=False)
    model.weight = nn.Parameter(values.view(integer).view(dtype).reshape(64, 64))
    before = bits(model.weight)
    keep = torch.rand(64, 64, generator=generator) < 0.5
    apply_masks(model, Masks.from_tensors({"weight": keep}))
    zero = torch.zeros((), dtype=dtype)
    expected = torch.where(keep.reshape(-1, 1), before.view(-1, size), bits(zero).view(1, size))
    assert torch.equal(bits(model.weight), expected.reshape(-1))
    restore(model)
    assert torch.equal(bits(model.weight), before)


def test_masks_replace_masks_and_start_from_the_originals() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = snapshot(model)
    both, first = select(model, 0.75).draw(), select(model, 0.5, include="0").draw()
    apply_masks(apply_masks(model, both), first)
    assert torch.equal(model[0].weight, model[0].weight_orig * first["0.weight"])
    assert torch.equal(bits(model[1].weight), before["1.weight"])
    assert not hasattr(model[1], "weight_orig")
    assert_same(snapshot(restore(model)), before)


def test_tied_and_shared_weights_are_pruned_once() -> None:
    model, options = Tied(), {"include": ["*", "embed"]}
    global_prune(model, 0.5, **options)
    assert model.head.weight is model.embed.weight
    assert sparsity(model, **options)["embed.weight"].zeros > 0
    assert torch.equal(model.head.weight_orig, model.embed.weight_orig)
    model.half()
    restore(model)
    assert not hasattr(model.head, "weight_orig")
    assert not hasattr(model.embed, "weight_orig")


def test_expanded_and_overlapping_weights_are_refused_untouched() -> None:
    for weight in (torch.randn(4).expand(3, 4), torch.randn(6).unfold(0, 4, 1)):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
        model[1].weight = nn.Parameter(weight)
        before = snapshot(model)
        with pytest.raises(
            InvalidArgumentError,
            match=r"elements of 1\.weight share memory.*replace it by nn\.Parameter",
        ):
            global_prune(model, 0.5)
        assert_same(snapshot(model), before)
        assert not list(model.buffers())


def test_weights_with_gaps_are_not_mistaken_for_overlapping_ones() -> None:
    base = torch.randn(1000)
    dense = [((3, 4), strides) for strides in ((8, 1), (1, 8), (2, 30), (100, 7))]
    for shape, strides in (*dense, ((4, 1), (1, 2)), ((1, 4), (0, 1)), ((4, 1), (3, 0))):
        model = nn.Linear(shape[1], shape[0])
        model.weight = nn.Parameter(base.as_strided(shape, strides))
        rest = base.clone()
        assert sparsity(global_prune(model, 0.5)).ratio == 0.5
        restore(model)
        assert torch.equal(base, rest)


def test_a_buffer_of_the_model_s_own_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].register_buffer("weight_orig", torch.zeros(2, 2))
    before = snapshot(model)
    for function in (restore, make_permanent, lambda m: global_prune(m, 0.5, exclude="1")):
        function(model)
        assert_same(snapshot(restore(model)), before)
    with pytest.raises(InvalidArgumentError, match=r"1\.weight cannot be pruned.* weight_orig"):
        global_prune(model, 0.5)
    assert_same(snapshot(model), before)
    assert not hasattr(model[0], "weight_orig")


def test_an_attribute_of_the_model_s_own_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight_orig = "mine"
    before = snapshot(model)
    with pytest.raises(InvalidArgumentError, match="already has an attribute weight_orig"):
        global_prune(model, 0.5)
    assert_same(snapshot(model), before)
    assert not hasattr(model[0], "weight_orig")


def test_in_and_around_inference_mode() -> None:
    model = nn.Linear(4, 4)
    before = snapshot(model)
    with torch.inference_mode():
        global_prune(model, 0.5)
    global_prune(model, 0.25)
    model(torch.ones(4)).sum().backward()
    assert_same(snapshot(restore(copy.deepcopy(model))), before)
    assert_same(snapshot(restore(model)), before)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.ones(4, 4, dtype=torch.int64), "dtype torch.int64, which cannot be pruned"),
        (torch.ones(4, 4, dtype=torch.complex128), "dtype torch.complex128"),
        (torch.ones(4, 4).to(torch.float8_e8m0fnu), "with a zero can"),  # it would become 2^-127
        (torch.eye(4).to_sparse(), "has the sparse layout torch.sparse_coo"),
        (torch.eye(4).to_sparse_csr(), "has the sparse layout torch.sparse_csr"),
        (torch.ones(4, 4, device="meta"), "is on the meta device and has no values"),
    ],
)
def test_masks_for_what_cannot_be_pruned(weight: torch.Tensor, words: str) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(weight, requires_grad=False)
    masks = Masks.from_tensors({"weight": torch.eye(4, dtype=torch.bool)})
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        apply_masks(model, masks)
    assert "exclude" not in str(caught.value)
    assert not hasattr(model, "weight_orig")


def test_a_restore_in_inference_mode_is_seen_by_a_pending_backward_pass() -> None:
    model = global_prune(nn.Linear(4, 4), 0.5)
    output = model(torch.ones(1, 4, requires_grad=True))
    with torch.inference_mode():
        restore(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_originals_saved_in_inference_mode_take_part_in_autograd() -> None:
    model = nn.Linear(4, 4)
    with torch.inference_mode():
        global_prune(model, 0.5)
    (model.weight * model.weight_orig).sum().backward()
    assert torch.equal(model.weight.grad, model.weight_orig)


@pytest.mark.parametrize("include", [None, "0"])
@pytest.mark.parametrize("prior", ["dense", "pruned", "repaired"])
def test_an_interrupt_while_weights_are_written_loses_nothing(
    prior: str, include: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    dense = snapshot(model)
    if prior != "dense":
        global_prune(model, 0.2)
    if prior == "repaired":
        sc.repair(model, torch.rand(16, 8), ["reconstruct"])
    before = snapshot(model)

    def interrupted(products: list[Product]) -> None:
        multiply(products[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(apply, "multiply", interrupted)
        global_prune(model, 0.9, include=include)
    assert_same(snapshot(model), before)
    with warnings.catch_warnings(action="error"):  # nothing was trained
        assert select(model, 0.5) == select(restore(copy.deepcopy(model)), 0.5)
        assert_same(snapshot(restore(copy.deepcopy(model))), dense)
        if prior == "dense":  # what is trained from now on stays
            nn.init.ones_(model[0].weight)
            assert restore(model)[0].weight.eq(1).all()


def test_an_interrupt_while_weights_are_released_releases_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    dense = snapshot(model)
    global_prune(model, 0.5)

    def interrupted(parameter: torch.Tensor, values: torch.Tensor) -> None:
        patch.undo()
        copy_bits(parameter, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(restore_weights, "copy_bits", interrupted)
        global_prune(model, 0.5, include="0")
    assert model[0].weight.eq(0).sum() == 32
    assert [hasattr(layer, "weight_orig") for layer in model] == [True, False, False]
    assert_same(snapshot(restore(model)), dense)
