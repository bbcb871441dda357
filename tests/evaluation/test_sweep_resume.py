"""A sweep that breaks off goes on where it was, and ends as if it had not."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_nets import (
    GRID,
    IMAGES,
    SAMPLES,
    STEPS,
    VARIANTS,
    Images,
    Net,
    Stop,
    Stopping,
    loader,
    losses,
    network,
    outcome,
)
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler

from secateurs.errors import FailureError
from secateurs.evaluation import Tally, evaluation_loop, sweep
from secateurs.results import Results, Row, read_rows


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
    assert len(images.reads) <= IMAGES + 8 + 2 * len(SAMPLES)


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
            assert all(
                p["tally"]["count"] == sum(stop - start for start, stop in p["done"])
                for p in saved.values()
            )
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
    assert images.reads == [*SAMPLES, 16, 17, 18, 19]
    images.before = None
    check_same(sweep(Stopping(), loader(images), output=tmp_path, **GRID), tmp_path)


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    """Interrupt the main thread after so much CPU time, wherever it is, as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        if frame.f_code.co_name == "gc_callback":  # hypothesis's: the interpreter drops its errors
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)
            return
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_ctrl_c_at_any_moment(tmp_path: Path) -> None:
    images, rows, attempts = loader(batch_size=4), None, 0
    expected = sweep(network(), images, **GRID)
    while rows is None:
        attempts += 1
        # Not a fixed time, so that it strikes somewhere else each time.
        seconds = 0.004 + 0.0011 * (attempts % 13) + 0.002 * (attempts // 13)
        with suppress(KeyboardInterrupt), ctrl_c_after(seconds):
            rows = sweep(network(), images, output=tmp_path, **GRID)
    assert attempts > 3
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_ctrl_c_inside_of_no_grad_leaves_gradients_as_they_were(enabled: bool) -> None:
    def interrupt(index: int) -> None:
        if index == 20:
            torch._C._set_grad_enabled(not enabled)  # as when it strikes in the exit of no_grad
            raise KeyboardInterrupt

    with torch.set_grad_enabled(enabled):
        with pytest.raises(KeyboardInterrupt):
            sweep(network(), loader(Images(before=interrupt)), **GRID)
        assert torch.is_grad_enabled() == enabled


@pytest.mark.parametrize("where", ["add", "to_dict"])
def test_ctrl_c_while_counting_or_saving(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments that a test by the clock hardly meets: after a batch was counted, and so on."""
    original, calls = getattr(Tally, where), 0

    def interrupted(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(self, *arguments)
        if calls == 10:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Tally, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(Stopping(), loader(), output=tmp_path, save_every=0.0, **GRID)
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


@pytest.mark.parametrize(
    "options",
    [{"drop_last": True}, {"sampler": SequentialSampler(range(40))}],
    ids=["drop_last", "sampler"],
)
def test_a_loader_of_a_part_of_the_images_starts_again(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    for after in (9, 5 * VARIANTS - 1):  # somewhere, and just before the end
        with pytest.raises(Stop):
            sweep(Stopping(after), loader(**options), output=tmp_path, **GRID)
    rows = sweep(Stopping(), loader(**options), output=tmp_path, **GRID)
    assert {row.count for row in rows} == {40}
    assert outcome(rows) == outcome(sweep(Stopping(), loader(**options), **GRID))


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

    def full(self: Results, progress: Any, **of: Any) -> None:
        nonlocal saves
        saves += 1
        if saves > 9:
            raise FailureError("the disk is full")
        original(self, progress, **of)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "save_progress", full)
        with pytest.raises(FailureError, match="the disk is full"):
            sweep(Stopping(), loader(), output=tmp_path, save_every=0.0, **GRID)
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

    def save(self: Results, progress: Any, **of: Any) -> None:
        saves.append(now)
        original(self, progress, **of)

    class Slow(Net):
        def forward(self, images: Tensor) -> Any:
            nonlocal now
            now += step
            return super().forward(images)

    monkeypatch.setattr(Results, "save_progress", save)
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=lambda: now)
    monkeypatch.setattr(evaluation_loop, "time", clock)
    sweep(Slow(), loader(), output=tmp_path, **GRID)
    gaps = [after - before for before, after in pairwise(saves)]
    assert max(gaps) <= max(evaluation_loop.SAVE_EVERY_SECONDS, step) < 60
    assert len(saves) - 2 <= now / max(step, evaluation_loop.SAVE_EVERY_SECONDS - step)


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
