"""Each row is what pruning that layer for real gives, and an interrupted run goes on."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import Images, Stop, Stopping, loader, network

import secateurs as sc
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Provenance, budget, sensitivity, sweep
from secateurs.results import SensitivityRow, read_rows

QUICK: dict[str, Any] = {
    "ratios": [0.5, 0.9], "progress": False, "provenance": Provenance(model="net"),
}  # fmt: skip


def same(rows: list[SensitivityRow]) -> list[tuple[Any, ...]]:
    """All that must be equal between two runs of one configuration."""
    kept = ("top1", "lost", "won", "agreement", "achieved", "dense_top1")
    return [(*row.key, *(getattr(row, name) for name in kept)) for row in rows]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"granularity": "filter"},
        {"p_bern": 0.5, "seed": 3},
        {"score": "random", "seed": 4},
        {"exclude": "head"},
    ],
)
def test_a_row_is_what_a_real_prune_of_that_layer_gives(options: dict[str, Any]) -> None:
    images, model = Images(), network().eval()
    rows = sensitivity(model, loader(images), **QUICK, **options)
    layers = [target.name for target in sc.find_targets(model, exclude=options.get("exclude"))]
    assert [(row.layer, row.p_prune) for row in rows] == [
        (n, r) for n in layers for r in (0.5, 0.9)
    ]
    assert sorted(images.reads) == list(range(len(images)))  # each image is read once
    with torch.no_grad():
        dense = model(images.pixels)
        for row in rows:
            given = {"seed": 0} | {k: v for k, v in options.items() if k != "exclude"}
            with sc.pruned(model, row.p_prune, include=[row.layer], **given):
                pruned = model(images.pixels)
            before, after = (logits.argmax(1) == images.labels for logits in (dense, pruned))
            assert (row.lost, row.won) == (
                int((before & ~after).sum()),
                int((~before & after).sum()),
            )
            assert row.change == pytest.approx(row.top1 - row.dense_top1)
            assert row.top1 == pytest.approx(100 * after.float().mean().item())
            agreed = (dense.argmax(1) == pruned.argmax(1)).float().mean().item()
            assert row.agreement == pytest.approx(100 * agreed)
            ours, theirs = pruned.log_softmax(1), dense.log_softmax(1)
            expected = (theirs.exp() * (theirs - ours)).sum(1).mean().item()
            assert row.divergence == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_without_labels_the_dense_network_says_what_is_right() -> None:
    images = Images()
    rows = sensitivity(network(), loader(images), labels=False, **QUICK)
    images.labels = torch.zeros_like(images.labels)  # no label has a say
    again = sensitivity(network(), loader(images), labels=False, **QUICK)
    alone = sensitivity(network(), [images.pixels[:20], images.pixels[20:]], labels=False, **QUICK)
    assert same(rows) == same(again) == same(alone)
    assert all(row.dense_top1 == 100 and row.top1 == row.agreement for row in rows)
    assert {row.labels for row in rows} == {"dense"}


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        sensitivity(Stopping(after=25), loader(), output=tmp_path, save_every=0.0, **QUICK)
    images = Images()
    rows = sensitivity(network(), loader(images), output=tmp_path, **QUICK)
    assert 8 < len(images.reads) < len(images)
    assert same(rows) == same(sensitivity(network(), loader(), **QUICK))
    assert (
        read_rows(tmp_path, SensitivityRow)
        == read_rows(tmp_path / "results.csv", SensitivityRow)
        == rows
    )
    images.reads.clear()
    assert sensitivity(network(), loader(images), output=tmp_path, **QUICK) == rows
    assert len(images.reads) == 4  # no more than tells the images apart
    with pytest.raises(InvalidArgumentError, match="ratios"):
        sensitivity(network(), loader(), output=tmp_path, ratios=0.5)


def test_repairs_of_an_interrupted_run_are_not_made_again(tmp_path: Path) -> None:
    repair: dict[str, Any] = {"repair": ["batchnorm", "reconstruct"]} | QUICK
    calibration = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    stopping = Stopping(after=25)
    with pytest.raises(Stop):
        sensitivity(stopping, loader(), output=tmp_path, calibration=calibration, **repair)
    model = network()
    rows = sensitivity(model, loader(), output=tmp_path, calibration=calibration, **repair)
    again = network()
    assert same(rows) == same(sensitivity(again, loader(), calibration=calibration, **repair))
    assert model.passes < again.passes
    assert not list(tmp_path.glob("repaired-*"))
    with pytest.raises(InvalidArgumentError, match="calibration"):
        sensitivity(network(), loader(), output=tmp_path, calibration=-calibration, **repair)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
def test_no_repair_of_an_interrupted_run_is_left(tmp_path: Path, options: dict[str, Any]) -> None:
    given: dict[str, Any] = {**QUICK, "repair": "channels", "output": tmp_path}
    given["calibration"] = -Images().pixels[:8]
    sensitivity(network(), loader(), **given)
    left = tmp_path / "repaired-0123456789abcdef.safetensors"
    left.write_bytes(b"of a run that was killed after its rows were written")
    sensitivity(network(), loader(), **given, **options)
    assert not left.exists()


def test_a_pruned_model_is_measured_from_its_originals_and_stays_pruned() -> None:
    model = sc.global_prune(network().train(), 0.3)
    rows = sensitivity(model, loader(), **QUICK)
    assert same(rows) == same(sensitivity(network(), loader(), **QUICK))
    assert sc.sparsity(model).ratio == pytest.approx(0.3, abs=0.01) and model.training


def test_scores_that_read_inputs_get_those_of_the_calibration_images() -> None:
    calibration = torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(8))
    given: dict[str, Any] = {"score": "wanda"} | QUICK
    rows = sensitivity(network(), loader(), calibration=calibration, **given)
    model = network().eval()
    with sc.repair.observed_inputs(model, calibration):
        again = sensitivity(model, loader(), **given)
    assert [(row.layer, row.achieved, row.loss) for row in rows] == [
        (row.layer, row.achieved, row.loss) for row in again
    ]
    assert {row.calibration_count for row in rows} == {30}


@pytest.mark.parametrize("measure", [sensitivity, sweep, budget])
def test_calibration_images_that_nothing_uses_are_refused(measure: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^calibration belongs to a repair"):
        measure(network(), loader(), calibration=Images().pixels)


@pytest.mark.parametrize(
    ("measure", "count"),
    [
        (partial(sensitivity, ratios=0.5), 46),
        (partial(sweep, p_prune=[0, 0.5]), 46),
        (partial(budget, max_drop=20), 640),
    ],
)
@pytest.mark.parametrize("use", [{"repair": "batchnorm"}, {"score": "wanda"}])
def test_calibration_images_that_are_scored_are_refused(
    measure: Any, count: int, use: dict[str, Any]
) -> None:
    images = Images(count)
    others, given = -images.pixels[:8], use | {"progress": False}
    measure(network(), loader(images), calibration=others, **given)
    others[5] = images.pixels[-3]
    with pytest.raises(
        InvalidArgumentError, match=r"^the calibration image with index 5 is scored"
    ):
        measure(network(), loader(images), calibration=others, **given)


def test_without_labels_the_images_that_are_measured_may_be_those_of_the_score() -> None:
    options = {"score": "wanda", "labels": False} | QUICK
    assert sensitivity(network(), loader(), calibration=Images().pixels, **options)


@pytest.mark.parametrize("ratios", [0.5, torch.tensor(0.5), torch.tensor([0.5, 0.0])])
def test_ratios_come_as_any_number_or_sequence(ratios: Any) -> None:
    options: dict[str, Any] = {"include": "head", "progress": False}
    rows = sensitivity(network(), loader(), ratios=ratios, **options)
    assert [row.p_prune for row in rows] == [0.5]


def test_nothing_is_measured_where_no_candidate_is_pruned() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^p_bern is 0, .* write p_bern=1\.0"):
        sensitivity(network(), loader(), p_bern=0.0, **QUICK)


@pytest.mark.parametrize("ratios", [[], [0.0], [1.5]])
def test_ratios_that_say_nothing_are_refused(ratios: list[float]) -> None:
    with pytest.raises(InvalidArgumentError, match="ratios"):
        sensitivity(network(), loader(), ratios=ratios)
