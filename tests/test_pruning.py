"""The one-liners: what they leave on a model, and what they put back."""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from helpers import Case, assert_same, bits, every_case, every_granularity, every_scope, snapshot
from secateurs import (
    Diversified,
    InvalidArgumentError,
    LostTrainingWarning,
    apply_masks,
    global_prune,
    gradient_prune,
    gradient_pruned,
    make_permanent,
    prior_pruning,
    pruned,
    restore,
    select,
    sparsity,
)
from secateurs._tensors.multiply import Product, multiply
from secateurs.gradient_pruning import modules
from secateurs.gradient_pruning.modules import gradient_masks
from secateurs.masks import apply
from secateurs.masks.apply import prune_weights
from secateurs.originals.module_state import keep_mask
from secateurs.originals.restore_weights import copy_bits
from secateurs.selection.selection_options import SelectionOptions


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5)).eval()


def input_gradient(model: nn.Module) -> torch.Tensor:
    x = torch.ones(1, 2, 5, 5, requires_grad=True)
    model(x).square().sum().backward()
    assert x.grad is not None
    return x.grad


@every_case
@every_granularity
@every_scope
def test_a_second_pruning_starts_from_the_originals(
    case: Case, granularity: str, scope: str
) -> None:
    """0.7 and then 0.5 is 0.5; the original code had lost the weights by then."""
    options = {"granularity": granularity, "scope": scope}
    twice, once = case.model(), case.model()
    global_prune(global_prune(twice, 0.7, **options), 0.5, **options)
    global_prune(once, 0.5, **options)
    assert_same(snapshot(twice), snapshot(once))
    assert_same(snapshot(restore(twice)), snapshot(case.model()))


def test_global_prune_is_select_and_draw_and_apply() -> None:
    for options in (
        {},
        {"granularity": "kernel", "layers": "conv2d"},
        {"scope": "layer", "score": "random", "exclude": "3"},
    ):
        model, parts = network(), network()
        assert global_prune(model, 0.6, 0.5, seed=3, **options) is model
        generator = torch.Generator().manual_seed(3)
        candidates = select(parts, 0.6, generator=generator, **options)
        apply_masks(parts, candidates.draw(0.5, generator=generator))
        assert_same(snapshot(model), snapshot(parts))


def test_the_arguments_are_the_same_everywhere() -> None:
    options = inspect.signature(SelectionOptions).parameters
    for function in (select, global_prune, gradient_prune, pruned, gradient_pruned):
        shown = inspect.signature(function).parameters
        ratios = ["p_prune"] if function is select else ["p_prune", "p_bern"]
        assert list(shown) == ["model", *ratios, "generator", *options]
        for name, parameter in options.items():
            assert shown[name] == parameter
            assert f"\n    {name}: " in inspect.getdoc(function)


def test_a_misspelt_argument_gets_the_nearest_as_advice() -> None:
    for function in (global_prune, gradient_prune, Diversified):
        words = rf"^{function.__name__} has no argument granularty; .*; did you mean granularity\?$"
        with pytest.raises(InvalidArgumentError, match=words):
            function(network(), 0.5, 0.5, granularty="kernel")
    with pytest.raises(InvalidArgumentError, match=r"mode; .* renamed prune_type, which global_"):
        global_prune(network(), 0.5, mode="gradient")


def test_all_and_none() -> None:
    """The original code raised IndexError at one."""
    model = network()
    assert sparsity(global_prune(model, 1)).ratio == 1.0
    assert sparsity(global_prune(model, 0)).ratio == 0.0
    assert sparsity(global_prune(model, 1, 0)).ratio == 0.0
    with pruned(model, 1.0):
        assert not model(torch.randn(1, 2, 5, 5)).sub(model[3].bias).any()


def test_draws_follow_the_seed_never_training_mode() -> None:
    """Attacks call ``eval()``; the draws go on."""

    def draws(training: bool) -> list[dict[str, torch.Tensor]]:
        model = network().train(training)
        generator = torch.Generator().manual_seed(0)
        found = []
        for _ in range(3):
            global_prune(model, 0.8, 0.5, generator=generator)
            assert model.training is training
            found.append(snapshot(model))
        return found

    training, evaluating = draws(True), draws(False)
    for one, other in zip(training, evaluating, strict=True):
        assert_same(one, other)
    first, second, third = (found["3.weight"] for found in evaluating)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert_same(snapshot(global_prune(network(), 0.8, 0.5, seed=0)), evaluating[0])


def test_random_scores_and_draws_do_not_repeat_each_other() -> None:
    model = nn.Linear(100, 100)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    found = sparsity(global_prune(model, 0.5, 0.5, score="random", seed=0)).ratio
    assert abs(found - 0.25) < 4 * math.sqrt(5000 * 0.25) / 10_000
    assert torch.equal(torch.get_rng_state(), state)


CONTEXTS = pytest.mark.parametrize("context", [pruned, gradient_pruned])


@CONTEXTS
def test_a_block_restores(context: Callable[..., object]) -> None:
    model = network()
    before, gradient, classes = snapshot(model), input_gradient(model), list(map(type, model))
    with context(model, 0.6, 0.5, seed=0, granularity="kernel") as inside:
        assert inside is model
        assert 0 < sparsity(model).ratio < 0.7
        assert not torch.equal(input_gradient(model), gradient)
    assert_same(snapshot(model), before)
    assert list(map(type, model)) == classes
    assert torch.equal(input_gradient(model), gradient)
    assert not list(model.buffers())


@CONTEXTS
def test_a_block_that_raises_restores(context: Callable[..., object]) -> None:
    model = network()
    before, gradient = snapshot(model), input_gradient(model)
    with pytest.raises(KeyError, match="in the middle"), context(model, 0.6):
        raise KeyError("in the middle")
    assert_same(snapshot(model), before)
    assert torch.equal(input_gradient(model), gradient)
    assert not list(model.buffers())


def test_what_a_block_does_to_the_weights_is_dropped() -> None:
    model = network()
    before = snapshot(model)
    loss = pytest.warns(LostTrainingWarning, match=r"end of the block.* 3\.weight .*make_permanent")
    with loss, pruned(model, 0.6), torch.no_grad():
        model[3].weight.add_(1)
        global_prune(model, 0.1)
    assert_same(snapshot(model), before)
    with pruned(model, 0.6):
        model.double()
    assert_same(snapshot(model), snapshot(network().double()))


@CONTEXTS
@pytest.mark.parametrize("outer", [None, "global", "gradient"])
def test_a_block_that_trains_is_undone_with_a_warning(
    context: Callable[..., object], outer: str | None
) -> None:
    model = on_top(outer)
    before, kept = snapshot(model), snapshot(restore(on_top(outer)))
    gradients_alone = context is gradient_pruned and outer != "global"
    with warnings.catch_warnings(record=True) as said, context(model, 0.6), torch.no_grad():
        warnings.simplefilter("always")
        model[3].weight.add_(1)
    if gradients_alone:  # masks alone: nothing has to go back
        assert not said
        assert torch.equal(bits(model[3].weight), bits(network()[3].weight + 1))
        return
    assert [str(w.message).split(" puts")[0] for w in said] == ["the end of the block"]
    assert said[0].category is LostTrainingWarning
    assert said[0].filename == __file__
    assert " 3.weight " in str(said[0].message)
    assert "0.weight" not in str(said[0].message)
    assert_same(snapshot(model), before)
    assert_same(snapshot(restore(model)), kept)


@CONTEXTS
def test_a_block_around_what_was_trained_puts_it_back(context: Callable[..., object]) -> None:
    model = global_prune(network(), 0.4)
    with torch.no_grad():
        model[3].weight.add_(1)
    before, original = snapshot(model), bits(model[3].weight_orig)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with context(model, 0.6) as inside:
            assert torch.equal(bits(inside[3].weight_orig), before["3.weight"])
    assert_same(snapshot(model), before)
    assert torch.equal(bits(model[3].weight_orig), original)
    with pytest.warns(LostTrainingWarning):
        assert_same(snapshot(restore(model)), snapshot(network()))


@CONTEXTS
@pytest.mark.parametrize("outer", [None, "global", "gradient"])
@pytest.mark.parametrize("size", [5, 7])
def test_a_block_leaves_a_new_head_alone(
    context: Callable[..., object], outer: str | None, size: int
) -> None:
    model = on_top(outer)
    head = nn.Parameter(torch.ones(size, 36))
    with context(model, 0.6):
        model[3].weight = head
    assert model[3].weight is head
    assert torch.equal(head, torch.ones(size, 36))
    restore(model)
    assert torch.equal(head, torch.ones(size, 36))
    assert_same({"": bits(model[0].weight)}, {"": bits(network()[0].weight)})


def test_what_a_block_restores_or_makes_permanent_itself_stays() -> None:
    model = network()
    with pruned(model, 0.6), torch.no_grad():
        model[3].weight.add_(1)
        learned = snapshot(model)
        global_prune(model, 0.1)  # starts from what was learned
        restore(model)
    assert torch.equal(bits(model[3].weight), learned["3.weight"])


def on_top(outer: str | None) -> nn.Module:
    model = network()
    if outer is not None:
        masks = select(model, 0.4, scope="layer").draw()
        apply_masks(model, masks, outer)
    return model


@pytest.mark.parametrize("outer", [None, "global", "gradient"])
@pytest.mark.parametrize("inner", [pruned, gradient_pruned])
def test_a_block_restores_the_earlier_pruning(
    outer: str | None, inner: Callable[..., object]
) -> None:
    model = on_top(outer)
    before, gradient = snapshot(model), input_gradient(model)
    buffers = [name for name, _ in model.named_buffers()]
    for _ in range(2):
        with inner(model, 0.8):  # starts from the originals
            fresh = network()
            with inner(fresh, 0.8):
                assert_same(snapshot(model), snapshot(fresh))
                assert torch.equal(input_gradient(model), input_gradient(fresh))
        assert_same(snapshot(model), before)
        assert torch.equal(input_gradient(model), gradient)
        assert [name for name, _ in model.named_buffers()] == buffers
    assert_same(snapshot(restore(model)), snapshot(network()))
    assert torch.equal(input_gradient(model), input_gradient(network()))


@pytest.mark.parametrize("outer", ["global", "gradient"])
def test_a_block_leaves_a_weight_that_was_resized_inside(outer: str) -> None:
    model = on_top(outer)
    layer = next(m for m in model.modules() if isinstance(m, nn.Linear))
    larger = torch.randn(9, 9)
    with pruned(model, 0.8):
        layer.weight.data = larger
    assert torch.equal(layer.weight, larger)
    assert torch.equal(restore(layer).weight, larger)


def test_inside_autocast_layers_run_with_what_the_weights_are_now() -> None:
    """Autocast keeps the casts of weights until its block ends."""
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    model = network()

    def output(model: nn.Module) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    dense, sparse = output(network()), output(global_prune(network(), 0.8))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), dense)
        with pruned(model, 0.8):
            assert torch.equal(model(x), sparse)
        assert torch.equal(model(x), dense)
        assert torch.equal(global_prune(model, 0.8)(x), sparse)
        assert torch.equal(restore(model)(x), dense)


def test_blocks_nest() -> None:
    model = network()
    dense = snapshot(model)
    with pruned(model, 0.3):
        first = snapshot(model)
        with pytest.raises(RuntimeError, match="inside"), pruned(model, 0.6):
            with gradient_pruned(model, 0.9):
                assert_same(snapshot(model), dense)
                assert sparsity(model).zeros == round(0.9 * 252)
            raise RuntimeError("inside")
        assert_same(snapshot(model), first)
    assert_same(snapshot(model), dense)


def test_one_kind_of_pruning_replaces_the_other() -> None:
    model = network()
    dense, gradient = snapshot(model), input_gradient(model)
    global_prune(model, 0.5)
    gradient_prune(model, 0.5)
    assert_same(snapshot(model), dense)
    assert not torch.equal(input_gradient(model), gradient)
    global_prune(model, 0.25)
    assert_same(snapshot(model), snapshot(global_prune(network(), 0.25)))
    assert torch.equal(input_gradient(model), input_gradient(global_prune(network(), 0.25)))
    restore(model)
    assert torch.equal(input_gradient(model), gradient)


def test_restoring_what_is_not_pruned_changes_nothing() -> None:
    model = network()
    before = snapshot(model)
    for function in (restore, make_permanent):
        assert function(model) is model
        assert_same(snapshot(model), before)


def test_an_interrupt_at_the_end_of_a_block_loses_no_original(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network()
    before = snapshot(model)
    global_prune(model, 0.5)

    def interrupted(parameter: torch.Tensor, values: torch.Tensor) -> None:
        copy_bits(parameter, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), pruned(model, 0.7):
        patch.setattr(prior_pruning, "copy_bits", interrupted)
    assert_same(snapshot(restore(model)), before)


@pytest.mark.parametrize("first", [global_prune, gradient_prune])
def test_an_interrupt_at_the_start_of_a_block_takes_it_back(
    first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = first(network(), 0.5)
    before, masks = snapshot(model), gradient_masks(model.modules())

    def interrupted(*args: Any) -> None:
        prune_weights(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prior_pruning, "prune_weights", interrupted)
        with pruned(model, 0.7, include="0"):
            pass
    assert_same(snapshot(model), before)
    assert gradient_masks(model.modules()) == masks


@pytest.mark.parametrize("again", [{"p_prune": 0.7}, {"p_prune": 0.7, "include": "0"}])
@pytest.mark.parametrize("first", [restore, global_prune, gradient_prune])
def test_an_interrupt_while_gradients_are_pruned_leaves_the_earlier_pruning(
    first: Any, again: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = first(network(), **{} if first is restore else {"p_prune": 0.5})
    before, masks = snapshot(model), gradient_masks(model.modules())

    def interrupted(*mask: Any) -> None:
        patch.undo()
        keep_mask(*mask)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(modules, "keep_mask", interrupted)
        gradient_prune(model, **again)
    assert_same(snapshot(model), before)
    assert gradient_masks(model.modules()) == masks


def test_an_interrupt_while_weights_are_pruned_leaves_pruned_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = gradient_prune(network(), 0.5)
    before, masks = snapshot(model), gradient_masks(model.modules())

    def interrupted(products: list[Product]) -> None:
        multiply(products[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(apply, "multiply", interrupted)
        global_prune(model, 0.7)
    assert_same(snapshot(model), before)
    assert gradient_masks(model.modules()) == masks


def test_permanent_inside_a_block_stays() -> None:
    model = network()
    with pruned(model, 0.5):
        make_permanent(model)
        inside = snapshot(model)
    assert_same(snapshot(model), inside)
    assert_same(snapshot(restore(model)), inside)


WRONG = [
    ({"p_prune": 1.2}, "p_prune must be from 0 to 1 inclusive, got 1.2"),
    ({"p_prune": "half"}, "p_prune must be a number from 0 to 1, got 'half'"),
    ({"p_prune": math.nan}, "p_prune must be from 0 to 1 inclusive, got nan"),
    ({"p_prune": True}, "p_prune must be a number from 0 to 1, got True"),
    ({"p_bern": -0.5}, "p_bern must be from 0 to 1 inclusive, got -0.5"),
    ({"p_bern": 0.5}, "p_bern=0.5 draws random numbers: hand in seed=0"),
    ({"score": "random"}, "score='random' draws random numbers"),
    ({"seed": 0, "generator": torch.Generator()}, "give generator or seed, not both"),
    ({"granularity": "filters"}, "did you mean filter?"),
    ({"scope": "local"}, "scope must be one of global, layer, N:M; got 'local'"),
    ({"layers": "conv4d"}, "layers must be one of"),
    ({"layers": "conv3d"}, "nothing to prune with layers='conv3d'"),
    ({"include": "layer9"}, "include='layer9' matches no parameter"),
    ({"score": "gradient"}, "0.weight has no gradient"),
    ({"score": lambda t: t.weight / 0 * 0}, "the score of 0.weight is NaN"),
]


@pytest.mark.parametrize("standing", [None, "global", "gradient"])
@pytest.mark.parametrize("function", [global_prune, gradient_prune, pruned, gradient_pruned])
@pytest.mark.parametrize(("options", "words"), WRONG)
def test_an_error_leaves_the_model_as_it_is(
    standing: str | None, function: Callable[..., object], options: dict[str, object], words: str
) -> None:
    model = on_top(standing)
    before, gradient = snapshot(model), input_gradient(model)
    model.zero_grad()
    with pytest.raises(InvalidArgumentError) as error:
        block = function(model, **{"p_prune": 0.5, **options})
        if function in (pruned, gradient_pruned):
            with block:  # type: ignore[attr-defined]
                pass
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert_same(snapshot(model), before)
    assert torch.equal(input_gradient(model), gradient)


def test_a_weight_that_cannot_be_written_leaves_the_other_pruning() -> None:
    model = gradient_prune(network(), 0.5, include="0")
    model[3].weight = nn.Parameter(model[3].weight.detach()[:1].expand(5, 36))
    before, gradient = snapshot(model), input_gradient(model)
    with pytest.raises(InvalidArgumentError, match=r"elements of 3\.weight share memory"):
        global_prune(model, 0.5)
    assert_same(snapshot(model), before)
    assert torch.equal(input_gradient(model), gradient)


def test_unknown_prune_type() -> None:
    model = network()
    with pytest.raises(InvalidArgumentError, match=r"one of global, gradient; got 'grad'"):
        apply_masks(model, select(model, 0.5).draw(), "grad")


@pytest.mark.filterwarnings("error::secateurs.LostTrainingWarning")
def test_where_warnings_are_errors_restore_loses_nothing() -> None:
    model = global_prune(nn.Linear(4, 4), 0.5)
    with torch.no_grad():
        model.weight.add_(1)
    learned = model.weight.detach().clone()
    with pytest.raises(LostTrainingWarning):
        restore(model)
    assert torch.equal(model.weight, learned)
    assert sparsity(global_prune(model, 0.5)).ratio == 0.5
