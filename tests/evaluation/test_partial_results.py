"""Saved progress is used only where it can be of this sweep, and all that is left is scored."""

import json
import math
import random
import warnings
from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_nets import IMAGES, Stop, Stopping, loader, outcome

from secateurs._io.json_objects import BrokenJSONError
from secateurs.evaluation import Tally, sweep
from secateurs.evaluation.partial_results import (
    IndexRange,
    Progress,
    read_progress,
    remaining,
    split,
)
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


KEYS = ("a", "b", "c")


def merged(pairs: Iterable[tuple[int, int]]) -> Progress:
    return reduce(Progress.plus, (Progress((pair,), hits=("",)) for pair in pairs), Progress())


@st.composite
def sweeps(draw: Any) -> tuple[int, dict[str, Progress]]:
    total = draw(st.integers(1, 40))
    pairs = st.tuples(st.integers(0, total), st.integers(0, total))
    progress = {
        key: merged((a, b) for a, b in draw(st.lists(pairs, max_size=4)) if a < b)
        for key in draw(st.sets(st.sampled_from(KEYS)))
    }
    return total, progress


def seen(ranges: list[IndexRange]) -> list[tuple[str, int]]:
    """Every image that a variant sees, as often as it sees it."""
    return [
        (key, position)
        for each in ranges
        for key in each.keys
        for position in range(each.start, each.stop or 0)
    ]


@given(sweeps())
def test_what_is_left_is_what_is_not_done(case: tuple[int, dict[str, Progress]]) -> None:
    total, progress = case
    done = {
        (key, position)
        for key, each in progress.items()
        for start, stop in each.done
        for position in range(start, stop)
    }
    found = remaining(progress, KEYS, total)
    assert sorted([*seen(found), *done]) == sorted((k, i) for k in KEYS for i in range(total))
    assert all((one.stop, one.keys) != (two.start, two.keys) for one, two in pairwise(found))


@given(sweeps(), st.integers(1, 9), st.integers(1, 9))
def test_every_image_has_one_rank(
    case: tuple[int, dict[str, Progress]], ranks: int, batch_size: int
) -> None:
    total, progress = case
    whole = remaining(progress, KEYS, total)
    shares = split(whole, ranks, batch_size)
    assert len(shares) == ranks
    assert sorted(image for each in shares for image in seen(each)) == sorted(seen(whole))
    sizes = [len(seen(each)) for each in shares]
    # Each has its part, give or take a batch.
    assert max(sizes) <= len(seen(whole)) / ranks + batch_size * len(KEYS)


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        (1, [[(0, 46)]]),
        (2, [[(0, 24)], [(24, 46)]]),
        (4, [[(0, 16)], [(16, 24)], [(24, 40)], [(40, 46)]]),
        (8, [[(0, 8)], [(8, 16)], [(16, 24)], [], [(24, 32)], [(32, 40)], [(40, 46)], []]),
    ],
)
def test_shares_are_cut_where_batches_are(
    ranks: int, expected: list[list[tuple[int, int]]]
) -> None:
    shares = split(remaining({}, ["a"], 46), ranks, 8)
    assert [[(each.start, each.stop) for each in one] for one in shares] == expected


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=6))
def test_progress_on_both_ranges_holds_the_same_indices(pairs: list[tuple[int, int]]) -> None:
    pairs = [(start, start + size) for start, size in pairs]
    found = merged(pairs).done
    assert {i for a, b in pairs for i in range(a, b)} == {i for a, b in found for i in range(a, b)}
    assert all(one[1] < two[0] for one, two in pairwise(found))


@given(st.permutations(range(0, 40, 5)), st.integers(0, 8))
def test_outcomes_stay_in_the_order_of_the_images(starts: list[int], count: int) -> None:
    text = "".join(random.Random(0).choice("01") for _ in range(40))
    pieces = [Progress(((s, s + 5),), hits=(text[s : s + 5],)) for s in starts[:count]]
    found = reduce(Progress.plus, pieces, Progress())
    assert found.hits == tuple(text[start:stop] for start, stop in found.done)
