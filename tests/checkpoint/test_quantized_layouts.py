"""Scales of weights whose outputs lie in columns, and of stacked experts."""

from pathlib import Path

import pytest
import torch
from stored_models import PRUNES, to_file

import secateurs as sc
from secateurs.checkpoint import prune_checkpoint

FP8 = torch.float8_e4m3fn
OUT_IN, IN_OUT = (3, 40, 24), (3, 24, 40)

# The weight's name and shape, what else shows its layout, and the shape of the scale as it is
# stored and as it broadcasts against the weight.
CASES = {
    "columns, one number": ("c_attn.weight", (24, 40), {"c_attn.bias": (40,)}, (), ()),
    "columns, outputs": ("c_attn.weight", (24, 40), {"c_attn.bias": (40,)}, (40,), (1, 40)),
    "columns, one row": ("c_attn.weight", (24, 40), {"c_attn.bias": (40,)}, (1, 40), (1, 40)),
    "columns, inputs": ("c_attn.weight", (24, 40), {"c_attn.bias": (40,)}, (24, 1), (24, 1)),
    "square columns, outputs": (
        # Another layer of this name in the file tells where the outputs of a square one lie.
        "h.0.c.weight", (40, 40), {"h.1.c.weight": (24, 40), "h.1.c.bias": (40,)}, (40,), (1, 40)
    ),
    "square rows, outputs": ("fc.weight", (40, 40), {"fc.bias": (40,)}, (40,), (40, 1)),
    "stack, one number": ("experts.up_proj", OUT_IN, {}, (1,), ()),
    "stack, experts": ("experts.up_proj", OUT_IN, {}, (3,), (3, 1, 1)),
    "stack, experts in three dimensions": ("experts.up_proj", OUT_IN, {}, (3, 1, 1), (3, 1, 1)),
    "stack, outputs": ("experts.up_proj", OUT_IN, {}, (3, 40, 1), (3, 40, 1)),
    "stack of columns, experts": (
        "experts.up_proj", IN_OUT, {"experts.up_proj_bias": (3, 40)}, (3,), (3, 1, 1)
    ),
    "stack of columns, outputs": (
        "experts.up_proj", IN_OUT, {"experts.up_proj_bias": (3, 40)}, (3, 1, 40), (3, 1, 40)
    ),
    "stack of columns, outputs in a module": (
        "experts.up.weight", IN_OUT, {}, (3, 1, 40), (3, 1, 40)
    ),
}  # fmt: skip


@pytest.mark.parametrize("granularity", ["weight", "filter"])
@PRUNES
@pytest.mark.parametrize("case", CASES)
def test_magnitudes_count_with_their_scale(
    tmp_path: Path, case: str, prune, granularity: str
) -> None:
    """As the products themselves are pruned, in a file of the same names."""
    name, shape, others, scale_shape, broadcastable = CASES[case]
    torch.manual_seed(0)
    quantised, scale = (torch.randn(shape) * 50).to(FP8), torch.rand(scale_shape) + 0.01
    beside = {other: torch.randn(size) for other, size in others.items()}
    product = quantised.float() * scale.reshape(broadcastable)
    to_file(tmp_path / "dense.safetensors", {name: product, **beside})
    to_file(tmp_path / "in.safetensors", {name: quantised, f"{name}_scale": scale, **beside})
    for file in ("dense", "in"):
        source = tmp_path / f"{file}.safetensors"
        prune(source, source, 0.5, granularity=granularity, scope="layer")
    keep = sc.load_checkpoint(tmp_path / "dense.safetensors")[name] != 0
    found = sc.load_checkpoint(tmp_path / "in.safetensors")
    assert 0 < keep.count_nonzero() < keep.numel()
    assert torch.equal(found[name].float(), quantised.float() * keep)
    assert torch.equal(found[f"{name}_scale"], scale)


UINT8, INT8 = torch.uint8, torch.int8
REFUSED = {
    "a scale a row of a stack, flat": (
        {"experts.up": torch.ones(3, 4, 5).to(FP8), "experts.up_scale": torch.ones(3, 4)},
        "experts.up of shape (3, 4, 5) has a scale of shape (3, 4)",
    ),
    "a scale that holds for inputs, flat": (
        {
            "c.weight": torch.ones(4, 6).to(FP8),
            "c.weight_scale": torch.ones(4),
            "c.bias": torch.ones(6),
        },
        "c.weight of shape (4, 6) has a scale of shape (4,)",
    ),
    "experts as integers": (
        {
            "experts.up": torch.ones(3, 4, 5, dtype=INT8),
            "experts.up_scale": torch.ones(3, 4, 1),
        },
        "'experts.up' are quantised integers",
    ),
    "experts in MXFP4": (
        {
            "experts.up_blocks": torch.ones(3, 4, 2, 16, dtype=UINT8),
            "experts.up_scales": torch.ones(3, 4, 2, dtype=UINT8),
        },
        "'experts.up_blocks' are quantised integers",
    ),
    "attention as integers": (
        {
            "a.in_proj_weight": torch.ones(6, 2, dtype=INT8),
            "a.in_proj_weight_scale": torch.ones(6, 1),
        },
        "'a.in_proj_weight' are quantised integers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_applied_is_refused_by_name(tmp_path: Path, case: str) -> None:
    quantised, complaint = REFUSED[case]
    source, output = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    to_file(source, {**quantised, "head.weight": torch.randn(4, 4)})
    with pytest.raises(sc.InvalidArgumentError) as caught:
        prune_checkpoint(source, output, 0.5)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    done = prune_checkpoint(source, output, 0.5, include="head")
    assert [one.name for one in done.weights] == ["head.weight"]
