"""Gradient pruning of attention, against attention written out with straight-through linears."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from attention_cases import (
    BIAS,
    EMBED,
    HEADS,
    PADDING,
    ByHand,
    Case,
    attention,
    every_case,
    gradients_of,
    inputs,
    run,
)
from backward_cases import StraightThrough, close, draw
from secateurs.masks.granularity import Units


@every_case
@pytest.mark.parametrize("granularity", ["weight", "filter"])
@pytest.mark.parametrize("training", [True, False])
def test_attention(case: Case, granularity: str, training: bool) -> None:
    model, given = attention(case).train(training), inputs(case)
    masks = draw(model, granularity=granularity, include=case.include)
    dense = copy.deepcopy(model)
    reference = ByHand(copy.deepcopy(model), dict(masks))
    expected, expected_weights = reference(
        *given, case.call.get("attn_mask"), case.call.get("key_padding_mask")
    )
    output, weights = run(sc.apply_masks(model, masks, "gradient"), case, given)
    assert torch.equal(output, run(dense, case, given)[0])
    torch.testing.assert_close(output, expected)
    if weights is not None:
        assert torch.equal(weights, run(dense, case, given)[1])
        torch.testing.assert_close(weights, expected_weights)
    close(gradients_of(output, model, given), gradients_of(expected, reference, given))


@every_case
def test_the_forward_pass_is_dense_bit_for_bit(case: Case) -> None:
    model, given = attention(case, torch.float32).eval(), inputs(case, torch.float32)
    if isinstance(case.call.get("attn_mask"), Tensor) and case.call["attn_mask"] is BIAS:
        case = Case(case.name, call=case.call | {"attn_mask": BIAS.float()})
    pruned = sc.gradient_prune(copy.deepcopy(model), 0.5, include=case.include)
    frozen = [t.detach() for t in given]
    if given[0] is given[2]:
        frozen = [frozen[0]] * 3
    for tensors in (given, frozen):
        assert torch.equal(run(pruned, case, tensors)[0], run(model, case, tensors)[0])
        with torch.no_grad():  # the fast path, where torch has one
            assert torch.equal(run(pruned, case, tensors)[0], run(model, case, tensors)[0])
        if not case.options.get("kdim"):
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(run(pruned, case, tensors)[0], run(model, case, tensors)[0])


def test_a_mask_over_whole_columns_is_spread_before_the_weight_is_split() -> None:
    case = Case("three", inputs="three")
    model, given = attention(case), inputs(case)
    keep = torch.arange(EMBED).remainder(2).bool()[None]
    shape = (3 * EMBED, EMBED)
    columns = sc.Masks({"in_proj_weight": sc.Mask(keep, Units(shape, shape, (1, EMBED)))})
    whole = sc.Masks.from_tensors({"in_proj_weight": keep.expand(shape)})
    found, expected = (
        gradients_of(run(sc.apply_masks(model, masks, "gradient"), case, given)[0], model, given)
        for masks in (columns, whole)
    )
    close(found, expected)


def test_one_sequence_without_a_batch() -> None:
    case = Case("unbatched")
    model, given = attention(case), [inputs(case)[0].detach()[0].requires_grad_()] * 3
    masks = draw(model)
    reference = ByHand(copy.deepcopy(model), dict(masks))
    output, _ = sc.apply_masks(model, masks, "gradient")(*given, need_weights=False)
    expected = reference(*(g.unsqueeze(0) for g in given))[0].squeeze(0)
    torch.testing.assert_close(output, expected)
    close(gradients_of(output, model, given), gradients_of(expected, reference, given))


def test_under_a_default_device() -> None:
    """That is a function mode too, and torch's attention calls itself under one."""
    case = Case("self")
    model, given = attention(case), inputs(case)
    sc.gradient_prune(model, 0.5)
    expected = gradients_of(run(model, case, given)[0], model, given)
    with torch.device("cpu"):
        found = gradients_of(run(model, case, given)[0], model, given)
    assert all(map(torch.equal, found, expected))


def test_a_weight_that_is_exchanged_on_the_way() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = attention(Case("self"))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x, need_weights=False)[0]

    model, x = Outer(), inputs(Case("self"))[0]
    sc.gradient_prune(model, 0.5)
    (expected,) = torch.autograd.grad(model(x).sum(), x)
    out = model.inner.out_proj
    fresh = nn.Parameter(out.weight.detach().clone())
    model.inner.register_forward_pre_hook(lambda *_: setattr(out, "weight", fresh))
    (found,) = torch.autograd.grad(model(x).sum(), x)
    assert torch.equal(found, expected)


def encoder_layer(dtype: torch.dtype, **options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    options = {"batch_first": True, "dropout": 0.0} | options
    return nn.TransformerEncoderLayer(EMBED, HEADS, 12, **options).to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("wanted", ["all", "input", "parameters"])
def test_an_encoder_layer(training: bool, norm_first: bool, wanted: str) -> None:
    """Also frozen, and as the first layer of a network, whose input needs no gradient."""
    model = encoder_layer(torch.float64, norm_first=norm_first).train(training)
    model.requires_grad_(wanted != "input")
    masks = draw(model)
    reference = copy.deepcopy(model)
    prefix = "self_attn."
    own = {n.removeprefix(prefix): masks[n] for n in masks if n.startswith(prefix)}
    reference.self_attn = ByHand(reference.self_attn, own)
    for name in ("linear1", "linear2"):
        layer = StraightThrough(reference.get_submodule(name), {"weight": masks[f"{name}.weight"]})
        setattr(reference, name, layer)
    x = inputs(Case("self"))[0].detach().requires_grad_(wanted != "parameters")
    given = [x] if x.requires_grad else []
    output = sc.apply_masks(model, masks, "gradient")(x, src_key_padding_mask=PADDING)
    expected = reference(x, src_key_padding_mask=PADDING)
    torch.testing.assert_close(output, expected)
    close(gradients_of(output, model, given), gradients_of(expected, reference, given))


@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"norm_first": True}])
@pytest.mark.parametrize("padded", [False, True])
def test_the_fast_path_is_taken_where_the_dense_encoder_takes_it(
    options: dict[str, Any], padded: bool
) -> None:
    """Torch has one, with other rounding, in eval mode where no gradient is wanted."""
    layer = encoder_layer(torch.float32, **options)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options)
    dense = nn.Sequential(nn.Linear(EMBED, EMBED), encoder).eval()
    x = inputs(Case("self"), torch.float32)[0]
    call = {"src_key_padding_mask": PADDING} if padded and not options else {}
    pruned = sc.gradient_prune(copy.deepcopy(dense), 0.5)
    for frozen in (False, True):
        for model in (dense, pruned):
            model[1].requires_grad_(not frozen)
        for given in (x, x.detach()):
            assert torch.equal(pruned[1](given, **call), dense[1](given, **call))
            with torch.no_grad():
                assert torch.equal(pruned[1](given, **call), dense[1](given, **call))


@pytest.mark.parametrize("exclude", [None, "body.*"])
def test_the_fast_path_of_a_frozen_part_of_a_trained_model(exclude: str | None) -> None:
    class Probe(nn.Module):
        """A classifier on frozen features: the head wants gradients, the body does not."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.TransformerEncoder(encoder_layer(torch.float32), 2)
            self.head = nn.Linear(EMBED, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x, src_key_padding_mask=PADDING))

    torch.manual_seed(0)
    dense = Probe().eval()
    dense.body.requires_grad_(False)
    pruned = sc.gradient_prune(copy.deepcopy(dense), 0.5, exclude=exclude)
    x = inputs(Case("self"), torch.float32)[0].detach()
    assert torch.equal(pruned(x), dense(x))
    assert pruned(x).requires_grad
