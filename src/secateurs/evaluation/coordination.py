"""What processes that share work say to each other.

They speak through torch's key-value store, which torchrun runs, and in which each can write and
look whenever it likes. So no rank waits for another while it works, one that fails can say so
whatever the others do, and an interrupt finds nobody in the middle of an exchange.
"""

import json
import os
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import torch.distributed

from secateurs._io.json_objects import parse
from secateurs.distributed.process_group import TIMEOUT, LostRankError
from secateurs.errors import FailureError, InvalidArgumentError

BEAT_SECONDS = 2.0  # how often a rank says that it lives
_LOOK_SECONDS = 0.2  # how often it looks for news while it works
_NAP_SECONDS = 0.02  # while it waits
_LAST_SECONDS = 10.0  # for last words; torchrun kills 30 seconds after an interrupt
_LARGEST = 8_000_000  # bytes of a value

_dist: Any = torch.distributed  # its stores are public, but not declared so


class Store(Protocol):
    """What is used of ``torch.distributed.Store``."""

    def set(self, key: str, value: str | bytes, /) -> None: ...  # noqa: D102
    def get(self, key: str, /) -> bytes: ...  # noqa: D102
    def add(self, key: str, value: int, /) -> int: ...  # noqa: D102
    def check(self, keys: list[str], /) -> bool: ...  # noqa: D102
    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes: ...  # noqa: D102


@dataclass(frozen=True)
class Ending:
    """Why a rank ended early.

    Attributes:
        rank: its number.
        kind: ``interrupted``, ``wrong`` (an `InvalidArgumentError`), ``failed``, or ``lost``: it
            could not reach the others.
        text: what it would have said.
    """

    rank: int
    kind: str
    text: str

    @classmethod
    def of(cls, rank: int, error: BaseException) -> Self:
        """In the words of an error."""
        if isinstance(error, InvalidArgumentError | FailureError):
            kind = "lost" if isinstance(error, LostRankError) else "failed"
            kind = "wrong" if isinstance(error, InvalidArgumentError) else kind
            return cls(rank, kind, str(error))
        kind = "failed" if isinstance(error, Exception) else "interrupted"
        return cls(rank, kind, f"{type(error).__name__}: {error}")

    def error(self) -> BaseException:
        """What the other ranks raise."""
        if self.kind == "interrupted":
            return KeyboardInterrupt()
        kind = InvalidArgumentError if self.kind == "wrong" else FailureError
        return kind(f"{self.text} (rank {self.rank})")


class Line:
    """How one of several processes speaks to the others.

    Args:
        store: a ``torch.distributed.Store`` that all processes reach.
        rank: number of this process, from 0.
        size: how many there are.
    """

    def __init__(self, store: Store, rank: int, size: int):
        self.rank, self.size = rank, size
        self.ended: Ending | None = None
        # One after another may use the same store: each finds an empty shelf.
        shelf = store.add(f"secateurs/sessions/{rank}", 1)
        self._store: Store = _dist.PrefixStore(f"secateurs/{shelf}", store)
        self._looked = time.monotonic()
        self._pulses: dict[int, tuple[bytes, float]] = {}
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(self._store, rank, stop), daemon=True)
        beat.start()
        weakref.finalize(self, _end_thread, beat, stop)

    @property
    def first(self) -> bool:
        """Whether this rank writes and prints for all."""
        return self.rank == 0

    def say(self, name: str, value: Any = None) -> None:
        """Leave a value, as JSON can hold it, for the others; in place of the one before."""
        data = zlib.compress(json.dumps([value]).encode())
        if len(data) > _LARGEST:
            raise FailureError(
                f"{name} takes {len(data)} bytes, too many to tell other ranks: sweep a smaller "
                "grid, or in one process"
            )
        with self._lost():
            self._store.set(f"{name}/{self.rank}", data)

    def heard(self, name: str, rank: int) -> list[Any]:
        """What a rank has said, in a list; an empty list if it has not."""
        key = f"{name}/{rank}"
        with self._lost():
            there = self._store.check([key])
            return parse(zlib.decompress(self._store.get(key))) if there else []

    def hear(self, name: str, rank: int, idle: Callable[[], None] = lambda: None) -> Any:
        """Wait for what a rank says.

        Args:
            name: of the value.
            rank: who says it.
            idle: called every now and then while waiting.

        Raises:
            InvalidArgumentError, FailureError, KeyboardInterrupt: that or another rank ended so.
            LostRankError: that rank has not shown any sign of life for SECATEURS_TIMEOUT seconds.
        """
        while True:
            value = self.heard(name, rank)
            if value:
                return value[0]
            if self.is_time():
                self.raise_if_ended()
                self._check_pulse(rank)
                idle()
            time.sleep(_NAP_SECONDS)

    def count(self, name: str, more: int) -> int:
        """Add to a number that all ranks share; returns what it is then."""
        with self._lost():
            return self._store.add(name, more)

    def shelf(self, name: str) -> Store:
        """A part of the store for something else."""
        return _dist.PrefixStore(name, self._store)

    def is_time(self) -> bool:
        """Whether it is time to look for news again."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        return True

    def raise_if_ended(self) -> None:
        """Look whether a rank has ended early.

        Raises:
            InvalidArgumentError, FailureError, KeyboardInterrupt: one has ended so.
        """
        with self._lost():
            if self.ended is None and self._store.check(["end"]):
                self.ended = Ending(**parse(self._store.get("end")))
        if self.ended is not None:
            raise self.ended.error()

    def end(self, error: BaseException) -> None:
        """Tell the others why this rank ends; of several reasons the first one counts."""
        if self.ended is not None:
            return
        self.ended = mine = Ending.of(self.rank, error)
        with _ignored():
            text = self._store.compare_set("end", "", json.dumps(asdict(mine)))
            self.ended = Ending(**parse(text))

    def wait_for_last_words(self, name: str) -> None:
        """Give the others some seconds to say this, even if they have ended."""
        limit = time.monotonic() + _LAST_SECONDS
        missing = {rank for rank in range(self.size) if rank != self.rank}
        with _ignored():
            while missing and time.monotonic() < limit:
                missing -= {rank for rank in missing if self.heard(name, rank)}
                time.sleep(_NAP_SECONDS if missing else 0)

    def _check_pulse(self, rank: int) -> None:
        with self._lost():
            beat = self._store.get(f"beat/{rank}") if self._store.check([f"beat/{rank}"]) else b""
        now, limit = time.monotonic(), float(os.environ.get("SECATEURS_TIMEOUT", TIMEOUT))
        last, since = self._pulses.get(rank, (None, now))
        if beat != last:
            self._pulses[rank] = beat, now
        elif now - since > limit:
            raise LostRankError(
                f"rank {self.rank} of {self.size} waited for rank {rank} in vain: it has given no "
                f"sign of life for {limit:g} s (SECATEURS_TIMEOUT sets this)"
            )

    @contextmanager
    def _lost(self) -> Generator[None]:
        """The store is gone with the process that kept it: rank 0, or torchrun."""
        try:
            yield
        except _dist.DistError as error:
            raise LostRankError(
                f"rank {self.rank} of {self.size} cannot reach the others any more: rank 0 or "
                f"torchrun has ended ({str(error).splitlines()[0]})"
            ) from error


@contextmanager
def _ignored() -> Generator[None]:
    """Who ends anyway does not complain that nobody listens."""
    with suppress(FailureError, _dist.DistError):
        yield


def _beat(store: Store, rank: int, stop: threading.Event) -> None:
    count = 0
    with _ignored():
        while True:
            store.set(f"beat/{rank}", str(count))
            if stop.wait(BEAT_SECONDS):
                return
            count += 1


def _end_thread(thread: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    thread.join(BEAT_SECONDS)
