"""The network that is returned passed its test, and no image was scored in vain."""

from typing import Any

import pytest
import torch
from small_nets import Images, Stop, Stopping, loader, network
from torch.utils.data import DataLoader

import secateurs as sc
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Budget, budget
from secateurs.evaluation.paired_drop import claims

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
    pruned = sc.global_prune(network(), best.p_prune)
    assert best.p_prune > 0 and not torch.equal(model.head.weight, pruned.head.weight)
    assert sc.sparsity(model).zeros == sc.sparsity(pruned).zeros
    sc.restore(model)
    for name, tensor in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_too_few_images_are_refused_with_their_number() -> None:
    images = Images(60)
    with pytest.raises(
        InvalidArgumentError, match=r"that needs 492 images; or write max_drop=8\.0"
    ):
        budget(network(), loader(images), 1.0)
    assert images.reads == []


def test_it_says_how_many_images_a_sparser_network_needs() -> None:
    best = budget(network(), loader(Images(100), batch_size=50), 8.0, progress=False)
    if best.needed is not None:
        assert best.needed_for is not None and best.needed_for > best.p_prune
        assert best.needed > 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_drop": 0}, "max_drop"),
        ({"confidence": 1.0}, "confidence"),
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


def test_a_loader_that_gives_other_images_is_refused() -> None:
    class Shrinking(list[Any]):
        def __iter__(self) -> Any:
            self.passes = getattr(self, "passes", 0) + 1
            return super().__iter__() if self.passes == 1 else iter(self[:1])

    batches = Shrinking(DataLoader(Images(100), batch_size=50))
    with pytest.raises(sc.FailureError, match="does not shuffle"):
        budget(network(), batches, 50.0, progress=False)
