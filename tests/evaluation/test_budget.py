"""The network that is returned passed its test, and no image was scored in vain."""

import copy
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from small_nets import Images, Stop, Stopping, loader, network
from torch.utils.data import DataLoader

import secateurs as sc
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Budget, Look, budget
from secateurs.evaluation.paired_drop import claims
from secateurs.results import BudgetRow, Results

LEVEL = 0.05 / 7


@pytest.fixture(scope="module")
def found() -> tuple[Any, Images, Budget]:
    model, images = network(), Images(200)
    return model, images, budget(model, loader(images, batch_size=25), 10.0, progress=False)


def test_each_look_is_a_real_prune_and_the_best_is_kept(found: tuple[Any, Images, Budget]) -> None:
    model, images, best = found
    dense = network().eval()(images.pixels).argmax(1) == images.labels
    for look in best.looks:
        pruned = sc.global_prune(network().eval(), look.p_prune)
        right = (pruned(images.pixels).argmax(1) == images.labels)[: look.count]
        assert (look.lost, look.won) == (
            int((dense[: look.count] & ~right).sum()),
            int((~dense[: look.count] & right).sum()),
        )
        assert look.passed == (look.count == 200 and claims(look.lost, look.won, 200, 0.1, LEVEL))
    assert best.p_prune == max(look.p_prune for look in best.looks if look.passed) > 0
    assert {round(best.p_prune + 0.01, 2)} <= {
        look.p_prune for look in best.looks if not look.passed
    }
    assert len(best.looks) <= 7
    assert best.drop == pytest.approx(best.dense_top1 - best.top1) and best.drop_high < 10
    assert sc.sparsity(model).ratio == best.achieved == pytest.approx(best.p_prune, abs=0.002)
    assert torch.equal(model.head.weight, sc.global_prune(network(), best.p_prune).head.weight)


def test_a_network_that_cannot_pass_any_more_is_given_up(
    found: tuple[Any, Images, Budget],
) -> None:
    _, images, best = found
    assert max(look.count for look in best.looks if not look.passed) < 200
    seen = 200 + sum(look.count for look in best.looks)
    assert len(images.reads) == seen == pytest.approx(200 * best.passes)


def test_a_repair_learns_from_the_calibration_images() -> None:
    model = network()
    best = budget(
        model, loader(Images(200), batch_size=50), 10.0, repair=["reconstruct"],
        calibration=torch.randn(64, 1, 8, 8), progress=False,
    )  # fmt: skip
    right = (model.eval()(Images(200).pixels).argmax(1) == Images(200).labels).float().mean()
    assert 100 * float(right) == pytest.approx(best.top1)  # it is the network that was scored
    pruned = sc.global_prune(network(), best.p_prune)
    assert best.p_prune > 0 and not torch.equal(model.head.weight, pruned.head.weight)
    assert sc.sparsity(model).zeros == sc.sparsity(pruned).zeros
    sc.restore(model)
    for name, tensor in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_scores_that_read_inputs_get_those_of_the_calibration_images(tmp_path: Path) -> None:
    model, calibration = network(), torch.randn(64, 1, 8, 8)
    best = budget(
        model, loader(Images(200), batch_size=50), 10.0, score="wanda", calibration=calibration,
        progress=False, output=tmp_path,
    )  # fmt: skip
    other = network().eval()
    with sc.repair.observed_inputs(other, calibration):
        expected = sc.global_prune(other, best.p_prune, score="wanda")
    assert best.p_prune > 0 and torch.equal(model.head.weight, expected.head.weight)
    with pytest.raises(InvalidArgumentError, match="inputs"):  # they were taken away again
        sc.select(model, 0.5, score="wanda")


def test_the_folder_is_locked_until_the_rows_are_written(tmp_path: Path) -> None:
    seen: list[str] = []

    def magnitude(target: Any) -> torch.Tensor:
        try:
            with Results(tmp_path, BudgetRow) as others:
                others.open({})
        except (sc.FailureError, InvalidArgumentError) as error:
            seen.append(str(error))
        return target.weight.abs()

    budget(
        network(), loader(Images(200), batch_size=50), 30.0, score=magnitude, output=tmp_path,
        overwrite=True, progress=False,
    )  # fmt: skip
    assert len(seen) > 10 and all("another run is writing" in each for each in seen)


def test_too_few_images_are_refused_with_their_number() -> None:
    images = Images(60)
    with pytest.raises(
        InvalidArgumentError, match=r"below 1 point, .* needs 595 images; or write max_drop=9\.9"
    ):
        budget(network(), loader(images), 1.0)
    assert images.reads == []


@pytest.mark.parametrize(
    ("look", "needed"),
    [
        (Look(0.5, 280, 12, 6, False), True),  # 2.1 points, the standard error is 1.5
        (Look(0.5, 280, 20, 9, False), False),  # 3.9 points of 4: a number would say nothing
        (Look(0.5, 25, 1, 1, False), False),  # given up early: too few to tell
        (Look(0.5, 280, 25, 5, False), False),
    ],
)
def test_it_says_how_many_images_show_a_drop_where_these_say_it(look: Look, needed: bool) -> None:
    found = look.needed(0.04, LEVEL)
    assert (found is not None) == needed
    assert found is None or look.count < found < 7 * look.count


@pytest.mark.parametrize("repair", [[], ["batchnorm"]])
def test_after_a_kill_the_same_call_goes_on_to_the_same_result(
    tmp_path: Path, repair: list[str]
) -> None:
    asked: dict[str, Any] = {"repair": repair, "progress": False, "save_every": 0.0}
    if repair:
        asked["calibration"] = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    whole, reads = network(), list[int]()
    plain = budget(network(), loader(Images(200), 50), 10.0, **asked)
    images, folder = Images(200), tmp_path / "run"

    def leave_behind(_: int) -> None:
        if len(images.reads) in (120, 310, 420):  # what a kill at this moment leaves
            copytree(folder, tmp_path / str(len(images.reads)))

    images.before = leave_behind
    assert budget(whole, loader(images, 50), 10.0, output=folder, **asked) == plain
    total = len(images.reads)
    for killed in (120, 310, 420):
        images, model, left = Images(200), network(), tmp_path / str(killed)
        assert budget(model, loader(images, 50), 10.0, output=left, **asked) == plain
        assert torch.equal(model.head.weight, whole.head.weight)
        reads.append(len(images.reads))
    assert total > reads[0] > reads[1] > reads[2]
    again = Images(200)
    assert budget(network(), loader(again, 50), 10.0, output=folder, **asked) == plain
    assert len(again.reads) == 4  # no more than tells the images apart
    with pytest.raises(InvalidArgumentError, match="max_drop"):
        budget(network(), loader(again, 50), 20.0, output=folder, **asked)


def test_a_model_that_was_trained_since_it_was_pruned_keeps_its_training() -> None:
    model = sc.global_prune(network(), 0.2)
    with torch.no_grad():
        model.head.bias.add_(0.1)
        model.head.weight.mul_(1.5)
    dense = copy.deepcopy(sc.make_permanent(copy.deepcopy(model)))
    found = budget(model, loader(Images(200)), 10.0, progress=False)
    expected = sc.global_prune(dense, found.p_prune)
    assert torch.equal(model.head.weight, expected.head.weight)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_drop": 0}, "max_drop"),
        ({"max_drop": "1"}, "^max_drop must lie between 0 and 100 points, got '1'"),
        ({"confidence": 1.0}, "^confidence must be .* got 1; write confidence=0.95"),
        ({"repair": ["batchnorm"]}, "calibration"),
        ({"granuarity": "filter"}, "granularity"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        budget(network(), loader(), **options)


def test_whatever_happens_the_model_is_put_back() -> None:
    model = Stopping(after=9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(Stop):
        budget(model, loader(Images(100), batch_size=25), 20.0, progress=False)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert model.training


def test_a_loader_that_shuffles_is_refused() -> None:
    images = DataLoader(Images(200), batch_size=25, shuffle=True)
    with pytest.raises(InvalidArgumentError, match="shuffle=False"):
        budget(network(), images, 10.0, progress=False)


def test_a_loader_that_gives_other_images_is_refused() -> None:
    class Shrinking(list[Any]):
        def __iter__(self) -> Any:
            self.passes = getattr(self, "passes", 0) + 1
            return super().__iter__() if self.passes == 1 else iter(self[:1])

    batches = Shrinking(DataLoader(Images(100), batch_size=50))
    with pytest.raises(sc.FailureError, match="does not shuffle"):
        budget(network(), batches, 50.0, progress=False)
