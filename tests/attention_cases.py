"""Attention to prune, and attention written out with straight-through linears."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from backward_cases import straight_through, trained, upstream

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
