"""A benchmark that is stopped goes on where it was, and ends as if it had not been."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_benchmark import benchmark, outcome

from secateurs._io.json_objects import BrokenJSONError
from secateurs.errors import InvalidArgumentError
from secateurs.results import TransferRow, read_rows
from secateurs.transfer import AttackVariants, attack_runner
from secateurs.transfer.outcomes import Outcome

HERE = Path(__file__).parent


class Stop(BaseException):
    """As Ctrl-C."""


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let so many batches pass; the list has one entry a batch."""
    attacked: list[int] = []
    attack = attack_runner.attack_batch

    def counting(*words: Any, **options: Any) -> Any:
        if len(attacked) == batches:
            raise Stop
        attacked.append(words[3])
        return attack(*words, **options)

    monkeypatch.setattr(attack_runner, "attack_batch", counting)
    return attacked


def test_it_goes_on_after_the_last_finished_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(benchmark().run())
    with monkeypatch.context() as patch:
        stop_after(6, patch)
        with pytest.raises(Stop):
            benchmark().run(output=tmp_path)
    # Noise took four batches; of the first plain attack two are done.
    assert {row.variant for row in read_rows(tmp_path, TransferRow)} == {"noise"}
    with monkeypatch.context() as patch:
        attacked = stop_after(1000, patch)
        assert outcome(benchmark().run(output=tmp_path)) == expected
    assert len(attacked) == 7 * 4 - 6 and attacked[:2] == [8, 12]
    with monkeypatch.context() as patch:
        attacked = stop_after(1000, patch)
        assert outcome(benchmark().run(output=tmp_path)) == expected
    assert attacked == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"job": " | x", "outcome": {}}', '{"job": " |  | noise | seed 0", "outcome": 3}'],
)
def test_broken_progress_costs_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    expected = outcome(benchmark(limit=5).run())
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(Stop):
            benchmark(limit=5).run(output=tmp_path)
    (tmp_path / "progress.json").write_text(text)
    assert outcome(benchmark(limit=5).run(output=tmp_path)) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 6}, "images.count: there 5, now 6"),
        ({"steps": 6}, "protocol.steps: there 5, now 6"),
        ({"seeds": (1,)}, r"seeds: there \[0\], now \[1\]"),
        ({"variants": AttackVariants(p_prune=[0.4]).all}, "variants: there"),
    ],
)
def test_a_folder_of_another_run(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    first = benchmark(limit=5).run(output=tmp_path)
    with pytest.raises(InvalidArgumentError, match=words):
        benchmark(**{"limit": 5, **options}).run(output=tmp_path)
    assert read_rows(tmp_path, TransferRow) == first
    again = benchmark(**{"limit": 5, **options}).run(output=tmp_path, overwrite=True)
    assert read_rows(tmp_path, TransferRow) == again


def test_variants_and_seeds_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = AttackVariants(p_prune=[0.3]).all, AttackVariants(p_prune=[0.6, 0.3]).all
    first = benchmark(limit=5, variants=few).run(output=tmp_path)
    with monkeypatch.context() as patch:
        attacked = stop_after(1000, patch)
        rows = benchmark(limit=5, variants=many, seeds=(0, 1)).run(output=tmp_path)
    # Two batches a job: the new variant on three groups; noise, plain and both with a new seed.
    assert len(attacked) == 2 * (3 + 1 + 3 * 3)
    assert outcome(rows) == outcome(benchmark(limit=5, variants=many, seeds=(0, 1)).run())
    on_disk = read_rows(tmp_path, TransferRow)
    assert on_disk[: len(first)] == first
    assert len(on_disk) == len(rows) and all(row in rows for row in on_disk)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_twice_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    path = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    subprocess.run(
        [sys.executable, str(HERE / "small_benchmark.py"), str(tmp_path), "6", "9"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert (tmp_path / "progress.json").exists()
    finished = read_rows(tmp_path, TransferRow)
    rows = benchmark(seeds=(0, 1)).run(output=tmp_path)
    assert 0 < len(finished) < len(rows)
    assert rows[: len(finished)] == finished
    assert outcome(rows) == outcome(benchmark(seeds=(0, 1)).run())
    assert read_rows(tmp_path, TransferRow) == rows
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"config.json", "results.jsonl", "results.csv"}


OUTCOME: dict[str, Any] = {
    "seen": 4,
    "seconds": {"2": 0.5, "5": 1.0},
    "hits": {"2": {"a": ["0110", "1110"]}, "5": {"a": ["0110", "1111"]}},
    "achieved": 0.25,
}
JOB: dict[str, Any] = {"total": 5, "batch_size": 4, "targeted": True}


def test_an_outcome_comes_back() -> None:
    outcome = Outcome.from_dict(OUTCOME)
    assert outcome.to_dict() == OUTCOME
    outcome.check([2, 5], ["a"], **JOB)
    Outcome().check([2, 5], ["a"], **JOB)


@pytest.mark.parametrize(
    "change",
    [
        {"seen": 3},
        {"seen": 5},
        {"seen": 6},
        {"seen": 0},
        {"seen": None},
        {"seen": "4"},
        {"seconds": {"2": None, "5": 1.0}},
        {"seconds": {"2": math.inf, "5": 1.0}},
        {"seconds": {"5": 1.0}},
        {"seconds": [1]},
        {"achieved": 7},
        {"hits": {"5": {"a": ["0110", "1111"]}}},
        {"hits": OUTCOME["hits"] | {"x": {}}},
        {"hits": OUTCOME["hits"] | {"9" * 5000: {}}},
        {"hits": OUTCOME["hits"] | {"5": {"b": ["0110", "1111"]}}},
        {"hits": OUTCOME["hits"] | {"5": {"a": ["011", "1111"]}}},
        {"hits": OUTCOME["hits"] | {"5": {"a": ["0110", "11111"]}}},
        {"hits": OUTCOME["hits"] | {"5": {"a": ["0110", "11x1"]}}},
        {"hits": OUTCOME["hits"] | {"5": {"a": ["", "1111"]}}},
        {"hits": OUTCOME["hits"] | {"5": {"a": "01"}}},
        {"hits": OUTCOME["hits"] | {"5": {"a": [1, 2]}}},
    ],
    ids=lambda change: str(change)[:60],
)
def test_an_outcome_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BrokenJSONError) as caught:
        Outcome.from_dict(OUTCOME | change).check([2, 5], ["a"], **JOB)
    assert len(str(caught.value)) < 300


def test_hits_that_disagree_with_what_was_seen_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(benchmark(limit=5).run())
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(Stop):
            benchmark(limit=5).run(output=tmp_path)
    file = tmp_path / "progress.json"
    saved = json.loads(file.read_text())
    pair = next(iter(next(iter(saved["outcome"]["hits"].values())).values()))
    pair[0] += "111"
    file.write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match=r"progress\.json cannot be used .*became of 4 images"):
        assert outcome(benchmark(limit=5).run(output=tmp_path)) == expected


@pytest.mark.parametrize("edit", ["lost", "images"])
def test_a_job_whose_rows_are_not_all_there_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    expected = outcome(benchmark(limit=5).run(output=tmp_path))
    file = tmp_path / "results.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    if edit == "lost":
        del lines[-1]
    else:
        lines[-1] = re.sub(r'"images": "\w+"', '"images": "0123456789abcdef"', lines[-1])
    file.write_text("".join(lines))
    with monkeypatch.context() as patch:
        attacked = stop_after(1000, patch)
        assert outcome(benchmark(limit=5).run(output=tmp_path)) == expected
    assert attacked == [0, 4]
