"""What the command line's tests share."""

import json
import re
import resource
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from secateurs.zoo.digits import digits_images

LOADING = re.compile(r"^loading the network[^\n]+ \.\.\.\n", re.MULTILINE)
"""The first line of a sweep, a transfer or a measurement of speed on stderr."""

RANDOM = ("sweep", "--weights", "random", "--limit", "30")
"""A sweep of the untrained digits network: quick, and the same every time."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What a failed command said: one line on stderr, nothing on stdout.

        Before it may stand the line that says what is being loaded.
        """
        assert self.code in (1, 2), self
        assert self.out == "", self.out
        said = LOADING.sub("", self.err, count=1)
        assert said.startswith("secateurs: "), self.err
        assert said.count("\n") == 1 and said.endswith("\n"), self.err
        return said.removeprefix("secateurs: ").rstrip("\n")

    @property
    def folder(self) -> Path:
        """Where a sweep that went well says its results are."""
        assert self.code == 0, self
        names, folder = self.err.splitlines()[-1].split(" to ", 1)
        assert names == "wrote results.csv, results.jsonl, sweep.png, sweep.svg", self.err
        return Path(folder)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows in that folder, as another program would read them."""
        return [json.loads(line) for line in (self.folder / "results.jsonl").open()]


Run = Callable[..., Outcome]


@contextmanager
def no_file_above(size: int) -> Generator[None]:
    """A stand-in for a full disk: writing more than ``size`` bytes to a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_pictures(folder: Path) -> Path:
    """Thirty digits as files in one folder a class."""
    levels, labels = digits_images("test")
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number in (labels == digit).nonzero()[0][:3]:
            Image.fromarray(levels[number]).save(folder / str(digit) / f"{number:03}.png")
    return folder
