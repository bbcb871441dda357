"""Repair of transformers: a vision transformer, an image classifier, a causal language model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc


def _vit() -> tuple[nn.Module, Tensor]:
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, depth=1, embed_dim=24, num_heads=2,
        num_classes=6,
    )  # fmt: skip
    return model, torch.randn(40, 3, 16, 16)


def _image_classifier() -> tuple[nn.Module, Tensor]:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        image_size=16, patch_size=8, num_labels=6,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config), torch.randn(40, 3, 16, 16)


def _language_model() -> tuple[nn.Module, Tensor]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=40, n_positions=12, n_embd=24, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), torch.randint(0, 40, (40, 12))


@pytest.mark.parametrize("make", [_vit, _image_classifier, _language_model])
def test_all_steps_work_and_are_undone(make: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    torch.manual_seed(0)
    model, images = make()
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # fresh weights are so small that hardly an image differs
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with sc.repair.observed_inputs(model, images):
        sc.global_prune(model, 0.6, score="wanda")
    zeros = sc.sparsity(model).zeros
    solved, distilled = sc.repair(
        model, images, ["reconstruct", "distill"], iterations=20, augment="none"
    )
    assert not solved.left and len(solved.layers) >= 4
    assert solved.loss[1] < 0.7 * solved.loss[0]
    assert distilled.loss[1] <= solved.loss[1]
    assert sc.sparsity(model).zeros == zeros
    sc.restore(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
