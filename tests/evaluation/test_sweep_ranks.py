"""Ranks that split the images: the rows are those of one process.

Here they are threads of one process; tests/cli/test_cli_ranks.py starts them with torchrun.
"""

import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small_nets import (
    GRID,
    IMAGES,
    STEPS,
    VARIANTS,
    Images,
    Stop,
    Stopping,
    loader,
    losses,
    network,
    outcome,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from secateurs._progress import Bar
from secateurs.distributed.process_group import LostRankError
from secateurs.errors import FailureError, InvalidArgumentError, SecateursError
from secateurs.evaluation import Ranks, sweep
from secateurs.results import Row, read_rows


def on_ranks(size: int, work: Callable[[Ranks], Any], present: int | None = None) -> list[Any]:
    """What each rank returned or raised."""
    store: Any = dist.HashStore()
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(Ranks(store, rank, size))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(present or size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return found


def swept(size: int, models: list[Stopping], output: Path | None = None, **given: Any) -> list[Any]:
    """What the ranks of one sweep returned or raised."""
    batches = given.pop("batches", None) or loader()
    given = GRID | given
    return on_ranks(
        size,
        lambda ranks: sweep(models[ranks.rank], batches, ranks=ranks, output=output, **given),
    )


def check_same(rows: list[Row], expected: list[Row]) -> None:
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == losses(expected)  # to the bit: batches and sums are the same


@pytest.mark.parametrize(("size", "batch_size"), [(1, 8), (2, 8), (3, 5), (4, 46), (5, 46), (9, 8)])
def test_rows_are_those_of_one_process(tmp_path: Path, size: int, batch_size: int) -> None:
    models = [Stopping() for _ in range(size)]
    found = swept(size, models, tmp_path, batches=loader(batch_size=batch_size))
    expected = sweep(Stopping(), loader(batch_size=batch_size), **GRID)
    for rows in found:
        check_same(rows, expected)
    assert read_rows(tmp_path) == found[0]
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "results.jsonl", "results.csv",
    }  # fmt: skip
    batches = -(-IMAGES // batch_size)
    assert sum(model.passes for model in models) == batches * VARIANTS
    assert sum(model.passes > 0 for model in models) == min(size, batches)


def test_finished_results_are_there_for_all(tmp_path: Path) -> None:
    rows = sweep(Stopping(), loader(), output=tmp_path, **GRID)
    models = [Stopping() for _ in range(2)]
    assert swept(2, models, tmp_path) == [rows, rows]
    assert [model.passes for model in models] == [0, 0]
    found = swept(2, models, tmp_path, overwrite=True)
    assert [model.passes for model in models] == [STEPS // 2] * 2
    check_same(found[0], rows)


def test_several_sweeps_one_after_another() -> None:
    models = [network() for _ in range(2)]
    # Made here, since threads share the random state that they are drawn from.
    images = [Images(count) for count in (30, 46)]
    found = on_ranks(
        2,
        lambda ranks: [
            sweep(models[ranks.rank], loader(each), ranks=ranks, p_prune=0.5) for each in images
        ],
    )
    assert [[rows[0].count for rows in each] for each in found] == [[30, 46], [30, 46]]


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_it_goes_on_with_any_number_of_ranks(tmp_path: Path, error: type[BaseException]) -> None:
    expected = sweep(Stopping(), loader(), **GRID)
    steps = 0
    for size in (2, 1, 3, 2):
        models = [Stopping(2 if rank == size - 1 else 4, error) for rank in range(size)]
        if size == 1:
            with pytest.raises(error):
                sweep(models[0], loader(), output=tmp_path, **GRID)
        else:
            found = swept(size, models, tmp_path)
            assert any(type(each) is error for each in found), found
            assert all(isinstance(each, error | FailureError) for each in found), found
        assert (tmp_path / "progress.json").exists()
        steps += sum(model.passes for model in models)
    models = [Stopping() for _ in range(4)]
    found = swept(4, models, tmp_path)
    check_same(found[0], expected)
    assert steps + sum(model.passes for model in models) == STEPS  # none was lost or run twice


def test_other_batches_may_go_on(tmp_path: Path) -> None:
    for size, batch_size in ((2, 7), (3, 3)):
        models = [Stopping(3) for _ in range(size)]
        swept(size, models, tmp_path, batches=loader(batch_size=batch_size))
    rows = sweep(Stopping(), loader(batch_size=16), output=tmp_path, **GRID)
    expected = sweep(Stopping(), loader(batch_size=16), **GRID)
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_on_one_rank_is_an_error_on_all(failing: int) -> None:
    models = [Stopping(2 if rank == failing else None) for rank in range(3)]
    found = swept(3, models)
    assert type(found.pop(failing)) is Stop
    for error in found:
        assert isinstance(error, FailureError)
        assert str(error) == f"Stop:  (rank {failing})"


def test_an_image_that_cannot_be_read_is_named_on_all_ranks(tmp_path: Path) -> None:
    def fail(index: int) -> None:
        if index == 40:
            raise FailureError("cannot read 40.png")

    images = Images(before=fail)
    found = swept(2, [Stopping(), Stopping()], tmp_path, batches=loader(images))
    assert [str(error) for error in found] == ["cannot read 40.png (rank 1)", "cannot read 40.png"]
    images.before = None
    models = [Stopping(), Stopping()]
    rows = swept(2, models, tmp_path, batches=loader(images))[1]
    check_same(rows, sweep(Stopping(), loader(), **GRID))
    assert 0 < sum(model.passes for model in models) < STEPS


def test_images_that_are_left_out_are_left_out_by_all() -> None:
    def collate(samples: list[Any]) -> tuple[Tensor, Tensor]:
        kept = [s for s in samples if s[0][0, 0, 0] > -0.5]
        pixels = [s[0] for s in kept]
        none = torch.zeros(0, 1, 8, 8)
        return torch.stack(pixels) if kept else none, torch.tensor([s[1] for s in kept]).long()

    way: dict[str, Any] = {"batch_size": 4, "collate_fn": collate}
    rows = swept(3, [Stopping() for _ in range(3)], batches=loader(**way))[0]
    check_same(rows, sweep(Stopping(), loader(**way), **GRID))
    assert 0 < rows[0].count < IMAGES


def test_what_differs_between_ranks_is_named(tmp_path: Path) -> None:
    models = [network(), network(seed=4)]
    found = on_ranks(
        2,
        lambda r: sweep(
            models[r.rank],
            loader(),
            ranks=r,
            output=tmp_path,
            p_prune=[0.5, 0.3 + r.rank] if r.rank == 0 else [0.5],
        ),
    )
    for error in found:
        assert isinstance(error, InvalidArgumentError)
        assert "the ranks were not called alike" in str(error)
        assert "p_prune: there [0.3, 0.5], now [0.5]" in str(error)
        assert "weights_sha256: there" in str(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"output": "b"}, r"rank 0 writes the results, to '.*a'.*, and rank 1 was told '.*b'"),
        ({"output": "a", "overwrite": True}, r"overwrite=False\), and rank 1 .*overwrite=True"),
    ],
)
def test_results_that_rank_0_would_not_write_are_refused(
    tmp_path: Path, given: dict[str, Any], complaint: str
) -> None:
    # Made here, not in the threads, which share torch's random numbers.
    models, data = [network(), network()], loader()

    def run(ranks: Ranks) -> list[Row]:
        options = {"output": "a"} if ranks.first else dict(given)
        options["output"] = tmp_path / options["output"]
        return sweep(models[ranks.rank], data, ranks=ranks, p_prune=[0.5], **options)

    for error in on_ranks(2, run):
        assert isinstance(error, InvalidArgumentError)
        assert re.search(complaint, str(error)) and "\n" not in str(error)
    assert list(tmp_path.iterdir()) == []


def test_other_ranks_need_no_output(tmp_path: Path) -> None:
    # Made before the threads, which share the generator that they are drawn from.
    models, data = [network(), network()], loader()

    def run(ranks: Ranks) -> list[Row]:
        output = tmp_path if ranks.first else None
        return sweep(models[ranks.rank], data, ranks=ranks, p_prune=[0.5], output=output)

    first, second = on_ranks(2, run)
    assert first == second and (tmp_path / "results.csv").exists()


def test_gradients_that_differ_between_ranks_are_noticed() -> None:
    models, data = [network(), network()], loader()
    for rank, model in enumerate(models):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
            parameter.grad[: len(parameter) // 2] += rank
    given: dict[str, Any] = {"p_prune": 0.5, "score": "taylor"}
    found = on_ranks(2, lambda r: sweep(models[r.rank], data, ranks=r, **given))
    assert all("candidates.weight global taylor" in str(error) for error in found), found


def test_a_rank_that_never_comes_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEURS_TIMEOUT", "1")
    model = network()
    found = on_ranks(2, lambda r: sweep(model, loader(), ranks=r, p_prune=0.5), present=1)
    assert isinstance(found[0], LostRankError)
    assert "rank 0 of 2 waited for rank 1 in vain" in str(found[0])


def test_a_slow_rank_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEURS_TIMEOUT", "4")

    class Slow(Stopping):
        def forward(self, images: Tensor) -> Any:
            if not self.after:
                threading.Event().wait(1.0)
            return super().forward(images)

    models: list[Stopping] = [Slow(1000), Slow()]
    rows = swept(2, models, p_prune=[0.2, 0.4], p_bern=1.0)
    assert [row.count for row in rows[0]] == [IMAGES] * 2


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (DataLoader(Images(), batch_size=8, shuffle=True), "reads a data set in order"),
        ([*loader()], "reads a data set in order"),
        (loader(drop_last=True), "without a sampler, shuffle or drop_last"),
    ],
)
def test_a_loader_that_cannot_be_split_is_refused(batches: Any, message: str) -> None:
    model = network()
    found = on_ranks(2, lambda r: sweep(model, batches, ranks=r, p_prune=0.5))
    assert all(isinstance(error, SecateursError) and message in str(error) for error in found)


def test_a_model_that_ranks_share_is_not_split(tmp_path: Path) -> None:
    store: Any = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(network())
        found = on_ranks(1, lambda r: sweep(model, loader(), ranks=r, p_prune=0.5))
        assert isinstance(found[0], InvalidArgumentError)
        assert "hand in model.module" in str(found[0])
        # Without ranks= it is scored whole, on this process.
        assert sweep(model, loader(), p_prune=0.5)[0].count == IMAGES
    finally:
        dist.destroy_process_group()


def test_one_bar_counts_the_images_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    advanced: dict[str, int] = {}

    def advance(self: Bar, steps: int) -> None:
        name = threading.current_thread().name
        advanced[name] = advanced.get(name, 0) + steps

    monkeypatch.setattr(Bar, "advance", advance)
    shown: list[bool | None] = []
    from secateurs.evaluation import runner

    original = runner.progress_bar

    @contextmanager
    def bar(what: str, total: int | None, *, show: bool | None, **others: Any) -> Generator[Bar]:
        shown.append(show)
        with original(what, total, show=False, **others) as quiet:
            yield quiet

    monkeypatch.setattr(runner, "progress_bar", bar)
    swept(3, [Stopping() for _ in range(3)])
    assert sorted(shown, key=str) == [False, False, None]
    assert max(advanced.values()) == IMAGES * VARIANTS


def test_alone_there_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert Ranks.from_environment() is None
