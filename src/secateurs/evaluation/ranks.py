"""Processes that share the images of a sweep."""

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import torch.distributed

from secateurs._io.json_objects import plain
from secateurs.distributed.process_group import LostRankError
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.evaluation.coordination import Line, Store
from secateurs.evaluation.partial_results import Progress
from secateurs.results.config import differences

_dist: Any = torch.distributed  # its rendezvous is public, but not declared so


class Ranks(Line):
    """The processes that split the images of a sweep, of which this one is number ``rank``.

    Each holds the whole model. Hand one to `sweep` in every process; see `from_environment`. It
    serves any number of sweeps, until one of them ends with an error.

    Args:
        store: a ``torch.distributed.Store`` that all processes reach.
        rank: number of this process, from 0.
        size: how many there are.
    """

    def __init__(self, store: Store, rank: int, size: int):
        super().__init__(store, rank, size)
        self._sweep = 0
        self._unsaid = self._known = 0
        self._told: dict[int, dict[str, Progress]] = {}

    @classmethod
    def from_environment(cls) -> Self | None:
        """The ranks that torchrun, or another launcher with its variables, has started.

        Returns:
            None where this process is the only one.

        Raises:
            LostRankError: rank 0 cannot be reached.
        """
        if not is_launched():
            return None
        try:
            store, rank, size = next(_dist.rendezvous("env://"))
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise LostRankError(
                f"rank {os.environ['RANK']} cannot reach the others at "
                f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: {reason}"
            ) from error
        return cls(store, rank, size)

    def from_first(self, name: str, value: Any = None) -> Any:
        """What rank 0 says; it hands in the value."""
        if self.first:
            self.say_here(name, value)
            return value
        return self.hear(f"{self._sweep} {name}", 0)

    def agree(self, given: Mapping[str, Any]) -> None:
        """Start a sweep: check that all ranks were called with the same.

        Raises:
            InvalidArgumentError: on all ranks, if not; it says what differs.
        """
        self._sweep += 1
        self._unsaid = self._known = 0
        self._told.clear()
        mine = plain(dict(given))
        differing = differences(self.from_first("given", mine), mine)
        if differing:
            raise InvalidArgumentError(
                f"the ranks were not called alike ({'; '.join(differing)}; there is rank 0, now is "
                f"rank {self.rank}): call all with the same arguments"
            )
        self.say_here("agreed")
        self.wait_for_all("agreed")

    def agree_on_output(
        self, output: str | os.PathLike[str] | None, *, overwrite: bool = False
    ) -> None:
        """Check that no rank wants its results where rank 0, which writes, does not write them.

        Raises:
            InvalidArgumentError: on all ranks, if one does.
        """
        mine = {"output": None if output is None else os.fspath(output), "overwrite": overwrite}
        first = self.from_first("output", mine)
        if output is not None and differences(first, mine):
            raise InvalidArgumentError(
                f"rank 0 writes the results, to {first['output']!r} (overwrite="
                f"{first['overwrite']}), and rank {self.rank} was told {mine['output']!r} "
                f"(overwrite={overwrite}): give all ranks the same output"
            )
        self.say_here("agreed on output")
        self.wait_for_all("agreed on output")

    def say_here(self, name: str, value: Any = None) -> None:
        """As `say`, about this sweep."""
        self.say(f"{self._sweep} {name}", value)

    def wait_for_all(self, name: str, idle: Callable[[], None] = lambda: None) -> None:
        """On rank 0, wait until every other rank has said this in this sweep."""
        for rank in range(1, self.size if self.first else 0):
            self.hear(f"{self._sweep} {name}", rank, idle)

    def tell(self, progress: Mapping[str, Progress]) -> None:
        """Let rank 0 know what this rank has done so far."""
        if not self.first:
            told = {key: each.to_dict() for key, each in progress.items()}
            self.say_here("progress", told)

    def told(self) -> list[dict[str, Progress]]:
        """What the others have done, as far as rank 0 knows."""
        for rank in range(1, self.size):
            with suppress(LostRankError):  # what was heard before stays true
                for said in self.heard(f"{self._sweep} progress", rank):
                    self._told[rank] = {k: Progress.from_dict(each) for k, each in said.items()}
        return list(self._told.values())

    def advance(self, images: int) -> int:
        """Count images that this rank has seen.

        Returns:
            How many all ranks have seen since this was last called; 0 where that is not known yet.

        Raises:
            InvalidArgumentError, FailureError, KeyboardInterrupt: another rank ended so.
        """
        self._unsaid += images
        if not self.is_time():
            return 0
        self.raise_if_ended()
        return self.advanced()

    def advanced(self) -> int:
        """What `advance` returns, at once, and without looking whether another rank has ended."""
        known = self.count(f"{self._sweep} images", self._unsaid)
        self._unsaid, before, self._known = 0, self._known, known
        return known - before

    def done(self) -> None:
        """Say that this rank needs nothing more in this sweep; rank 0 leaves last."""
        self.say_here("done")
        if self.first:
            self.wait_for_last_words(f"{self._sweep} done")

    @contextmanager
    def together(self) -> Generator[None]:
        """An error in the block on one rank is an error on all."""
        try:
            yield
        except BaseException as error:
            self.end(error)
            with suppress(FailureError):
                self.say("over")
            raise

    def wait_for_last_progress(self) -> None:
        """After an error, give the others some seconds to tell how far they came."""
        self.wait_for_last_words("over")


def is_launched() -> bool:
    """Whether a launcher such as torchrun has started this process as one of several."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    several = all(os.environ.get(name) for name in names) and os.environ["WORLD_SIZE"] != "1"
    return several and torch.distributed.is_available()
