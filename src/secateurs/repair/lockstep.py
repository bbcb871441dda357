"""Runs the pruned and the dense network at the same time, and repairs layer after layer.

Each batch of images runs through each network in a thread of its own. One thread works at a time,
always in the same order: it runs until its network calls the next layer that is to be repaired, and
waits there while the other threads run up to the same call. Then the layer is repaired from the
inputs of all batches, and the threads go on. So each layer is repaired on the inputs that the
repaired layers before it give. Memory holds the activations of all images at one layer, and what
the network's own functions still refer to: in ``x = self.blocks(x)`` the first x is kept until the
blocks have ended. Modules must not keep what they compute in attributes, where the other batches
would find it.
"""

import ctypes
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateurs.errors import Argument, FailureError
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.layer_uses import LayerUses
from secateurs.repair.replaced_tensors import Replaced

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_USUAL_MOST = 2**25  # bytes, up to which glibc raises the threshold by itself


class Site(Protocol):
    """A layer that is to be repaired."""

    name: str

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        """Add the inputs and outputs of one batch.

        Args:
            call: the layer's call in the pruned network.
            dense: its call in the dense network; ``call`` where no site needs the dense network.
        """

    def finish(self) -> None:
        """Repair the layer; called after all batches were added."""


class _StoppedError(Exception):
    """Another thread has failed, so this one ends."""


class _Run:
    """One batch in one network, which a thread runs.

    Attributes:
        images: the batch, until the network is called with it.
        dense: whether it is the dense network.
        may_go: released when it is this thread's time to work.
        waiting: in the dense network, the call at which it waits.
        skips: how many layers it passes without waiting.
    """

    def __init__(self, images: Tensor, dense: bool):
        self.images: Tensor | None = images
        self.dense = dense
        self.may_go = threading.Semaphore(0)
        self.waiting: LayerCall | None = None
        self.skips = 0


class Lockstep:
    """Runs a network and its dense original over batches of images, in step.

    Args:
        model: the network, in the mode in which it runs.
        sites: what is repaired, by the id of the tensor that identifies the layer's call.
        dense: the dense network's tensors, by the ids of the model's; None if no site needs the
            dense network.
        uses: which layers the network calls, and the bytes that it holds of one image before each.
        memory: how many bytes both networks may hold of all images. Layers up to the last one where
            it would be more are repaired from the first batches alone; the other batches run after
            those, and count from the next layer on.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Mapping[int, Site],
        dense: Mapping[int, Tensor] | None,
        uses: LayerUses,
        memory: int,
    ):
        self.model, self.sites, self.dense, self.parts = model, sites, dense, uses.parts
        self.sizes = [size for key, size in uses.sizes if key in sites]
        self.memory = memory
        self._active = self._skips = self._passed = 0
        self._runs: list[_Run] = []
        self._error: BaseException | None = None
        self._stopped = False
        self._site: Site | None = None

    def run(self, batches: Sequence[Tensor]) -> None:
        """Repair all sites.

        Args:
            batches: images, on the model's device.

        Raises:
            FailureError: batches go through the layers in different orders.
        """
        kinds = [False] if self.dense is None else [True, False]
        self._runs = [_Run(batch, dense) for batch in batches for dense in kinds]
        first, self._skips = self._first_batches(batches)
        self._passed, self._active = 0, first * len(kinds)
        for run in self._runs[self._active :]:
            run.skips = self._skips
        threads = [
            threading.Thread(target=self._work, args=(index,), daemon=True)
            for index in range(len(self._runs))
        ]
        with _freed_at_once():
            try:
                _start(threads)
                self._runs[0].may_go.release()
                for thread in threads:
                    thread.join()
            except BaseException:  # also Ctrl-C
                self._stop()
                for thread in filter(threading.Thread.is_alive, threads):
                    thread.join()
                raise
        if self._error is not None:
            raise self._error

    def _first_batches(self, batches: Sequence[Tensor]) -> tuple[int, int]:
        """How many batches run first, and how many layers are repaired from these alone."""
        copies = 1 if self.dense is None else 2
        large = [size * copies * sum(map(len, batches)) > self.memory for size in self.sizes]
        if not any(large):
            return len(batches), 0
        skips = len(large) - large[::-1].index(True)
        most = max(self.sizes) * copies * len(batches[0])
        return min(max(1, self.memory // most), len(batches)), skips

    def _stop(self) -> None:
        self._stopped = True
        for run in self._runs:
            run.may_go.release()

    def _work(self, index: int) -> None:
        run = self._runs[index]
        values = (self.dense or {}) if run.dense else {}
        try:
            self._wait(run)
            with ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                arrive = partial(self._arrive, index)
                stack.enter_context(Replaced(values, arrive, self.parts))
                images, run.images = run.images, None
                self.model(images)
                if index and self._site is not None:  # at which the first batch waits
                    raise _other_order(self._site)
        except _StoppedError:
            return
        except BaseException as error:
            self._error = error
            self._stop()
            return
        if index == 0:  # after the last layer; the batches that come later may not have begun
            self._active, self._site = len(self._runs), None
        self._next(index)

    def _wait(self, run: _Run) -> None:
        run.may_go.acquire()
        if self._stopped:
            raise _StoppedError

    def _next(self, index: int) -> None:
        self._runs[(index + 1) % self._active].may_go.release()

    def _arrive(self, index: int, key: int, call: LayerCall) -> None:
        site, run = self.sites.get(key), self._runs[index]
        if site is None or run.skips:
            run.skips -= site is not None
            return
        if index == 0:
            self._site = site
            self._passed += 1
            if self._passed > self._skips:
                self._active = len(self._runs)
        elif self._site is not site:
            raise _other_order(site)
        if run.dense:
            run.waiting = call
        else:
            beside = self._runs[index - 1] if self.dense is not None else run
            site.add(call, beside.waiting or call)
            beside.waiting = None
        del call
        if index == self._active - 1:
            site.finish()
        self._next(index)
        self._wait(run)


def _start(threads: Sequence[threading.Thread]) -> None:
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:  # raised by Python where the system has no more
        raise FailureError(
            f"cannot start {len(threads)} threads, one for each batch of images in each network: "
            "write a larger ", Argument("batch_size"), f" ({error})"
        ) from error  # fmt: skip


@contextmanager
def _freed_at_once(least: int = 2**20) -> Generator[None]:
    """For a ``with`` block, let glibc return large tensors to the system when they are freed.

    glibc returns only blocks that it has mapped one by one. It maps those above a threshold, which
    it raises by itself up to 32 MiB. Smaller blocks come from an arena of the thread and stay in it
    when they are freed; with dozens of threads that is more than a GiB.

    Args:
        least: the size in bytes above which a block is mapped.
    """
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):  # no glibc
        yield
        return
    library.malloc_trim(0)  # what was freed before
    library.mallopt(_M_MMAP_THRESHOLD, least)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, _USUAL_MOST)


def _other_order(site: Site) -> FailureError:
    return FailureError(
        f"the images do not all go through the layers in one order (at {site.name}): repair needs "
        "a network that does the same to each"
    )
