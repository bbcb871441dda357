"""A sweep that breaks off goes on where it was, and ends as if it had not."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import IMAGES, Images, Net, loader, losses, network, outcome
from torch import Tensor
from torch.utils.data import DataLoader

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluate import Subject, accumulate_gradients, passing, sweep
from secateurs.results import Results, Row, read_rows
from secateurs.targets import Target

GRID: dict[str, Any] = {"p_prune": [0, 0.5, 0.9], "p_bern": [1, 0.5], "draws": 2}
VARIANTS = 1 + 2 + 2 * 2
STEPS = VARIANTS * 6


class Stop(Exception):
    """Stands for anything that ends a sweep."""


class Stopping(Net):
    """Breaks off in its forward pass number ``after``."""

    def __init__(self, after: int | None = None, error: type[BaseException] = Stop):
        super().__init__()
        self.load_state_dict(network().state_dict())
        self.after, self.error = after, error

    def forward(self, images: Tensor) -> Any:
        if self.passes == self.after:
            raise self.error
        return super().forward(images)


def uninterrupted() -> list[Row]:
    return sweep(Stopping(), loader(), **GRID)


def check_same(rows: list[Row], folder: Path) -> None:
    expected = uninterrupted()
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)
    assert read_rows(folder) == read_rows(folder / "results.csv") == rows
    assert not (folder / "progress.json").exists()


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 1, 3, VARIANTS, 17, STEPS - 1])
def test_no_step_is_run_twice(tmp_path: Path, after: int, error: type[BaseException]) -> None:
    images = Images()
    with pytest.raises(error):
        sweep(Stopping(after, error), loader(images), output=tmp_path, **GRID)
    assert read_rows_if_any(tmp_path) == []
    model = Stopping()
    rows = sweep(model, loader(images), output=tmp_path, **GRID)
    assert model.passes == STEPS - after
    check_same(rows, tmp_path)
    # Only the batch in which it broke off is read again.
    assert len(images.reads) <= IMAGES + 8


def read_rows_if_any(folder: Path) -> list[Row]:
    return read_rows(folder) if (folder / "results.jsonl").exists() else []


def test_it_may_break_off_many_times_with_other_batches_and_workers(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {"batch_size": 7},
        {"batch_size": 5, "num_workers": 1},
        {"batch_size": 16},
        {"batch_size": 3, "num_workers": 2, "prefetch_factor": 1},
    ]
    for attempt in range(100):
        try:
            way = ways[attempt % len(ways)]
            rows = sweep(Stopping(4), loader(**way), output=tmp_path, **GRID)
            break
        except Stop:
            saved = json.loads((tmp_path / "progress.json").read_text())
            assert all(p["tally"]["count"] == p["seen"] for p in saved.values())
    else:
        pytest.fail("it never ended")
    assert attempt > 8
    check_same(rows, tmp_path)


def test_reading_goes_on_where_the_slowest_variant_was(tmp_path: Path) -> None:
    def fail(index: int) -> None:
        if index == 20:
            raise Stop

    images = Images(before=fail)
    for _ in range(2):
        images.reads.clear()
        with pytest.raises(Stop):
            sweep(Stopping(), loader(images), output=tmp_path, **GRID)
    assert images.reads == [16, 17, 18, 19]
    images.before = None
    check_same(sweep(Stopping(), loader(images), output=tmp_path, **GRID), tmp_path)


@contextmanager
def ctrl_c_every(seconds: float) -> Iterator[None]:
    """Interrupt the main thread again and again, wherever it is, as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_ctrl_c_at_any_moment(tmp_path: Path) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    build = [(type(m), m.training, sorted(m._buffers)) for m in model.modules()]
    images, rows, attempts = loader(batch_size=4), None, 0
    expected = sweep(network(), images, **GRID)
    while rows is None:
        attempts += 1
        try:
            # Not a fixed time, so that it strikes somewhere else each time.
            with ctrl_c_every(0.02 + 0.0037 * (attempts % 13) + 0.002 * (attempts // 13)):
                rows = sweep(model, images, output=tmp_path, **GRID)
        except KeyboardInterrupt:
            for name, value in model.state_dict().items():
                assert torch.equal(value, before[name])
            assert build == [(type(m), m.training, sorted(m._buffers)) for m in model.modules()]
    assert attempts > 3
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)


@pytest.mark.parametrize("where", ["add", "to_dict"])
def test_ctrl_c_while_counting_or_saving(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments that a test by the clock hardly meets: after a batch was counted, and so on."""
    original, calls = getattr(passing.Tally, where), 0

    def interrupted(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(self, *arguments)
        if calls == 10:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(passing, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(passing.Tally, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(Stopping(), loader(), output=tmp_path, **GRID)
    check_same(sweep(Stopping(), loader(), output=tmp_path, **GRID), tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        lambda images: DataLoader(images, batch_size=8, shuffle=True),
        lambda images: DataLoader(images, batch_sampler=[range(40), range(40, IMAGES)]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_loader_without_an_order_starts_again(tmp_path: Path, other: Any, first: bool) -> None:
    images = Images()
    loaders = [other(images), loader(images)]
    with pytest.raises(Stop):
        sweep(Stopping(9), loaders[0 if first else 1], output=tmp_path, **GRID)
    assert (tmp_path / "progress.json").exists() != first
    with pytest.raises(Stop):
        sweep(Stopping(5), loaders[1 if first else 0], output=tmp_path, **GRID)
    rows = sweep(Stopping(), other(images), output=tmp_path, **GRID)
    assert {row.count for row in rows} <= {IMAGES}
    assert outcome(rows) == outcome(sweep(Stopping(), other(images), **GRID))


def test_a_list_of_batches_starts_again(tmp_path: Path) -> None:
    batches = [*loader()]
    with pytest.raises(Stop):
        sweep(Stopping(9), batches, output=tmp_path, **GRID)
    check_same(sweep(Stopping(), batches, output=tmp_path, **GRID), tmp_path)


def test_a_loader_with_its_own_way_of_iterating_starts_again(tmp_path: Path) -> None:
    class Backwards(DataLoader[Any]):
        def __iter__(self) -> Any:
            return reversed([*super().__iter__()])

    with pytest.raises(Stop):
        sweep(Stopping(9), Backwards(Images(), batch_size=8), output=tmp_path, **GRID)
    model = Stopping()
    rows = sweep(model, Backwards(Images(), batch_size=8), output=tmp_path, **GRID)
    assert model.passes == STEPS
    check_same(rows, tmp_path)


def test_a_finished_sweep_is_not_run_again(tmp_path: Path) -> None:
    rows = sweep(network(), loader(), output=tmp_path, **GRID)
    model, images = network(), Images()
    assert sweep(model, loader(images, batch_size=3), output=tmp_path, **GRID) == rows
    assert (model.passes, images.reads) == (0, [])


def test_killed_after_the_rows_and_before_the_progress_went(tmp_path: Path) -> None:
    rows = sweep(network(), loader(), output=tmp_path, **GRID)
    with Results(tmp_path) as results:
        results.save_progress({"dense": {"seen": 3}})
    assert sweep(network(), loader(), output=tmp_path, **GRID) == rows
    assert not (tmp_path / "progress.json").exists()


def test_overwrite_runs_again(tmp_path: Path) -> None:
    sweep(network(), loader(), output=tmp_path, p_prune=[0, 0.1])
    model = network()
    rows = sweep(model, loader(), output=tmp_path, overwrite=True, p_prune=0.5)
    assert model.passes == 6
    assert [row.p_prune for row in read_rows(tmp_path)] == [0.5]
    assert read_rows(tmp_path) == rows


def changed_weights() -> Net:
    model = network()
    with torch.no_grad():
        model.head.bias += 1
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_prune": [0, 0.5]}, r"p_prune: there \[0.0, 0.5, 0.9\], now \[0.0, 0.5\]"),
        ({"granularity": "kernel"}, r'granularity: there \["weight"\], now \["kernel"\]'),
        ({"seed": 1}, "seed: there 0, now 1"),
        ({"draws": 3}, "draws: there 2, now 3"),
        ({"amp": True}, "amp: there false, now true"),
        ({"exclude": "head"}, 'exclude: there "", now "head"'),
        ({"model": changed_weights()}, "weights_sha256: there"),
        ({"loader": loader(Images(30))}, "images: there 46, now 30"),
        ({"subject": Subject(data="other")}, 'data: there "", now "other"'),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_sweep_in_the_folder_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str, finished: bool
) -> None:
    given: dict[str, Any] = {"model": network(), "loader": loader(), **GRID}
    if finished:
        sweep(**given, output=tmp_path)
    else:
        with pytest.raises(Stop):
            sweep(**(given | {"model": Stopping(7)}), output=tmp_path, subject=Subject(model="Net"))
    held = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        sweep(**(given | change), output=tmp_path)
    assert "give another --output, or --overwrite" in str(caught.value)
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == held


def test_another_function_or_gradient_of_the_same_name_is_refused(tmp_path: Path) -> None:
    def make(factor: float) -> Any:
        def mine(target: Target) -> Tensor:
            return target.weight.abs() ** factor * (factor if target.is_convolution else 1.0)

        return mine

    sweep(network(), loader(), p_prune=0.5, score=make(2.0), output=tmp_path / "function")
    sweep(network(), loader(), p_prune=0.5, score=make(2.0), output=tmp_path / "function")
    with pytest.raises(InvalidArgumentError, match=r"candidates.weight global mine: there"):
        sweep(network(), loader(), p_prune=0.5, score=make(0.3), output=tmp_path / "function")

    def with_gradients(count: int) -> Net:
        model = network()
        accumulate_gradients(model, loader(Images(count)))
        return model

    sweep(with_gradients(20), loader(), p_prune=0.5, score="taylor", output=tmp_path / "taylor")
    with pytest.raises(InvalidArgumentError, match=r"candidates.weight global taylor: there"):
        sweep(with_gradients(9), loader(), p_prune=0.5, score="taylor", output=tmp_path / "taylor")


def test_gradients_that_the_subject_names_need_not_be_equal_to_the_bit(tmp_path: Path) -> None:
    # On a GPU they are not; the images that they come from are in the configuration instead.
    model = network()
    accumulate_gradients(model, loader())
    given: dict[str, Any] = {"p_prune": 0.5, "score": "taylor", "output": tmp_path}
    sweep(model, loader(), subject=Subject(score_data="46 images"), **given)
    for parameter in model.parameters():
        parameter.grad *= 1.5
    sweep(model, loader(), subject=Subject(score_data="46 images"), **given)
    with pytest.raises(InvalidArgumentError, match="score_data: there"):
        sweep(model, loader(), subject=Subject(score_data="20 images"), **given)


@pytest.mark.parametrize(
    "wrong", [{"include": "heads"}, {"layers": "conv3d"}, {"score": "gradient"}, {"p_brune": 1}]
)
def test_arguments_that_are_refused_leave_no_trace(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        sweep(network(), loader(), output=tmp_path, p_prune=0.5, **wrong)
    assert list(tmp_path.iterdir()) == []
    sweep(network(), loader(), output=tmp_path, p_prune=0.5)


@pytest.mark.parametrize(
    "saved", ['{"dense": {"seen": 8}}', '{"dense": 3}', "[1]", "{", '{"a": 1}']
)
def test_progress_that_makes_no_sense_is_left_aside(tmp_path: Path, saved: str) -> None:
    with pytest.raises(Stop):
        sweep(Stopping(9), loader(), output=tmp_path, **GRID)
    (tmp_path / "progress.json").write_text(saved)
    check_same(sweep(Stopping(), loader(), output=tmp_path, **GRID), tmp_path)


def test_a_full_disk_ends_the_sweep_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, saves = Results.save_progress, 0

    def full(self: Results, progress: Any) -> None:
        nonlocal saves
        saves += 1
        if saves > 9:
            raise FailureError("the disk is full")
        original(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(passing, "SAVE_EVERY_SECONDS", 0.0)
        patch.setattr(Results, "save_progress", full)
        with pytest.raises(FailureError, match="the disk is full"):
            sweep(Stopping(), loader(), output=tmp_path, **GRID)
    model = Stopping()
    check_same(sweep(model, loader(), output=tmp_path, **GRID), tmp_path)
    assert model.passes == STEPS - 9


@pytest.mark.parametrize("step", [0.1, 7.0, 25.0, 59.0])
def test_progress_is_saved_at_least_every_minute(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long one variant takes for one batch, as long as that is less than a minute."""
    now, saves = 0.0, [0.0]
    original = Results.save_progress

    def save(self: Results, progress: Any) -> None:
        saves.append(now)
        original(self, progress)

    class Slow(Net):
        def forward(self, images: Tensor) -> Any:
            nonlocal now
            now += step
            return super().forward(images)

    monkeypatch.setattr(Results, "save_progress", save)
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=lambda: now)
    monkeypatch.setattr(passing, "time", clock)
    sweep(Slow(), loader(), output=tmp_path, **GRID)
    gaps = [after - before for before, after in pairwise(saves)]
    assert max(gaps) <= max(passing.SAVE_EVERY_SECONDS, step) < 60
    assert len(saves) - 2 <= now / max(step, passing.SAVE_EVERY_SECONDS - step)


def test_images_that_become_readable_in_between_are_noticed(tmp_path: Path) -> None:
    unreadable = {3}

    def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
        kept = [s for i, s in enumerate(samples) if i not in unreadable]
        return torch.stack([s[0] for s in kept]), torch.tensor([s[1] for s in kept])

    images = loader(collate_fn=collate)
    with pytest.raises(Stop):
        sweep(Stopping(4), images, output=tmp_path, **GRID)
    unreadable.clear()
    with pytest.raises(FailureError, match=r"saw 45 images and others 46: .* run the sweep again"):
        sweep(Stopping(), images, output=tmp_path, **GRID)
    check_same(sweep(Stopping(), images, output=tmp_path, **GRID), tmp_path)
