"""A lock for each model, so that threads prune and restore it one after the other."""

import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager

from torch import nn

# Kept beside the models: a lock in a model could not be copied or pickled with it.
_locks: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()
_making = threading.Lock()


@contextmanager
def changing(model: nn.Module) -> Generator[None]:
    """Hold the lock of a model while its pruning is exchanged, or its weights are looked at.

    A thread may hold it several times. A surrogate has the lock of its network; a model and a part
    of it have different locks.

    Args:
        model: the network, as the caller of the library gave it.
    """
    network = vars(model).get("_proxied", (model,))[0]  # of a surrogate
    with _making:
        lock = _locks.setdefault(network, threading.RLock())
    with lock:
        yield
