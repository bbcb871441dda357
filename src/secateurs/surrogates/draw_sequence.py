"""The draws of a surrogate: their masks, and which one the next call uses, in each thread."""

import hashlib
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from secateurs._tensors.memory_order import same_order, side_by_side
from secateurs._validation import as_integer
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.parameters.target import Target
from secateurs.selection.candidates import Candidates
from secateurs.surrogates.torch_transforms import is_transformed


def check_redraw(redraw: object) -> str | int:
    """Check ``redraw``: ``"forward"``, ``"step"``, or a number of draws."""
    if isinstance(redraw, str) and redraw in ("forward", "step"):
        return redraw
    count = as_integer(redraw)
    if count is not None and count >= 1:
        return count
    raise InvalidArgumentError(
        Argument("redraw"),
        f' must be "forward", "step", or how many draws to go through in turn, such as 4; '
        f"got {redraw!r}",
    )


@dataclass(frozen=True)
class Draw:
    """One draw. It makes the same masks each time, so that they need not be kept.

    Attributes:
        candidates: the candidates.
        p_bern: the probability with which a candidate is pruned.
        seed: the seed of this draw alone.
    """

    candidates: Candidates
    p_bern: float
    seed: int

    def masks(self) -> Masks:
        """Make the masks on the device of the candidates: a GPU need not wait for the CPU."""
        devices = {chosen.device for chosen in self.candidates.chosen.values()}
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        generator = torch.Generator(device if device.type == "cuda" else "cpu")
        return self.candidates.draw(self.p_bern, generator=generator.manual_seed(self.seed))


def seed_of(seed: int, number: int) -> int:
    """The seed of one draw of a sequence: unrelated for neighbouring seeds and numbers."""
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def placed_like(
    candidates: Candidates, targets: Sequence[Target], weights: Sequence[torch.Tensor]
) -> Candidates:
    """Bring candidates to the devices and memory layouts of their weights, if they differ."""
    if any(map(is_transformed, weights)):
        return candidates  # inside torch.func's transforms tensors have no memory of their own
    of = {t.name: weight.detach() for t, weight in zip(targets, weights, strict=True)}
    if all(_fits(chosen, of[name]) for name, chosen in candidates.local.items()):
        return candidates
    like = [
        of[name] if chosen.shape == of[name].shape else chosen.to(of[name].device)
        for name, chosen in candidates.local.items()
    ]
    made = dict(zip(candidates.local, side_by_side(like, torch.bool), strict=True))
    for name, chosen in candidates.local.items():
        made[name].copy_(chosen)
    return replace(candidates, local=made)


def _fits(chosen: torch.Tensor, weight: torch.Tensor) -> bool:
    alike = chosen.shape != weight.shape or same_order(chosen, weight)
    return alike and chosen.device == weight.device


class DrawSequence:
    """The draws of a surrogate, numbered over all threads; a thread may keep one, or be dense.

    Copies and pickles have the count and the last draws, not the lock and the threads' settings.

    Attributes:
        count: how many draws were made.
        current: the draw that the next call may use again, or None.
        last: the draw of the last call.
    """

    def __init__(self) -> None:
        self.count = 0
        self.current: Draw | None = None
        self.last: Draw | None = None
        self.reset()

    def reset(self) -> None:
        """Make a new lock, and forget the settings of threads."""
        self.lock = threading.RLock()
        self._thread = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"count": self.count, "current": self.current, "last": self.last}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reset()

    @property
    def is_dense(self) -> bool:
        """Whether this thread prunes nothing."""
        return getattr(self._thread, "dense", False)

    @property
    def held(self) -> list[Draw | None] | None:
        """A list of the draw that this thread keeps (None until it is made), if it keeps one."""
        return getattr(self._thread, "held", None)

    def take(self, make: Callable[[int], Draw], *, by_step: bool) -> Draw:
        """The draw of a call: the current one, or a new one, which ``make`` makes by its number.

        With ``by_step``, calls share a draw until the next step.
        """
        with self.lock:
            held = self.held
            draw = held[0] if held is not None else self.current if by_step else None
            if draw is None:
                draw = make(self.count)
                self.count += 1
            self.current = self.last = draw
            if held is not None:
                held[0] = draw
        return draw

    def forget(self) -> None:
        """Let the next call make a new draw."""
        self.current = None
        if self.held is not None:
            self.held[0] = None

    def restart(self) -> None:
        """Number the draws from 0 again."""
        with self.lock:
            self.count, self.last = 0, None
            self.forget()

    @contextmanager
    def keeping_one(self) -> Generator[None]:
        """For a ``with`` block, use one draw in this thread: the current one, or else the next."""
        held = self.held
        with self.in_this_thread(held=[self.current] if held is None else held):
            yield

    @contextmanager
    def in_this_thread(self, **values: Any) -> Generator[None]:
        """For a ``with`` block, set ``dense`` or ``held`` for this thread."""
        before = {name: getattr(self._thread, name, None) for name in values}
        self._thread.__dict__.update(values)
        try:
            yield
        finally:
            self._thread.__dict__.update(before)
