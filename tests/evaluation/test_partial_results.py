"""Saved progress and rows are used only where they can be of this sweep."""

import json
import math
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
from small_nets import IMAGES, Stop, Stopping, loader, outcome

from secateurs._io.json_objects import BrokenJSONError
from secateurs.evaluation import Tally, sweep
from secateurs.evaluation.partial_results import Progress, read_progress
from secateurs.results import read_rows

SMALL: dict[str, Any] = {"p_prune": [0, 0.5], "progress": False}
GOOD: dict[str, Any] = {
    "done": [[0, 8], [16, 24]],
    "achieved": 0.5,
    "seconds": 1.5,
    "tally": {
        "count": 16,
        "correct1": 3,
        "correct5": 9,
        "loss_sum": 20.25,
        "agreed": 2,
        "divergence_sum": 1.5,
    },
    "hits": ["107", "180"],
}


def test_what_was_written_comes_back() -> None:
    for loss in (20.25, math.inf, 3.0):
        progress = Progress(
            ((0, 8), (16, 24)), 0.5, 1.5, Tally(16, 3, 9, loss), ("00000111", "0" * 8)
        )
        assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
        assert Progress.from_dict(progress.to_dict()) == progress


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": None},  # blocked every later run
        {"seconds": "1"},
        {"seconds": -1.0},
        {"seconds": math.inf},
        {"achieved": 2},
        {"achieved": math.nan},
        {"achieved": True},
        {"done": None},
        {"done": [[0]]},
        {"done": [[0, 8, 9]]},
        {"done": [[8, 0]]},
        {"done": [[0, 8], [4, 12]]},
        {"done": [[0.5, 8]]},
        {"done": [[0, 10**30]]},
        {"done": [[0, 8]]},  # 16 were scored
        {"tally": None},
        {"tally": GOOD["tally"] | {"count": -1}},
        {"tally": GOOD["tally"] | {"count": "16"}},
        {"tally": GOOD["tally"] | {"correct1": 17}},
        {"tally": GOOD["tally"] | {"correct5": 2}},
        {"tally": GOOD["tally"] | {"loss_sum": None}},
        {"tally": GOOD["tally"] | {"loss_sum": 10**400}},
        {"tally": {"count": 16}},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    Progress.from_dict(GOOD)
    with pytest.raises(BrokenJSONError) as caught:
        Progress.from_dict(GOOD | change)
    assert len(str(caught.value)) < 300


def test_more_than_there_is_has_not_been_seen() -> None:
    assert set(read_progress([{"a": GOOD, "other": 3}], ["a", "b"], 24)) == {"a"}
    with pytest.raises(BrokenJSONError, match="seen 24 of 23 images"):
        read_progress([{"a": GOOD}], ["a"], 23)


def test_a_null_among_the_seconds_does_not_block_later_runs(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        sweep(Stopping(7), loader(), output=tmp_path, **SMALL)
    file = tmp_path / "progress.json"
    saved = json.loads(file.read_text())
    next(iter(saved.values()))["seconds"] = None
    file.write_text(json.dumps(saved))
    with pytest.warns(UserWarning, match=r"progress\.json cannot be used \(None is not a number"):
        rows = sweep(Stopping(), loader(), output=tmp_path, **SMALL)
    assert outcome(rows) == outcome(sweep(Stopping(), loader(), **SMALL))
    assert not file.exists()


def test_mutations_give_progress_or_one_error() -> None:
    rng, text = random.Random(0), json.dumps(GOOD)
    pieces = ["null", "-1", "9" * 400, "[", "{}", "NaN", "1e999", '"', ",", "0", "true", "[[]]"]
    read = 0
    for _ in range(2000):
        start = rng.randrange(len(text))
        odd = text[:start] + rng.choice(pieces) + text[start + rng.randrange(6) :]
        try:
            value = json.loads(odd)
        except ValueError:
            continue
        try:
            progress = Progress.from_dict(value)
            assert 0 <= progress.tally.count <= progress.seen
            assert 0 <= progress.achieved <= 1
        except BrokenJSONError:
            read += 1
    assert read > 100


@pytest.mark.parametrize("edit", ["twice", "other", "more"])
def test_rows_of_something_else_do_not_count_as_finished(tmp_path: Path, edit: str) -> None:
    rows = sweep(Stopping(), loader(), output=tmp_path, **SMALL)
    file = tmp_path / "results.jsonl"
    first, second = file.read_text().splitlines(keepends=True)
    other = second.replace('"p_prune": 0.5', '"p_prune": 0.25')
    texts = {"twice": first + first, "other": first + other, "more": other + first + second}
    file.write_text(texts[edit])
    model = Stopping()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = sweep(model, loader(), output=tmp_path, **SMALL)
    assert outcome(again) == outcome(rows)
    assert model.passes == (0 if edit == "more" else 2 * -(-IMAGES // 8))
    assert all(row in read_rows(tmp_path) for row in again)
