"""The pruned and the dense network side by side, layer by layer, in one forward pass.

Every batch of images runs through both networks, each run in a thread of its own. One thread works
at a time, always in the same order: it runs to the next layer that is to be repaired, waits there,
and lets the next one come. When all are there, the layer is solved from what goes into it, and they
go on. So each layer sees the inputs that the layers before it give after they were repaired, and
what is held in memory at any time is what all images are between two layers, and what the network's
own functions still hold: in ``x = self.blocks(x)`` the first x lives as long as the blocks run.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.errors import FailureError
from secateurs.repair.freed_memory import freed_at_once
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.replaced_tensors import Parts, Replaced


class Site(Protocol):
    """A layer that is to be repaired."""

    name: str

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        """Take in one batch.

        Args:
            call: in the pruned network.
            dense: the same in the dense network; ``call`` where no site needs that one.
        """

    def finish(self) -> None:
        """Solve it, after all batches were added."""


class _StoppedError(Exception):
    """Another run failed."""


class _Padded:
    """A padded copy of images, which may be thrown away and made again.

    Networks that pad on their own, as timm's ``tf_`` ones do, still hold what they padded while
    they call the convolution: without this, runs that wait there would hold both.

    Args:
        copy: what `make` has returned.
        source: what was padded.
        make: pads it.
    """

    def __init__(self, copy: Tensor, source: Tensor, make: Callable[[], Tensor]):
        self.copy, self._source, self._make = copy, source, make
        self._version = None if source.is_inference() else source._version
        self._bytes = 0

    def drop(self) -> None:
        """Free the copy's memory, if it can be made again."""
        storage = self.copy.untyped_storage()
        unchanged = self._version is not None and self._version == self._source._version
        if unchanged and storage.nbytes() == self.copy.nbytes:
            self._bytes = storage.nbytes()
            storage.resize_(0)

    def fill(self) -> None:
        """Make the copy again, if it was dropped."""
        if self._bytes:
            self.copy.untyped_storage().resize_(self._bytes)
            self.copy.copy_(self._make())


class _Run:
    """One batch through one network.

    Attributes:
        dense: whether it is the dense network.
        waiting: the call that it waits at.
        skips: how many layers it is to pass before it waits at one.
        padded: what it padded last, if that may be what goes into the next layer.
    """

    def __init__(self, images: Tensor, dense: bool):
        self.images: Tensor | None = images
        self.dense = dense
        self.may_go = threading.Semaphore(0)
        self.waiting: LayerCall | None = None
        self.skips = 0
        self.padded: _Padded | None = None


class _RunFunctions(Replaced):
    """A run's functions; notes what it pads."""

    def __init__(self, run: _Run, *args: Any):
        super().__init__(*args)
        self._run = run

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if func is F.pad:
            make = partial(func, *args, **(kwargs or {}))
            self._run.padded = _Padded(result, args[0], make)
        return result


class Lockstep:
    """Runs a network and its dense original over batches of images in lockstep.

    Args:
        model: the network, in the mode that it is to run in.
        sites: what is to be repaired, by the id of the tensor that its call is known by.
        dense: what the dense network has in the place of the model's tensors, by their ids; None
            if no site needs the dense network.
        sizes: for each call of a site, in order, the bytes that the network holds of one image.
        memory: how many bytes it may hold of all images, and the dense network with it. Where that
            would be more, the first of them stand for all, and the others follow when these are
            past.
        parts: see `Replaced`.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Mapping[int, Site],
        dense: Mapping[int, Tensor] | None,
        sizes: Sequence[int],
        memory: int,
        parts: Parts = MappingProxyType({}),
    ):
        self.model, self.sites, self.dense, self.parts = model, sites, dense, parts
        self.sizes, self.memory = sizes, memory
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
        for thread in threads:
            thread.start()
        with freed_at_once():
            try:
                self._runs[0].may_go.release()
                for thread in threads:
                    thread.join()
            except BaseException:  # Ctrl-C
                self._stop()
                for thread in threads:
                    thread.join()
                raise
        if self._error is not None:
            raise self._error

    def _first_batches(self, batches: Sequence[Tensor]) -> tuple[int, int]:
        """How many batches go first, and how many layers they pass before the others follow."""
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
                stack.enter_context(_RunFunctions(run, values, arrive, self.parts))
                images, run.images = run.images, None
                self.model(images)
        except _StoppedError:
            return
        except BaseException as error:
            self._error = error
            self._stop()
            return
        if index == 0:  # past the last layer, where the others may still have to begin
            self._active = len(self._runs)
        self._next(index)

    def _wait(self, run: _Run) -> None:
        run.may_go.acquire()
        if self._stopped:
            raise _StoppedError

    def _next(self, index: int) -> None:
        self._runs[(index + 1) % self._active].may_go.release()

    def _arrive(self, index: int, key: int, call: LayerCall) -> None:
        site, run = self.sites.get(key), self._runs[index]
        if run.padded is not None and run.padded.copy is not call.input:
            run.padded = None
        if site is None or run.skips:
            run.skips -= site is not None
            run.padded = None
            return
        if index == 0:
            self._site = site
            self._passed += 1
            if self._passed > self._skips:
                self._active = len(self._runs)
        elif self._site is not site:
            raise FailureError(
                f"the images do not all go through the layers in one order (at {site.name}): "
                "repair needs a network that does the same to each"
            )
        if run.dense:
            run.waiting = call
        else:
            beside = self._runs[index - 1] if self.dense is not None else run
            site.add(call, beside.waiting or call)
            beside.waiting = None
            for padded in (run.padded, beside.padded):
                if padded is not None:
                    padded.drop()
        del call
        if index == self._active - 1:
            site.finish()
        self._next(index)
        self._wait(run)
        padded, run.padded = run.padded, None
        if padded is not None:
            padded.fill()
