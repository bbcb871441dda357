"""Each row says what `global_prune` and a plain loop give, exactly."""

from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import Images, Net, loader, losses, network, outcome
from torch import Tensor, nn

import secateurs as sc
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Provenance, accumulate_gradients, accuracy, sweep
from secateurs.parameters.target import Target
from secateurs.results import Row, wilson_interval


def scaled(target: Target) -> Tensor:
    return target.weight.abs() * (2.0 if target.is_convolution else 1.0)


def by_hand(model: nn.Module, row: Row, score: Any, draw: int = 0, **options: Any) -> Any:
    """What a reader of the row would do, with the library's own functions."""
    assert row.seed is not None
    with sc.pruned(
        model,
        row.p_prune,
        row.p_bern,
        granularity=row.granularity,
        scope=row.scope,
        score=score,
        seed=row.seed + draw,
        **options,
    ):
        return accuracy(model, loader(batch_size=46)), sc.sparsity(model).ratio


@pytest.mark.parametrize("score", ["magnitude", "random", "gradient", "taylor", scaled])
def test_every_row_can_be_reproduced_by_hand(score: Any) -> None:
    model = network().eval()
    accumulate_gradients(model, loader())
    rows = sweep(
        model,
        loader(),
        p_prune=[0.4, 0.8],
        p_bern=[1, 0.5],
        granularity=["weight", "kernel", "filter"],
        scope=["global", "layer"],
        score=score,
        seed=11,
    )
    assert len(rows) == 2 * 2 * 3 * 2
    for row in rows:
        tally, achieved = by_hand(model, row, score)
        assert (row.correct1, row.correct5) == (str(tally.correct1), str(tally.correct5))
        assert row.loss == pytest.approx(tally.loss, rel=1e-6)
        if row.prune_type == "global":
            assert row.achieved == pytest.approx(achieved, abs=1e-12)
        assert row.score == (score if isinstance(score, str) else "scaled")
    assert len({row.correct1 for row in rows}) > 5


@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_draws_are_those_of_the_following_seeds(score: str) -> None:
    model = network().eval()
    options: dict[str, Any] = {"p_prune": [0, 0.6], "p_bern": [1, 0.7], "score": score}
    rows = sweep(model, loader(), draws=4, seed=3, **options)
    for row in rows:
        tallies = [by_hand(model, row, score, draw)[0] for draw in range(row.draws)]
        ratios = [by_hand(model, row, score, draw)[1] for draw in range(row.draws)]
        assert row.correct1 == ";".join(str(t.correct1) for t in tallies)
        assert row.correct5 == ";".join(str(t.correct5) for t in tallies)
        assert row.top1 == pytest.approx(mean(t.top1 for t in tallies))
        assert row.top5 == pytest.approx(mean(t.top5 for t in tallies))
        assert row.loss == pytest.approx(mean(t.loss for t in tallies))
        assert row.achieved == pytest.approx(mean(ratios))
        expected = stdev(t.top1 for t in tallies) if row.draws > 1 else 0.0
        assert row.top1_std == pytest.approx(expected)
        low, high = wilson_interval(mean(t.correct1 for t in tallies), row.count)
        assert (row.top1_low, row.top1_high) == pytest.approx((100 * low, 100 * high))
    drawn = {(row.p_prune, row.p_bern) for row in rows if row.draws == 4}
    assert drawn == {(0.6, 0.7)} | ({(0.6, 1.0)} if score == "random" else set())
    assert all(row.top1_std > 0 for row in rows if row.draws == 4)


def test_draws_differ_from_each_other_and_between_seeds() -> None:
    def correct(seed: int) -> str:
        (row,) = sweep(network(), loader(), p_prune=0.6, p_bern=0.5, draws=5, seed=seed)
        return row.correct1

    assert len(set(correct(0).split(";"))) > 1
    assert correct(0) != correct(100)
    assert correct(0).split(";")[1:] == correct(1).split(";")[:-1]


def test_gradient_rows_are_dense_with_the_ratio_of_the_mask() -> None:
    model = network().eval()
    dense = accuracy(model, loader())
    options: dict[str, Any] = {"p_prune": [0, 0.5, 1], "p_bern": [1, 0.5], "seed": 2}
    rows = sweep(
        model, loader(), prune_type=["global", "gradient"], granularity="kernel", **options
    )
    globally = [row for row in rows if row.prune_type == "global"]
    backward = [row for row in rows if row.prune_type == "gradient"]
    assert [row.achieved for row in backward] == [row.achieved for row in globally]
    assert {(row.correct1, row.correct5) for row in backward} == {
        (str(dense.correct1), str(dense.correct5))
    }
    assert losses(backward) == pytest.approx([dense.loss] * len(backward), rel=1e-6)
    assert len({row.correct1 for row in globally}) > 1
    assert {row.achieved for row in globally if row.p_prune == 0} == {0.0}


def test_the_columns_say_what_was_measured() -> None:
    model = network()
    provenance = Provenance(model="net", weights="w", data="noise", split="test", img_size=8)
    rows = sweep(
        model,
        loader(),
        provenance=provenance,
        p_prune=0.5,
        granularity="kernel",
        layers="conv2d",
        include=["*", "head.weight"],
        exclude=nn.BatchNorm2d,
        seed=4,
    )
    (row,) = rows
    assert (row.model, row.weights, row.data, row.split) == ("net", "w", "noise", "test")
    assert (row.count, row.draws, row.seed, row.batch_size) == (46, 1, 4, 8)
    assert (row.layers, row.include, row.exclude) == ("conv2d", "*;head.weight", "BatchNorm2d")
    weights = [model.first.weight, model.second.weight, model.head.weight]
    assert row.targets == sum(w.numel() for w in weights)
    assert row.units == 6 + 48 + 7 * 128
    assert row.param_count == pytest.approx(sum(p.numel() for p in model.parameters()) / 1e6)
    assert (row.device, row.dtype, row.amp) == ("cpu", "float32", False)
    assert row.top1_err == pytest.approx(100 - row.top1)
    assert row.top5_err == pytest.approx(100 - row.top5)
    assert row.infer_samples_per_sec > 0
    assert f"torch={torch.__version__}" in row.versions
    assert len(row.weights_sha256) == 16


def test_the_model_is_named_by_its_class_and_known_by_its_weights() -> None:
    same, other = sweep(network(), loader(), p_prune=0.5), sweep(network(), loader(), p_prune=0.5)
    assert same[0].model == "Net"
    assert outcome(same) == outcome(other)
    changed = network()
    with torch.no_grad():
        changed.norm.running_mean[2] += 1.0
    (row,) = sweep(changed, loader(), p_prune=0.5)
    assert row.weights_sha256 != same[0].weights_sha256


@pytest.mark.parametrize("options", [{"batch_size": 5}, {"num_workers": 2}, {"batch_size": 100}])
def test_how_images_are_read_does_not_change_the_rows(options: dict[str, Any]) -> None:
    grid: dict[str, Any] = {"p_prune": [0, 0.5, 0.9], "p_bern": [1, 0.5], "draws": 2}
    usual, other = (sweep(network(), loader(**o), **grid) for o in ({}, options))
    assert outcome(usual) == outcome(other)
    assert losses(usual) == pytest.approx(losses(other), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_models_of_other_dtypes(dtype: torch.dtype) -> None:
    model = network().eval().to(dtype)
    rows = sweep(model, loader(), p_prune=[0, 0.5])
    for row in rows:
        tally, _ = by_hand(model, row, "magnitude")
        assert row.correct1 == str(tally.correct1)
        assert row.dtype == str(dtype).removeprefix("torch.")


def test_amp_runs_under_autocast_and_says_so() -> None:
    seen: list[torch.dtype] = []
    model = network().eval()
    model.head.register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    rows = sweep(model, loader(), p_prune=[0, 0.5], amp=True)
    assert set(seen) == {torch.bfloat16}
    assert all(row.amp for row in rows)
    for row in rows:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tally, _ = by_hand(model, row, "magnitude")
        assert row.correct1 == str(tally.correct1)
        assert row.loss == pytest.approx(tally.loss, rel=1e-6)
    seen.clear()
    sweep(model, loader(), p_prune=[0, 0.5])
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("amp", [False, True])
def test_a_caller_under_autocast_does_not_get_the_weights_of_another_variant(amp: bool) -> None:
    # Autocast keeps the weights that it has cast until its outermost context ends.
    expected = sweep(network(), loader(), p_prune=[0, 0.5, 0.9], amp=amp)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sweep(network(), loader(), p_prune=[0, 0.5, 0.9], amp=amp)
    assert outcome(found) == outcome(expected)
    assert losses(found) == losses(expected)


class Returning(Net):
    """The same network with its scores wrapped."""

    def __init__(self, wrap: Any):
        super().__init__()
        self.load_state_dict(network().state_dict())
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(super().forward(images))


@pytest.mark.parametrize(
    "wrap", [lambda s: SimpleNamespace(logits=s), lambda s: (s, None), lambda s: [s]]
)
def test_outputs_as_models_return_them(wrap: Any) -> None:
    plain = sweep(network(), loader(), p_prune=[0, 0.5], provenance=Provenance(model="n"))
    wrapped = sweep(Returning(wrap), loader(), p_prune=[0, 0.5], provenance=Provenance(model="n"))
    assert outcome(wrapped) == outcome(plain)


def test_fewer_than_five_classes() -> None:
    rows = sweep(network(classes=3), loader(Images(classes=3)), p_prune=[0, 0.5])
    assert {row.top5 for row in rows} == {100.0}
    assert rows[0].top1 > rows[1].top1


def test_scores_that_are_nan_are_wrong_answers() -> None:
    class Broken(Net):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float("nan")

    rows = sweep(Broken(), loader(), p_prune=[0, 0.5])
    assert {(row.count, row.correct1, row.correct5) for row in rows} == {(46, "0", "0")}
    assert all(row.loss != row.loss for row in rows)


def test_several_scores_in_one_pass() -> None:
    model, images = network(), Images()
    accumulate_gradients(model, loader(images))
    images.reads.clear()
    rows = sweep(model, loader(images), p_prune=0.5, score=["magnitude", "taylor", scaled])
    assert [row.score for row in rows] == ["magnitude", "taylor", "scaled"]
    assert images.reads == list(range(46))
    alone = [
        sweep(model, loader(), p_prune=0.5, score=s)[0] for s in ("magnitude", "taylor", scaled)
    ]
    assert outcome(rows) == outcome(alone)


@pytest.mark.parametrize("score", ["gradient", "taylor"])
def test_scores_that_need_gradients_say_so(score: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"first.weight has no gradient .*loss.backward"):
        sweep(network(), loader(), score=score)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"p_prunes": 0.5},
            r"^sweep has no argument p_prunes; it takes model, .*; did you mean p_prune",
        ),
        ({"cells": ()}, r"^sweep has no argument cells; it takes model, .*, seed"),
        ({"p_prune": 1.2}, "p_prune must be from 0 to 1 inclusive, got 1.2"),
        ({"layers": "conv3d"}, "nothing to prune with layers='conv3d'"),
        ({"include": "heads"}, "include='heads' matches no parameter.*did you mean head"),
        ({"device": "gpu"}, "no device 'gpu' here .*: write device='cpu'"),
        ({"device": "xla:3"}, "no device 'xla:3' here"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        sweep(network(), loader(), **given)
    assert "\n" not in str(caught.value)


def test_images_of_another_task_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"labels run .* classes 0 to 2: is this the r"):
        sweep(network(classes=3), loader(Images(classes=7)), p_prune=0.5)


@pytest.mark.parametrize("nothing", [[], loader(torch.utils.data.TensorDataset(torch.zeros(0, 1)))])
def test_a_loader_without_images_is_refused(nothing: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="the loader gave no images"):
        sweep(network(), nothing, p_prune=0.5)
