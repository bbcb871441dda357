"""Runs that train, prune and retrain: what they leave on disk, and how they go on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from retrain_rows import COLUMNS
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.results import Results, RetrainRow
from secateurs.selection.selection_options import SelectionOptions
from secateurs.training.epochs import DivergedError
from secateurs.training.labelled_images import (
    LabelledImages,
    StreamedImages,
    TrainingImages,
    epoch,
    steps_of,
)
from secateurs.training.pruner import Pruner
from secateurs.training.regrowth import GradientRegrowth
from secateurs.training.retrain import BEST, DENSE, LAST, STATE, RetrainData, Retraining
from secateurs.training.retrain_plan import RetrainPlan
from secateurs.training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=3, learning_rate=0.1, batch_size=16, weight_decay=0.0)
PLAN = RetrainPlan(ratio=0.75, dense=SETTINGS, retraining=SETTINGS, every=2)
MEASURED = ("duration",)
NEIGHBOURS = SelectionOptions(scope="2:4")


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 3)
    )


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.Flatten(), nn.Linear(6, 3)
    )


def images(count: int, seed: int = 0) -> LabelledImages:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    noise = torch.randn(count, 1, 4, 4, generator=generator)
    noise[torch.arange(count), 0, labels, :] += 2
    return LabelledImages(noise, labels)


DATA = RetrainData(images(64), images(32, 1), images(48, 2))


def run(
    folder: Path,
    plan: RetrainPlan = PLAN,
    data: RetrainData = DATA,
    build: Callable[[], nn.Module] = small,
) -> list[RetrainRow]:
    with Results(folder, RetrainRow) as results:
        results.open({"plan": repr(plan)})
        return Retraining(
            build(), data, plan, columns=COLUMNS, results=results, folder=folder
        ).run()


def comparable(rows: list[RetrainRow]) -> list[dict[str, Any]]:
    return [
        {name: repr(v) for name, v in row.as_dict().items() if name not in MEASURED} for row in rows
    ]


class Stopping(TrainingImages):
    """Images that can be read so many batches long, and then the power goes."""

    def __init__(self, inner: LabelledImages, batches: int):
        self.inner, self.left = inner, batches

    def __len__(self) -> int:
        return len(self.inner)

    def batches(self, order: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.inner.batches(order, batch_size):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            yield batch

    def part(self, which: Tensor) -> "Stopping":
        return Stopping(self.inner.part(which), self.left)


@pytest.mark.parametrize(
    "changes",
    [
        *({"schedule": schedule} for schedule in ("one-shot", "iterative", "cubic")),
        *({"schedule": "cubic", "regrowth": how} for how in ("magnitude", "gradient")),
        {"schedule": "iterative", "regrowth": "magnitude"},
        {"distill": 0.9},
        {"schedule": "one-shot", "options": SelectionOptions(score="taylor")},
    ],
    ids=str,
)
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    plan = replace(PLAN, rounds=3, **changes)
    whole = run(tmp_path / "whole", plan)
    stopped = tmp_path / "stopped"
    for batches in (6, 7, 5):  # in the dense phase, and twice in the other
        with pytest.raises(KeyboardInterrupt):
            run(stopped, plan, replace(DATA, train=Stopping(images(64), batches)))
    assert comparable(run(stopped, plan)) == comparable(whole)
    assert comparable(run(stopped, plan)) == comparable(whole)  # nothing is left to do
    for name in (DENSE, BEST, LAST):
        first, second = load_file(tmp_path / "whole" / name), load_file(stopped / name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    with Results(stopped, RetrainRow) as results:
        assert comparable(results.rows()) == comparable(whole)


def test_a_convolutional_network_goes_on_in_its_memory_format(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", build=convolutional)
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        # One more batch: the first image alone, which tries the memory format.
        run(stopped, PLAN, replace(DATA, train=Stopping(images(64), 18)), convolutional)
    assert comparable(run(stopped, build=convolutional)) == comparable(whole)
    first, second = (load_file(folder / LAST) for folder in (tmp_path / "whole", stopped))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_a_run_leaves(tmp_path: Path) -> None:
    rows = run(tmp_path)
    assert [(row.phase, row.epoch) for row in rows[:6]] == [
        *(("dense", number) for number in (1, 2, 3)),
        *(("retrain", number) for number in (1, 2, 3)),
    ]
    dense, pruned = rows[6:]
    assert (dense.phase, pruned.phase) == ("test dense", "test pruned")
    assert (dense.achieved, pruned.achieved) == (0.0, 0.75)
    assert {row.count for row in (dense, pruned)} == {48}
    best = load_file(tmp_path / BEST)
    assert sum(int((t == 0).sum()) for name, t in best.items() if "weight" in name) == 171
    model = small()
    model.load_state_dict(best)  # as it is, into a plain model
    logits = model.eval()(DATA.test.images)  # type: ignore[union-attr]
    right = logits.argmax(1) == DATA.test.labels  # type: ignore[union-attr]
    assert int(right.sum()) == pruned.correct


@pytest.mark.parametrize(("schedule", "start"), [("cubic", "score"), ("one-shot", "erk")])
def test_gradual_pruning_with_regrowth_begins_by_score(schedule: str, start: str) -> None:
    plan = replace(PLAN, schedule=schedule, regrowth="gradient")
    regrow = GradientRegrowth(every=2, until=9, start=start)  # of 12 steps, three quarters
    seen: list[Masks] = []
    for by_plan in (True, False):
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if by_plan:
            pruner = plan.make_pruner(model, optimizer, 4)
        else:
            pruner = Pruner(model, optimizer, plan.make_schedule(4), regrow=regrow, seed=plan.seed)
        torch.manual_seed(0)
        for _ in range(3):
            optimizer.zero_grad()
            model(DATA.train.images[:8]).square().sum().backward()  # type: ignore[attr-defined]
            optimizer.step()
            pruner.step()
        seen.append(pruner.masks)
    assert seen[0] == seen[1]
    assert seen[0].table.zeros > 0


def test_the_best_epoch_is_one_after_the_last_pruning(tmp_path: Path) -> None:
    rows = run(tmp_path, replace(PLAN, schedule="iterative", rounds=3))
    assert rows[-1].epoch == 3
    assert rows[-1].achieved == 0.75


def test_epochs_before_the_pruning_may_be_left_out(tmp_path: Path) -> None:
    plan = replace(PLAN, dense=replace(SETTINGS, epochs=0))
    rows = run(tmp_path, plan)
    assert [row.phase for row in rows] == ["retrain"] * 3 + ["test dense", "test pruned"]
    assert comparable(run(tmp_path, plan)) == comparable(rows)


def test_distillation_learns_from_the_dense_network_after_its_epochs(tmp_path: Path) -> None:
    """A network that lost nothing has nothing to learn from it, whatever its labels are."""
    plan = replace(PLAN, ratio=0.0, distill=1.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with Results(tmp_path, RetrainRow) as results:
        results.open({})
        rows = Retraining(
            model, DATA, plan, columns=COLUMNS, results=results, folder=tmp_path
        ).run()
    losses = [row.train_loss for row in rows if row.phase == "retrain"]
    assert losses == pytest.approx([0.0] * 3, abs=1e-6)
    dense = load_file(tmp_path / DENSE)
    for name, values in model.state_dict().items():
        assert torch.allclose(values, dense[name], atol=1e-5)


def test_a_loss_that_is_none_stops_the_run_and_keeps_the_last_weights(tmp_path: Path) -> None:
    run_whole = run(tmp_path / "whole")
    broken = images(64)
    wild = replace(PLAN, retraining=replace(SETTINGS, learning_rate=1e30), distill=0.9)
    with pytest.raises(
        DivergedError,
        match=r"retrain epoch 1: the loss became NaN .* at step \d+ .*; distillation needs a lower",
    ):
        run(tmp_path / "wild", wild)
    kept = load_file(tmp_path / "wild" / LAST)
    assert all(t.isfinite().all() for t in kept.values())
    broken.images[3] = float("nan")
    with pytest.raises(DivergedError, match="dense epoch 1"):
        run(tmp_path / "broken", data=replace(DATA, train=broken))
    all_at_once = replace(wild, retraining=replace(SETTINGS, learning_rate=3e38, batch_size=64))
    with pytest.raises(
        DivergedError, match=r"retrain epoch 1: .* validation images .* after step 1 of 1 .*last"
    ):
        run(tmp_path / "last step", replace(all_at_once, schedule="one-shot"))
    kept = load_file(tmp_path / "last step" / LAST)
    assert all(t.isfinite().all() for t in kept.values())
    assert run_whole[-1].top1 > 80


@pytest.mark.parametrize("kind", [LabelledImages, StreamedImages])
def test_shares_of_ranks_are_the_batches_of_one_process(kind: type) -> None:
    inner = images(70)
    some: TrainingImages = inner
    if kind is StreamedImages:
        some = StreamedImages(TensorDataset(inner.images, inner.labels))
    whole = list(epoch(some, 3, batch_size=20, seed=5))
    shares = [list(epoch(some, 3, batch_size=20, seed=5, rank=r, ranks=2)) for r in range(2)]
    assert steps_of(some, 20) == len(whole) == 4
    assert steps_of(some, 20, 2) == len(shares[0]) == 4
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        rows = torch.cat([part[0] for part in parts]).flatten(1).tolist()
        assert sorted(map(tuple, rows)) == sorted(map(tuple, batch[0].flatten(1).tolist()))


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(33, 16, [16, 16]), (34, 16, [16, 16, 2]), (1, 16, [1]), (3, 1, [1, 1, 1])],
)
def test_no_image_is_a_batch_alone(count: int, batch_size: int, sizes: list[int]) -> None:
    """Batch normalisation would refuse it."""
    some = images(count)
    found = [len(labels) for _, labels in epoch(some, 1, batch_size=batch_size, seed=0)]
    assert found == sizes and steps_of(some, batch_size) == len(sizes)


def test_a_batch_of_which_no_image_can_be_read_is_replaced() -> None:
    inner = images(12)
    inner.labels[[2, 7, 8]] = -1
    some = StreamedImages(TensorDataset(inner.images, inner.labels))
    labels = [labels.tolist() for _, labels in epoch(some, 1, batch_size=1, seed=0)]
    assert len(labels) == 12 and all(len(each) == 1 and each != [-1] for each in labels)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_first_batches_of_which_too_few_images_can_be_read_are_replaced(batch_size: int) -> None:
    inner = images(12)
    places = torch.arange(12.0).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    order = torch.cat([batch.flatten() for batch, _ in epoch(
        LabelledImages(places[..., :1, :1], inner.labels), 1, batch_size=batch_size, seed=0
    )]).long()  # fmt: skip
    for count in (batch_size, 2 * batch_size - 1):  # of the second batch, one alone is left
        labels = inner.labels.clone()
        labels[order[:count]] = -1
        some = StreamedImages(TensorDataset(places, labels))
        found = list(epoch(some, 1, batch_size=batch_size, seed=0))
        third = order[2 * batch_size :][:batch_size].tolist()
        assert len(found) == 12 // batch_size == steps_of(some, batch_size)
        assert found[2][0][:, 0, 0, 0].tolist() == third
        first = third if count > batch_size else order[batch_size:][:batch_size].tolist()
        assert found[0][0][:, 0, 0, 0].tolist() == first
    unread = StreamedImages(TensorDataset(places, torch.full((12,), -1)))
    with pytest.raises(FailureError, match="too few of the training images can be read"):
        list(epoch(unread, 1, batch_size=batch_size, seed=0))


def test_scores_before_the_first_step_leave_out_a_batch_that_cannot_be_read(tmp_path: Path) -> None:
    inner = images(64)
    inner.labels[:16] = -1
    data = replace(DATA, train=StreamedImages(TensorDataset(inner.images, inner.labels)))
    plan = replace(PLAN, schedule="one-shot", options=SelectionOptions(score="taylor"))
    assert run(tmp_path, plan, data)[-1].achieved == 0.75
    inner.labels[:] = -1
    dense = replace(SETTINGS, epochs=0)
    with pytest.raises(FailureError, match="too few of the training images can be read"):
        run(tmp_path / "none", replace(plan, dense=dense), data)


def test_images_of_which_none_can_be_read_are_not_scored(tmp_path: Path) -> None:
    unread = StreamedImages(TensorDataset(DATA.test.images, torch.full((48,), -1)))
    with pytest.raises(FailureError, match="none of the images to score can be read"):
        run(tmp_path, data=replace(DATA, test=unread))


def test_a_state_that_is_no_such_file_is_refused(tmp_path: Path) -> None:
    run(tmp_path, replace(PLAN, retraining=replace(SETTINGS, epochs=1)))
    (tmp_path / STATE).write_bytes(b"something else")
    with pytest.raises(FailureError, match="is damaged, so the training cannot go on from it"):
        run(tmp_path, replace(PLAN, retraining=replace(SETTINGS, epochs=1)))


def test_an_error_before_there_is_a_dense_network_names_none(tmp_path: Path) -> None:
    model = nn.Conv2d(1, 3, 1)
    with (
        Results(tmp_path, RetrainRow) as results,
        pytest.raises(InvalidArgumentError, match=r"wrap it in a module that does$"),
    ):
        Retraining(model, DATA, PLAN, columns=COLUMNS, results=results, folder=tmp_path).run()


def test_a_state_that_no_file_can_hold_is_refused_before_training(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 0}

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(InvalidArgumentError, match=r"has 1\._extra_state, a dict"):
        run(tmp_path, build=lambda: nn.Sequential(nn.Flatten(), Counting(16, 3)))
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("augment", ["none", "shift", "flip", "crop-flip"])
def test_augmentation_repeats_itself(augment: str) -> None:
    first, again, other = (
        torch.cat(
            [batch for batch, _ in epoch(images(40), n, batch_size=16, seed=1, augment=augment)]
        )
        for n in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == other.shape


def test_crops_are_windows_of_the_padded_image() -> None:
    from secateurs.training.augmentation import crop_flip, flip

    image = torch.arange(1.0, 17).view(1, 1, 4, 4)
    padded = nn.functional.pad(torch.cat([image, image.flip(3)]), (1,) * 4)
    windows = [padded[m, 0, r : r + 4, c : c + 4]
               for m in range(2) for r in range(3) for c in range(3)]  # fmt: skip
    found = crop_flip(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    seen = {next(i for i, w in enumerate(windows) if torch.equal(w, one[0])) for one in found}
    assert seen == set(range(18))
    flipped = flip(image.expand(200, -1, -1, -1), torch.Generator().manual_seed(0))
    assert torch.equal(flipped.unique(dim=0), torch.cat([image, image.flip(3)]))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ratio": 1.5}, "ratio"),
        ({"schedule": "linear"}, "schedule"),
        ({"regrowth": "random"}, "regrowth"),
        ({"schedule": "iterative", "rounds": 4}, "more epochs, or fewer rounds"),
        ({"rewind": True}, "only the iterative schedule has rounds"),
        ({"rounds": 0}, "rounds"),
        ({"keep_at_least": 0.5}, "keep_at_least=0.5 of each layer is to be kept and 0.75 pruned"),
        (
            {"schedule": "iterative", "rounds": 3, "rewind": True, "regrowth": "magnitude"},
            "rewind does not go with MagnitudeRegrowth",
        ),
        (
            {"schedule": "one-shot", "ratio": 0.5, "regrowth": "gradient", "options": NEIGHBOURS},
            "GradientRegrowth grows weights wherever",
        ),
        ({"options": SelectionOptions(score="wanda")}, "score='wanda' reads what goes into"),
        ({"distill": 1.5}, "distill must be from 0 to 1"),
        ({"temperature": 0}, "temperature must be a number above 0, got 0; write temperature=4.0"),
    ],
)
def test_plans_that_are_refused(changes: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidArgumentError, match=error):
        replace(PLAN, **changes)


def test_splits() -> None:
    first, second = images(50).split(0.2)
    again, _ = images(50).split(0.2)
    assert (len(first), len(second)) == (40, 10)
    assert torch.equal(first.images, again.images)
    for fraction in (0.0, 1.0, 0.001):
        with pytest.raises(InvalidArgumentError, match="validation"):
            images(50).split(fraction)
