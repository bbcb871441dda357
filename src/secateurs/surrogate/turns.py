"""Whose turn it is: the numbers of draws, and what each thread was told about them."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from secateurs.surrogate.numbered_draws import Draw
from secateurs.surrogate.placing import Turn


class Turns:
    """What is counted for all threads, and what holds for the one that says it.

    Copies and files keep the count and leave out the rest.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.standing: Draw | None = None
        self.last: Draw | None = None
        self.reset()

    def reset(self) -> None:
        """What belongs to this process."""
        self.lock = threading.RLock()
        self._here = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"begun": self.begun, "standing": self.standing, "last": self.last}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reset()

    @property
    def is_dense(self) -> bool:
        """Whether this thread wants the model itself."""
        return getattr(self._here, "dense", False)

    @property
    def held(self) -> list[Draw | None] | None:
        """The draw that this thread keeps, in a list that it is put into when it is made."""
        return getattr(self._here, "held", None)

    @property
    def replayed(self) -> Iterator[Turn | None] | None:
        """The turns of calls that this thread computes again."""
        return getattr(self._here, "replayed", None)

    def take(self, make: Callable[[int], Draw], *, by_step: bool) -> Draw:
        """The draw of a call: the one that stands, or the next one, made by its number.

        Args:
            make: makes draw number i.
            by_step: whether a draw stands for more than one call.
        """
        with self.lock:
            held = self.held
            draw = held[0] if held is not None else self.standing if by_step else None
            if draw is None:
                draw = make(self.begun)
                self.begun += 1
            self.standing = self.last = draw
            if held is not None:
                held[0] = draw
        return draw

    def forget(self) -> None:
        """No draw stands any more."""
        self.standing = None
        if self.held is not None:
            self.held[0] = None

    def restart(self) -> None:
        """Nothing was drawn."""
        with self.lock:
            self.begun, self.last = 0, None
            self.forget()

    @contextmanager
    def holding(self) -> Generator[None]:
        """For this thread, keep the draw that stands, or the next one."""
        held = self.held
        with self.here(held=[self.standing] if held is None else held):
            yield

    @contextmanager
    def here(self, **values: Any) -> Generator[None]:
        """Let ``dense``, ``held`` or ``replayed`` be something else for this thread."""
        before = {name: getattr(self._here, name, None) for name in values}
        self._here.__dict__.update(values)
        try:
            yield
        finally:
            self._here.__dict__.update(before)
