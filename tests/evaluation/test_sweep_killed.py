import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_sweep import GRID
from small_nets import Images, loader, losses, network, outcome

from secateurs.evaluation import sweep
from secateurs.results import read_rows

HERE = Path(__file__).parent


def reached(progress: Path) -> int:
    """How many images the slowest variant has seen, as it is saved."""
    saved = json.loads(progress.read_bytes()) if progress.exists() else {}
    return min((sum(stop - start for start, stop in p["done"]) for p in saved.values()), default=0)


def kill_when_it_has_come_further(folder: Path, workers: int) -> bytes:
    """Start the sweep, kill it with SIGKILL a batch later; returns what is saved."""
    progress = folder / "progress.json"
    before = reached(progress)
    path = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "killed_sweep.py"), str(folder), str(workers)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        limit = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < limit:
            if reached(progress) > before:
                break
            time.sleep(0.005)
        else:
            _, said = process.communicate(timeout=10)
            pytest.fail(f"it ended by itself: {said.decode()}")
        time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    return progress.read_bytes()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_several_times_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    saved = [kill_when_it_has_come_further(tmp_path, workers) for workers in (1, 0)]
    assert saved[0] != saved[1]
    images = Images()
    rows = sweep(network(), loader(images, batch_size=4), output=tmp_path, **GRID)
    assert 0 < len(images.reads) < len(images)
    expected = sweep(network(), loader(batch_size=4), **GRID)
    assert outcome(rows) == outcome(expected)
    assert losses(rows) == pytest.approx(losses(expected), rel=1e-6)
    assert read_rows(tmp_path) == read_rows(tmp_path / "results.csv") == rows
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "layers.jsonl", "outcomes.json", "results.jsonl", "results.csv",
    }  # fmt: skip
