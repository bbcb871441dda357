"""Freed memory is kept: the same memory is used again without page faults."""

import subprocess
import sys

import pytest

from secateurs.cli import allocator

COUNT = """
import resource, torch
import secateurs.pruning  # as in a command: a larger heap holds what comes next
from secateurs.cli.allocator import keep_freed_memory

torch.set_num_threads(1)
make = lambda: torch.ones(2**24)  # 64 MiB

def faults():
    make(), make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        make()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left = faults()
assert keep_freed_memory()
print(left, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone has this setting")
def test_the_same_pages_are_used_again() -> None:
    found = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=True, timeout=120
    )
    left, kept = map(int, found.stdout.split())
    assert kept < 0.1 * left


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()
