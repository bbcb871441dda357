from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateurs as sc
from helpers import assert_same, snapshot
from repair.repair_cases import images, network, pruned_network
from secateurs import FailureError, InvalidArgumentError

STEPS = ["batchnorm", "distill"]


def distilled(model: nn.Module | None = None, **options: Any) -> nn.Module:
    model = pruned_network(0.6) if model is None else model
    sc.repair(model, images(), STEPS, iterations=12, distill_batch_size=8, **options)
    return model


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("options", [{"features": 1.0}, {"tighten": 0.5}, {"augment": "shift"}])
def test_an_interrupted_distillation_goes_on_to_the_same_end(
    options: dict[str, Any], tmp_path: Path
) -> None:
    whole = snapshot(distilled(**options))
    state, model = tmp_path / "state.pt", pruned_network(0.6)
    begun = snapshot(model)
    calls: list[int] = []

    def stop(*_: object) -> None:
        calls.append(1)
        saved = tmp_path / "state-2.pt"
        if saved.exists() and saved.stat().st_size > 4000 and len(calls) % 7 == 0:
            raise StoppedError

    hook = model[7].register_forward_pre_hook(stop)
    with pytest.raises(StoppedError):
        distilled(model, state=state, **options)
    hook.remove()
    assert_same(snapshot(model), begun)
    assert_same(snapshot(distilled(model, state=state, **options)), whole)
    assert_same(snapshot(distilled(state=state, **options)), whole)  # it was finished


def test_the_file_of_another_distillation_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    distilled(state=state)
    model = pruned_network(0.6)
    before = snapshot(model)
    (tmp_path / "state-1.pt").unlink()  # of the pass before
    with pytest.raises(InvalidArgumentError, match=r"state-2\.pt belongs to another repair"):
        distilled(model, state=state, learning_rate=0.1)
    assert_same(snapshot(model), before)


def test_a_damaged_file_is_refused_in_the_words_of_a_repair(tmp_path: Path) -> None:
    (tmp_path / "state-2.pt").write_bytes(b"something else")
    model = pruned_network(0.6)
    before = snapshot(model)
    with pytest.raises(FailureError, match=r"state-2\.pt is damaged, or not the state of a repair"):
        distilled(model, state=tmp_path / "state.pt")
    assert_same(snapshot(model), before)


def test_what_it_learns_from_is_the_dense_network_until_the_end() -> None:
    found = []
    for dense in (None, network()):
        model = pruned_network(0.7)
        sc.repair(model, images(), ["distill"], iterations=30, learning_rate=0.01, dense=dense)
        found.append(model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)


def test_float16_which_adam_cannot_train_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^'distill' .* float16, .*call model\.float"):
        sc.repair(pruned_network().half(), images(), ["distill"])


def test_tightened_masks_end_where_they_were() -> None:
    model = pruned_network(0.6)
    before = [target.parameter.detach() != 0 for target in sc.find_targets(model)]
    distilled(model, tighten=0.5, learning_rate=0.01)
    after = [target.parameter.detach() != 0 for target in sc.find_targets(model)]
    assert all(map(torch.equal, before, after))


def test_images_that_cannot_be_changed_at_random() -> None:
    model = sc.global_prune(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), 0.5)
    with pytest.raises(InvalidArgumentError, match=r"of shape \(4,\): write augment='none'$"):
        sc.repair(model, torch.ones(4, 4), ["distill"], augment="shift")


def test_labels_are_for_the_report_alone() -> None:
    labels = torch.zeros(40, dtype=torch.long)
    batches = [(part, labels[:8]) for part in images().split(8)]
    model = pruned_network(0.6)
    accuracies = [
        one.accuracy
        for one in sc.repair(
            model, images(), STEPS, iterations=12, distill_batch_size=8, labelled=batches
        )
    ]
    assert accuracies[0] is not None
    assert accuracies[1] == (
        accuracies[0][1],
        float((model(images()).argmax(1) == 0).float().mean()),
    )
    assert_same(snapshot(model), snapshot(distilled()))
    for wrong, words in (
        ([images()], "^labelled must hold batches of images and labels, got Tensor"),
        ([], "^labelled holds no images"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            sc.repair(pruned_network(), images(), STEPS, labelled=wrong)


def test_labels_that_can_be_read_once_are_refused_before_they_are_read() -> None:
    once = iter([(images(8), torch.zeros(8, dtype=torch.long))])
    with pytest.raises(InvalidArgumentError, match="an iterator can be read only once"):
        sc.repair(pruned_network(), images(), ["batchnorm"], labelled=once)
    assert len(next(once)) == 2
