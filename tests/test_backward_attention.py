"""Gradient pruning of attention, against attention written out with straight-through linears."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from backward_cases import StraightThrough, close, draw, straight_through, trained, upstream

EMBED, HEADS, LENGTH, MEMORY, BATCH = 8, 2, 4, 5, 3


def ones(mha: nn.MultiheadAttention, masks: dict[str, Tensor], name: str) -> Tensor:
    return masks.get(name, torch.ones_like(mha.get_parameter(name), dtype=torch.bool))


class ByHand(nn.Module):
    """`nn.MultiheadAttention` as its formula, for inputs (batch, length, features)."""

    def __init__(self, mha: nn.MultiheadAttention, masks: dict[str, Tensor]):
        super().__init__()
        self.mha, self.masks, self.batch_first = mha, masks, False  # False: no fast path here

    def projections(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        mha, biases = self.mha, [None] * 3
        if mha.in_proj_bias is not None:
            biases = mha.in_proj_bias.chunk(3)
        if mha.in_proj_weight is None:
            names = [f"{x}_proj_weight" for x in "qkv"]
            weights = [mha.get_parameter(name) for name in names]
            keeps = [ones(mha, self.masks, name) for name in names]
        else:
            weights = mha.in_proj_weight.chunk(3)
            keeps = ones(mha, self.masks, "in_proj_weight").chunk(3)
        return list(zip(weights, keeps, biases, strict=True))

    def heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.mha.num_heads, -1)).transpose(1, 2)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        mha = self.mha
        triples = zip((query, key, value), self.projections(), strict=True)
        q, k, v = (straight_through(x, *projection) for x, projection in triples)
        scores_mask = torch.zeros(len(q), 1, q.shape[1], k.shape[1], dtype=q.dtype)
        if attn_mask is not None:
            scores_mask = scores_mask + _added(attn_mask, q)
        if key_padding_mask is not None:
            scores_mask = scores_mask + _added(key_padding_mask, q)[:, None, None]
        if mha.bias_k is not None:
            k = torch.cat([k, mha.bias_k.expand(len(k), 1, -1)], 1)
            v = torch.cat([v, mha.bias_v.expand(len(v), 1, -1)], 1)
        if mha.add_zero_attn:
            k, v = (torch.cat([x, torch.zeros_like(x[:, :1])], 1) for x in (k, v))
        scores_mask = nn.functional.pad(scores_mask, (0, k.shape[1] - scores_mask.shape[-1]))
        q, k, v = map(self.heads, (q, k, v))
        attention = (q @ k.mT / math.sqrt(q.shape[-1]) + scores_mask).softmax(-1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        out = mha.out_proj
        keep = ones(mha, self.masks, "out_proj.weight")
        return straight_through(mixed, out.weight, keep, out.bias), attention.mean(1)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """What is added to the scores: the mask itself, or minus infinity where it is True."""
    if mask.is_floating_point():
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype).masked_fill(mask, -math.inf)


@dataclass(frozen=True)
class Case:
    """How the attention is built, which of its inputs are one tensor, and what it is told."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    inputs: str = "self"
    call: dict[str, Any] = field(default_factory=dict)
    include: str | list[str] | None = None


CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
PADDING = torch.arange(LENGTH) >= torch.tensor([[4], [2], [3]])
BIAS = torch.linspace(-1, 1, LENGTH * LENGTH, dtype=torch.float64).view(LENGTH, LENGTH)
CASES = [
    Case("self"),
    Case("self-batch-second", {"batch_first": False}),
    Case("weights", call={"need_weights": True}),
    Case("weights-per-head-off", {"bias": False}, call={"need_weights": True}),
    Case("no-bias", {"bias": False}),
    Case("one-head", {"num_heads": 1}),
    Case("bool-mask", call={"attn_mask": CAUSAL}),
    Case("causal", call={"attn_mask": CAUSAL, "is_causal": True}),
    Case("float-mask", call={"attn_mask": BIAS, "need_weights": True}),
    Case("padding", call={"key_padding_mask": PADDING}),
    Case("both-masks", call={"attn_mask": CAUSAL, "key_padding_mask": PADDING}),
    Case("bias-kv", {"add_bias_kv": True}, call={"attn_mask": CAUSAL}),
    Case("zero", {"add_zero_attn": True}, call={"need_weights": True}),
    Case("memory", inputs="memory"),
    Case("memory-batch-second", {"batch_first": False}, "memory", {"need_weights": True}),
    Case("three", inputs="three"),
    Case("separate", {"kdim": 3, "vdim": 6}, "separate"),
    Case("separate-all", {"kdim": 3, "vdim": 6, "add_bias_kv": True, "add_zero_attn": True,
                          "batch_first": False}, "separate", {"need_weights": True}),
    Case("in-only", include="*in_proj_weight"),
    Case("out-only", include="*out_proj.weight"),
    Case("out-only-memory", inputs="memory", include="*out_proj.weight"),
    Case("key-only", {"kdim": 3, "vdim": 6}, "separate", include="k_proj_weight"),
]  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def attention(case: Case, dtype: torch.dtype = torch.float64) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    options = {"num_heads": HEADS, "batch_first": True} | case.options
    model = nn.MultiheadAttention(EMBED, **options)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    return model.to(dtype)


def inputs(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key and value as (batch, length, features), some of them the same tensor."""
    torch.manual_seed(1)
    sizes = {"kdim": EMBED, "vdim": EMBED} | case.options
    x = torch.randn(BATCH, LENGTH, EMBED, dtype=dtype, requires_grad=True)
    key = torch.randn(BATCH, MEMORY, sizes["kdim"], dtype=dtype, requires_grad=True)
    value = torch.randn(BATCH, MEMORY, sizes["vdim"], dtype=dtype, requires_grad=True)
    same = {"self": [x, x, x], "memory": [x, key, key]}
    return same.get(case.inputs, [x, key, value])


def run(model: nn.MultiheadAttention, case: Case, given: list[Tensor]) -> tuple[Tensor, Any]:
    call = {"need_weights": False} | case.call
    if model.batch_first:
        return model(*given, **call)
    turned: dict[int, Tensor] = {}  # the same tensors stay the same
    given = [turned.setdefault(id(t), t.transpose(0, 1)) for t in given]
    output, weights = model(*given, **call)
    return output.transpose(0, 1), weights


def gradients_of(output: Tensor, model: nn.Module, given: list[Tensor]) -> list[Tensor]:
    wanted = [*{id(t): t for t in given}.values(), *trained(model)]
    return list(torch.autograd.grad(output, wanted, upstream(output)))


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


def encoder_layer(dtype: torch.dtype, **options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    options = {"batch_first": True, "dropout": 0.0} | options
    return nn.TransformerEncoderLayer(EMBED, HEADS, 12, **options).to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_layer(training: bool, norm_first: bool) -> None:
    model = encoder_layer(torch.float64, norm_first=norm_first).train(training)
    masks = draw(model)
    reference = copy.deepcopy(model)
    prefix = "self_attn."
    own = {n.removeprefix(prefix): masks[n] for n in masks if n.startswith(prefix)}
    reference.self_attn = ByHand(reference.self_attn, own)
    for name in ("linear1", "linear2"):
        layer = StraightThrough(reference.get_submodule(name), {"weight": masks[f"{name}.weight"]})
        setattr(reference, name, layer)
    given = [inputs(Case("self"))[0]]
    output = sc.apply_masks(model, masks, "gradient")(given[0], src_key_padding_mask=PADDING)
    expected = reference(given[0], src_key_padding_mask=PADDING)
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
