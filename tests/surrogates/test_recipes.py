"""Recipes by name: what each prunes, against plain formulas."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from surrogate_cases import blocks, images, input_gradient, oracle
from torch import nn

import secateurs as sc
from language_models import language_model
from secateurs.surrogates import MUP, RECIPES, dwp, mup, rapa


def test_dwp_prunes_the_smallest_of_all() -> None:
    model = blocks()
    surrogate = dwp(model, 0.4, 0.5, seed=2)
    wanted = sc.Diversified(model, 0.4, 0.5, seed=2)
    assert torch.equal(surrogate(images()), wanted(images()))


def test_rapa_takes_every_parameter_of_normalisation_and_linear_layers() -> None:
    surrogate = rapa(blocks(), 0.3)
    assert set(surrogate.candidates.chosen) == {
        "stem.1.weight", "stem.1.bias", "head.weight", "head.bias"
    }  # fmt: skip
    assert surrogate.candidates.count == surrogate.candidates.total
    surrogate(images())
    logits = surrogate(images())
    assert torch.equal(logits, oracle(surrogate.network, surrogate.masks)(images()))
    assert 0 < surrogate.masks.sparsity < 1


def test_rapa_in_transformers_and_squeezenet() -> None:
    vit = torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=4).eval()
    names = set(rapa(vit).candidates.chosen)
    layer = "encoder.layers.encoder_layer_0"
    assert {f"{layer}.ln_1.weight", f"{layer}.mlp.0.weight", "heads.head.bias"} <= names
    assert f"{layer}.self_attention.in_proj_weight" in names
    assert "conv_proj.weight" not in names
    squeeze = torchvision.models.squeezenet1_1(num_classes=4)
    assert set(rapa(squeeze).candidates.chosen) == {"classifier.1.weight", "classifier.1.bias"}


def test_rapa_knows_the_linear_layers_and_experts_of_others() -> None:
    pytest.importorskip("transformers")
    gpt2, gpt_oss = (set(rapa(language_model(n)).candidates.chosen) for n in ("gpt2", "gpt_oss"))
    assert {"transformer.h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_fc.bias"} <= gpt2
    assert "transformer.h.0.ln_1.weight" in gpt2
    assert {"model.layers.0.mlp.experts.down_proj", "lm_head.weight"} <= gpt_oss


def test_rapa_says_where_it_finds_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    with pytest.raises(sc.InvalidArgumentError, match="no normalisation and no fully connected"):
        rapa(model)
    assert set(rapa(model, include="0.bias").candidates.chosen) == {"0.bias"}


def taylor_masks(model: nn.Module, x: torch.Tensor, classes: torch.Tensor, p: float) -> dict:
    """The formula, weight by weight: the smallest |w * g| of each layer."""
    model = copy.deepcopy(model).requires_grad_()
    F.cross_entropy(model(x), classes, reduction="sum").backward()
    keep = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            score = (parameter * parameter.grad).abs().flatten()
            order = score.sort(stable=True).indices[: round(p * score.numel())]
            flat = torch.ones(score.numel(), dtype=torch.bool)
            flat[order] = False
            keep[name] = flat.view(parameter.shape)
    return keep


def test_mup_masks_the_least_important_weights_at_the_input() -> None:
    model, classes = blocks(), torch.tensor([1, 3])
    surrogate = mup(model, 0.3)
    assert isinstance(surrogate, MUP)
    surrogate.aim(classes)
    for x in (images(), images() * 0.5):
        logits = surrogate(x)
        wanted = taylor_masks(model, x, classes, 0.3)
        masks = surrogate.masks
        assert set(masks) == set(wanted)
        assert all(torch.equal(masks[name], keep) for name, keep in wanted.items())
        assert torch.equal(logits, oracle(model, masks)(x))
        assert torch.equal(input_gradient(surrogate, x), input_gradient(oracle(model, masks), x))


def test_mup_without_classes_takes_those_that_the_model_names() -> None:
    model, x = blocks(), images(3)
    named, aimed = mup(model), mup(model)
    aimed.aim(model(x).argmax(1), targeted=False)
    assert torch.equal(named(x), aimed(x))
    # Copies of a batch, as SI and Admix make them.
    twice = aimed(torch.cat([x, x]))
    torch.testing.assert_close(twice[:3], twice[3:])
    with pytest.raises(sc.InvalidArgumentError, match="aim was given 3 classes for 2 images"):
        aimed(x[:2])


@pytest.mark.parametrize("kind", [list, np.array, torch.IntTensor])
def test_mup_takes_classes_of_any_kind(kind: Callable[[list[int]], Any]) -> None:
    model, x, classes = blocks(), images(), [1, 3]
    aimed, wanted = mup(model, 0.3), mup(model, 0.3)
    aimed.aim(kind(classes))
    wanted.aim(torch.tensor(classes))
    assert torch.equal(aimed(x), wanted(x))


@pytest.mark.parametrize("classes", [None, "cat", 3, [0.5, 1.0], [True, False], [[1], [2]]])
def test_aim_refuses_what_are_no_classes(classes: Any) -> None:
    with pytest.raises(sc.InvalidArgumentError, match="one class for each image"):
        mup(blocks()).aim(classes)


def test_mup_scores_once_a_step_if_asked() -> None:
    surrogate, x = mup(blocks(), 0.3, redraw="step"), images()
    surrogate(x)
    first = surrogate.masks
    surrogate(-x)
    assert all(torch.equal(first[n], surrogate.masks[n]) for n in first)
    surrogate.step()
    surrogate(-x)
    assert not all(torch.equal(first[n], surrogate.masks[n]) for n in first)


@pytest.mark.parametrize("trainable", [False, True])
def test_mup_leaves_no_gradients(trainable: bool) -> None:
    model = blocks().requires_grad_(trainable)
    surrogate = mup(model, 0.3)
    leaf = images().requires_grad_()
    torch.autograd.grad(surrogate(leaf).sum(), leaf)
    with torch.no_grad():
        surrogate(leaf)
    assert all(p.grad is None and p.requires_grad == trainable for p in model.parameters())


def test_mup_has_its_own_score() -> None:
    with pytest.raises(sc.InvalidArgumentError, match="leave score out"):
        mup(blocks(), score="magnitude")


def test_every_recipe_takes_seed_and_options() -> None:
    for recipe in RECIPES.values():
        surrogate = recipe(blocks(), seed=5, redraw="step", prune_type="global")
        assert surrogate.seed == 5
        assert surrogate.redraw == "step"
        surrogate.aim(torch.tensor([0, 1]))
        surrogate(images())
        surrogate.step()
        surrogate.restart(6)
        assert surrogate.seed == 6
