"""A module with the parameters, buffers and submodules of another one."""

import functools
import types
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Self

from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.surrogates.torch_transforms import between_graphs

_SHARED = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class ModuleProxy(nn.Module):
    """Shares the content of a network, and may do something else when it is called.

    ``parameters()``, ``named_modules()``, ``state_dict()``, ``.to()``, ``.eval()``, ``deepcopy``
    and ``pickle`` do the same as for the network, with the same names. It is no instance of the
    network's class: code that calls the layers of a ``Sequential`` one by one calls this instead.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        # In a tuple, since an attribute that is a module becomes a submodule.
        self.__dict__["_proxied"] = (network,)
        for name in _SHARED:
            self.__dict__[name] = network.__dict__[name]
        self.training = network.training

    @property
    def network(self) -> nn.Module:
        """The module whose content this one shares."""
        return self.__dict__["_proxied"][0]

    def __getattr__(self, name: str) -> Any:
        """Attributes that are not found here are the network's: its ``config``, ``device``, ..."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_proxied" not in self.__dict__:  # being copied or read from a file
                raise
        return getattr(self.network, name)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the network and of its submodules."""
        self.network.train(mode)
        self.training = mode
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The network's."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The network's."""
        return self.network.load_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self.network._apply(fn, recurse)
        return self

    def _replicate_for_data_parallel(self) -> Self:
        raise InvalidArgumentError(
            "nn.DataParallel would run the one network on all devices: make a surrogate of a copy "
            "of the network for each device"
        )


def may_run_layers(name: str, found: object) -> bool:
    """Whether an attribute of a network is a function that may use its weights."""
    return isinstance(found, _FUNCTIONS) and not name.startswith(_NOT_RUNNING)


@between_graphs
def run_under(
    under: Callable[[], AbstractContextManager[Any]], run: Callable[..., Any], *args: Any
) -> Any:
    """Call a function inside ``under()``; if it returns a generator, run that inside it too."""
    with under():
        found = run(*args)
    return _resumed(under, found) if isinstance(found, Generator) else found


def _resumed(
    under: Callable[[], AbstractContextManager[Any]], running: Generator[Any, Any, Any]
) -> Generator[Any, Any, Any]:
    # A generator runs only when a value is requested, and other code runs between its values.
    sent = None
    while True:
        with under():
            try:
                given = running.send(sent)
            except StopIteration as end:
                return end.value
        sent = yield given


_FUNCTIONS = (types.MethodType, types.FunctionType, functools.partial)
# Methods of many models and of nn.Module that set, save or describe a model, by the beginnings of
# their names. Any other method may run layers.
_NOT_RUNNING = (
    "_", "add_", "delete_", "disable_", "enable_", "from_", "gradient_checkpointing_", "init_",
    "load_", "post_init", "prune_", "push_to_", "register_", "requires_", "reset_", "resize_",
    "retie_", "save_", "set_", "tie_",
)  # fmt: skip
