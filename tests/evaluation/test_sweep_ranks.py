"""Ranks that split the images: the rows are those of one process.

Here they are threads of one process; tests/cli/test_cli_ranks.py starts them with torchrun.
"""

import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
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
from secateurs.evaluation import runner, sweep
from secateurs.parameters.target import Target
from secateurs.results import Row, read_rows


def joined(store: Any, rank: int, size: int) -> Any:
    """A process group as ``init_process_group("gloo")`` makes it, which a process has once."""
    group: Any = dist.ProcessGroup(store, rank, size)
    backend: Any = dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=60))
    gloo: Any = dist.ProcessGroup.BackendType.GLOO
    group._register_backend(torch.device("cpu"), gloo, backend)
    group._set_default_backend(gloo)
    return group


def without_frames(error: BaseException) -> BaseException:
    """An error that holds nothing alive, such as the connections of a process group."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def on_ranks(size: int, work: Callable[[Any], Any]) -> list[Any]:
    """What each rank returned or raised; one that raised has left, as a process that ends."""
    store: Any = dist.HashStore()
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(joined(store, rank, size))
        except BaseException as error:
            found[rank] = without_frames(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
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
        lambda group: sweep(
            models[group.rank()], batches, process_group=group, output=output, **given
        ),
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
        "config.json", "layers.jsonl", "outcomes.json", "results.jsonl", "results.csv",
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
        lambda group: [
            sweep(models[group.rank()], loader(each), process_group=group, p_prune=0.5)
            for each in images
        ],
    )
    assert [[rows[0].count for rows in each] for each in found] == [[30, 46], [30, 46]]


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_it_goes_on_with_any_number_of_ranks(tmp_path: Path, error: type[BaseException]) -> None:
    expected = sweep(Stopping(), loader(), **GRID)
    steps = 0
    for size in (4, 1, 3, 2):
        models = [Stopping(2 if rank == size - 1 else 4, error) for rank in range(size)]
        if size == 1:
            with pytest.raises(error):
                sweep(models[0], loader(), output=tmp_path, **GRID)
        else:
            found = swept(size, models, tmp_path)
            assert type(found[-1]) is error
            assert all(isinstance(each, error | LostRankError) for each in found), found
        files = {path.name for path in tmp_path.glob("progress*.json")}
        assert files == {"progress.json", *(f"progress-{rank}.json" for rank in range(1, size))}
        steps += sum(model.passes for model in models)
    models = [Stopping() for _ in range(3)]
    found = swept(3, models, tmp_path)
    check_same(found[0], expected)
    assert steps + sum(model.passes for model in models) == STEPS  # none was lost or run twice
    assert not list(tmp_path.glob("progress*"))


def test_progress_that_was_summed_when_the_run_was_killed_counts_once(tmp_path: Path) -> None:
    swept(2, [Stopping(3), Stopping(3)], tmp_path)
    part = tmp_path / "progress-1.json"
    kept = part.read_bytes()
    with pytest.raises(Stop):
        sweep(Stopping(0), loader(), output=tmp_path, **GRID)
    assert not part.exists()
    part.write_bytes(kept)  # as if it had not come to remove this one
    (tmp_path / ".progress-7.json.123.tmp").write_bytes(kept)
    rows = swept(2, [Stopping(), Stopping()], tmp_path)[0]
    check_same(rows, sweep(Stopping(), loader(), **GRID))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".jsonl", ".csv"}


def test_progress_of_one_rank_keeps_another_sweep_out_of_the_folder(tmp_path: Path) -> None:
    swept(2, [Stopping(0), Stopping(3)], tmp_path)
    assert not (tmp_path / "progress.json").exists()  # rank 0 had done nothing yet
    with pytest.raises(InvalidArgumentError, match="draws: there 2, now 1"):
        sweep(network(), loader(), output=tmp_path, **(GRID | {"draws": 1}))
    sweep(network(), loader(), output=tmp_path, overwrite=True, **(GRID | {"draws": 1}))
    assert not list(tmp_path.glob("progress*"))


def test_progress_of_a_rank_that_is_broken_is_left_aside(tmp_path: Path) -> None:
    swept(3, [Stopping(3) for _ in range(3)], tmp_path)
    for broken in ("{", '{"dense": 3}'):
        (tmp_path / "progress-2.json").write_text(broken)
        with (
            pytest.warns(UserWarning, match=r"progress.*\.json cannot be used"),
            pytest.raises(Stop),
        ):
            sweep(Stopping(3), loader(), output=tmp_path, **GRID)
    rows = sweep(Stopping(), loader(), output=tmp_path, **GRID)
    check_same(rows, sweep(Stopping(), loader(), **GRID))


def test_other_batches_may_go_on(tmp_path: Path) -> None:
    for size, batch_size in ((2, 7), (3, 3)):
        models = [Stopping(3) for _ in range(size)]
        swept(size, models, tmp_path, batches=loader(batch_size=batch_size))
    rows = sweep(Stopping(), loader(batch_size=16), output=tmp_path, **GRID)
    expected = sweep(Stopping(), loader(batch_size=16), **GRID)
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_fails_among_the_images_ends_the_others(failing: int) -> None:
    models = [Stopping(2 if rank == failing else None) for rank in range(3)]
    found = swept(3, models)
    assert type(found.pop(failing)) is Stop
    for error in found:
        assert isinstance(error, LostRankError)
        assert "of 3 has lost another rank" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidArgumentError("no"), [(InvalidArgumentError, "no (rank 1)")] * 2),
        (ValueError("no"), [(FailureError, "ValueError: no (rank 1)"), (ValueError, "no")]),
    ],
)
def test_a_score_that_raises_on_one_rank_is_named_on_all(error: Exception, expected: Any) -> None:
    def work(group: Any) -> Any:
        def mine(target: Target) -> Tensor:
            if group.rank() == 1:
                raise error
            return target.weight.abs()

        return sweep(models[group.rank()], data, process_group=group, p_prune=0.5, score=mine)

    models, data = [network(), network()], loader()
    assert [(type(each), str(each)) for each in on_ranks(2, work)] == expected


def test_an_image_that_cannot_be_read_is_named_with_the_rank(tmp_path: Path) -> None:
    def fail(index: int) -> None:
        if index == 40:
            raise FailureError("cannot read 40.png")

    images = Images(before=fail)
    found = swept(2, [Stopping(), Stopping()], tmp_path, batches=loader(images))
    assert isinstance(found[0], LostRankError) and str(found[1]) == "cannot read 40.png (rank 1)"
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
        lambda group: sweep(
            models[group.rank()],
            loader(),
            process_group=group,
            output=tmp_path,
            p_prune=[0.5] if group.rank() else [0.5, 0.3],
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
        ({"output": "b"}, r"rank 0 writes the results, to '.*a'.*, and rank 1 was given '.*b'"),
        ({"output": "a", "overwrite": True}, r"overwrite=False\), and rank 1 .*overwrite=True"),
    ],
)
def test_results_that_rank_0_would_not_write_are_refused(
    tmp_path: Path, given: dict[str, Any], complaint: str
) -> None:
    # Made here, not in the threads, which share torch's random numbers.
    models, data = [network(), network()], loader()

    def run(group: Any) -> list[Row]:
        options = dict(given) if group.rank() else {"output": "a"}
        options["output"] = tmp_path / options["output"]
        return sweep(models[group.rank()], data, process_group=group, p_prune=[0.5], **options)

    for error in on_ranks(2, run):
        assert isinstance(error, InvalidArgumentError)
        assert re.search(complaint, str(error)) and "\n" not in str(error)
    assert list(tmp_path.iterdir()) == []


def test_other_ranks_need_no_output(tmp_path: Path) -> None:
    # Made before the threads, which share the generator that they are drawn from.
    models, data = [network(), network()], loader()

    def run(group: Any) -> list[Row]:
        output = None if group.rank() else tmp_path
        return sweep(models[group.rank()], data, process_group=group, p_prune=[0.5], output=output)

    first, second = on_ranks(2, run)
    assert first == second and (tmp_path / "results.csv").exists()


def test_gradients_that_differ_between_ranks_are_noticed() -> None:
    models, data = [network(), network()], loader()
    for rank, model in enumerate(models):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
            parameter.grad[: len(parameter) // 2] += rank
    given: dict[str, Any] = {"p_prune": 0.5, "score": "taylor"}
    found = on_ranks(2, lambda g: sweep(models[g.rank()], data, process_group=g, **given))
    assert all("candidates.weight global taylor" in str(error) for error in found), found


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
    found = on_ranks(2, lambda g: sweep(model, batches, process_group=g, p_prune=0.5))
    assert all(isinstance(error, SecateursError) and message in str(error) for error in found)


def test_a_model_that_ranks_share_is_not_split(tmp_path: Path) -> None:
    store: Any = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(network())
        found = on_ranks(1, lambda g: sweep(model, loader(), process_group=g, p_prune=0.5))
        assert isinstance(found[0], InvalidArgumentError)
        assert "hand in model.module" in str(found[0])
        # Without process_group= it is scored whole, on this process.
        assert sweep(model, loader(), p_prune=0.5)[0].count == IMAGES
    finally:
        dist.destroy_process_group()


def test_rank_0_shows_how_far_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int | None, bool | None]] = []
    original = runner.progress_bar

    @contextmanager
    def bar(what: str, total: int | None, *, show: bool | None, **others: Any) -> Generator[Bar]:
        shown.append((what, total, show))
        with original(what, total, show=False, **others) as quiet:
            yield quiet

    monkeypatch.setattr(runner, "progress_bar", bar)
    swept(2, [Stopping(), Stopping()])
    assert sorted(shown) == [
        ("Sweeping (rank 0 of 2)", 24 * VARIANTS, None),
        ("Sweeping (rank 1 of 2)", 22 * VARIANTS, False),
    ]
    sweep(network(), iter([*loader()]), p_prune=0.5)
    assert shown[-1] == ("Sweeping", None, None)


def test_an_error_on_a_rank_is_worded_for_the_command_line() -> None:
    def fail(images: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    models: list[Any] = [network(), network()]
    for model in models:
        model.forward = fail
    # Made once: both would draw them from the global generator, in two threads.
    given: dict[str, Any] = {"loader": loader(), "p_prune": 0.5, "progress": False}
    found = on_ranks(2, lambda g: sweep(models[g.rank()], process_group=g, **given))
    assert re.search(r"another device \(rank \d\)$", str(found[0]))
    assert "a smaller --img_size, " in found[0].worded(lambda argument: f"--{argument.name}")
