"""The function mode under which gradient-pruned modules run.

It recognises masked weights by identity. A function that is called with one is replaced, let
through, or refused.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode_temporarily,
)

from secateurs.distributed.dtensor import as_gathered
from secateurs.errors import Advice, Argument, FailureError
from secateurs.gradient_pruning.attention import attention
from secateurs.gradient_pruning.backward_state import has_masked_gradient, weight_now
from secateurs.gradient_pruning.known_functions import (
    COPIES,
    LIKE,
    LOOKUPS,
    PRODUCTS,
    REPLACEMENTS,
    VIEWS,
)
from secateurs.gradient_pruning.masked_weight import Dual
from secateurs.originals.module_state import BACKWARD_SUFFIX, fits, masks_of

mode_count = cast(Any, torch._C)._len_torch_function_stack
"""How many function modes are active."""


class _Masked(NamedTuple):
    """A masked weight, or a copy or view of one that a module made, and its mask."""

    tensor: Tensor
    keep: Tensor
    weight: int  # the id of the weight itself
    masked_gradient: bool = False


class MaskedWeights(TorchFunctionMode):
    """Replaces the functions that are called with a masked weight of a module or its submodules.

    Attributes:
        used: the ids of the weights that a replaced function was called with.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.used: set[int] = set()
        self._frames: list[nn.Module] = []
        self._handing: set[int] = set()
        self.modules: set[int] = set()  # the ids of those whose weights were added
        # An entry keeps its tensor alive, so that no other tensor can get its id.
        self.masked: dict[int, _Masked] = {}
        self.add_module(module)

    def add_module(self, module: nn.Module) -> None:
        """Add the masked weights of a module and its submodules, if they are not known.

        Only one of these modes is active at a time, since a first would see what a second calls.
        A module of another model may be called under it, and weights may be replaced meanwhile.
        """
        if id(module) in self.modules and self._knows(module):
            return
        for holder in module.modules():
            self.modules.add(id(holder))
            for attribute, keep in masks_of(holder):
                weight = weight_now(holder, attribute)
                if not fits(keep, weight):
                    raise FailureError(
                        f"{attribute} of a {holder._get_name()} has another shape than when its "
                        "backward pass was pruned: call gradient_prune again, or restore(model)"
                    )
                only_kept = has_masked_gradient(holder)
                self.masked[id(weight)] = _Masked(weight, keep, id(weight), only_kept)

    @contextmanager
    def running(self, module: nn.Module) -> Generator[None]:
        """For a ``with`` block, the ``forward`` of this module runs."""
        self._frames.append(module)
        try:
            yield
        finally:
            self._frames.pop()

    def handed_by(self, module: nn.Module) -> bool:
        """Whether the ``forward`` of a module itself handed a masked weight to a function."""
        return id(module) in self._handing

    def _note_handing(self, weight: int) -> None:
        """Note the innermost running module that holds a weight, or else all that run."""
        for module in reversed(self._frames):
            held = (weight_now(h, a) for h in module.modules() for a, _ in masks_of(h))
            if any(id(each) == weight for each in held):
                self._handing.add(id(module))
                return
        self._handing.update(map(id, self._frames))

    def add_weights(self, weights: Iterable[Tensor], keeps: Iterable[Tensor]) -> None:
        """Add weights whose masks no module holds: those of one call of a surrogate."""
        for weight, keep in zip(weights, keeps, strict=True):
            self.masked[id(weight)] = _Masked(weight, keep, id(weight))

    def _known(self, value: Any) -> _Masked | None:
        """The entry of a value, if it is a masked weight, or a copy or view of one."""
        if not torch.compiler.is_compiling():
            return self.masked.get(id(value))
        # The compiler of torch 2.11 has no ids of intermediate tensors.
        return next((entry for entry in self.masked.values() if entry.tensor is value), None)

    def _knows(self, module: nn.Module) -> bool:
        """Whether the current weights of a module and its children are known.

        They are the weights that it most likely uses; to check all submodules would take too long.
        """
        return all(
            id(weight_now(holder, attribute)) in self.masked
            for holder in (module, *module.children())
            for attribute, _ in masks_of(holder)
        )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Inside the replacements gradients are off: they call the dense operation.
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            pairs = {name: self._dual_or_same(value) for name, value in kwargs.items()}
            return attention(*(self._dual_or_same(a) for a in args), **pairs)
        if func in REPLACEMENTS:
            return self._replaced(func, args, kwargs)
        if func in PRODUCTS:
            return self._multiplied(func, args, kwargs)
        found = self._find(args)
        if found is None and kwargs:
            found = self._find(kwargs.values())
        result = func(*args, **kwargs)
        return result if found is None else self._followed(func, found, args, kwargs, result)

    def _replaced(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        rest = dict(kwargs)
        inputs = [rest.pop("input") if "input" in rest else args[0]]
        weight = rest.pop("weight") if "weight" in rest else args[1]
        inputs += args[1:] if "weight" in kwargs else args[2:]
        wrong = self._find(inputs) or self._find(rest.values())
        if wrong is not None:
            raise self._refusal(func, wrong)
        found = self._find((weight,))
        if found is None:
            return func(*args, **kwargs)
        values, keep, masked_gradient = self._dual(found)
        return REPLACEMENTS[func](
            inputs[0], values, keep, *inputs[1:], **rest, masked_gradient=masked_gradient
        )

    def _multiplied(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        found = self._find(args) or self._find(kwargs.values())
        if found is None:
            return func(*args, **kwargs)
        named = {name: self._dual_or_same(value) for name, value in kwargs.items()}
        result = PRODUCTS[func](*(self._dual_or_same(value) for value in args), **named)
        if result is None:
            raise self._refusal(func, found)
        return result

    def _followed(self, func: Any, found: _Masked, args: Any, kwargs: Any, result: Any) -> Any:
        """Let through functions that read properties, look up rows, or copy or view the weight."""
        if func in LOOKUPS:
            self.used.add(found.weight)
        elif func in COPIES:
            if args[0] is found.tensor:
                self._note(found._replace(tensor=result))
        elif func in VIEWS and args[0] is found.tensor:
            keep = func(found.keep.expand_as(found.tensor), *args[1:], **kwargs)
            self._note(found._replace(tensor=result, keep=keep))
        elif func not in LIKE and _holds_tensor(result):
            raise self._refusal(func, found)
        return result

    def _note(self, entry: _Masked) -> None:
        # While compiling any unused key will do, since `_known` compares the tensors.
        key = -len(self.masked) if torch.compiler.is_compiling() else id(entry.tensor)
        self.masked[key] = entry

    def _find(self, values: Any) -> _Masked | None:
        for value in values:
            found = self._known(value)
            if found is None and isinstance(value, (list, tuple)):
                found = self._find(value)
            if found is not None:
                self._note_handing(found.weight)
                return found
        return None

    def _dual(self, found: _Masked) -> Dual:
        self.used.add(found.weight)
        if not torch.compiler.is_compiling():  # vmap with our mode cannot be compiled
            _check_stacked(found)
        # If fully_shard has gathered the weight for this call, the mask is gathered too.
        keep = as_gathered(found.keep, found.tensor)
        return Dual(found.tensor, keep.to(found.tensor.device), found.masked_gradient)

    def _dual_or_same(self, value: Any) -> Any:
        found = self._known(value)
        if found is None:
            return value
        self._note_handing(found.weight)
        dual = self._dual(found)
        return dual._replace(keep=dual.keep.expand_as(dual.weight))  # both may be sliced

    def _refusal(self, func: Any, found: _Masked) -> FailureError:
        function = func.__self__ if func.__name__ == "__get__" else func
        held = ((n, k) for n, p, k in _named_weights(self.module) if id(p) == found.weight)
        name, kind = next(held, ("", nn.Module))
        if not name:  # of a surrogate, which masks no module
            named = self.module.named_parameters()
            name = next((n for n, p in named if id(p) == found.weight), "weight")
        own = not kind.__module__.startswith("torch.nn.modules.")
        more = f", or exclude={kind.__name__} for all layers of that type" if own else ""
        return FailureError(
            f"{self.module._get_name()} hands {name} to {function.__name__}, where the gradient to "
            "the input cannot be pruned: write ",
            Argument("exclude", f"*{name}"),
            Advice(more),
        )


def active_mode() -> MaskedWeights | None:
    """Our mode, if it is active: that of a pruned module which is running."""
    for mode in _get_current_function_mode_stack() if mode_count() else ():
        if isinstance(mode, MaskedWeights):
            return mode
    return None


def without_our_mode() -> AbstractContextManager[Any]:
    """For a ``with`` block, leave our mode, if it is the innermost one."""
    stack = _get_current_function_mode_stack()
    ours = len(stack) > 0 and isinstance(stack[-1], MaskedWeights)
    return _pop_mode_temporarily() if ours else nullcontext()


def _named_weights(module: nn.Module) -> Iterator[tuple[str, Tensor, type[nn.Module]]]:
    """The masked weights of a module: name, weight, and the class of the layer that holds it."""
    for prefix, holder in module.named_modules():
        kind: type[nn.Module] = getattr(holder, "secateurs_base", type(holder))
        for attribute, _ in masks_of(holder):
            name = f"{prefix}.{attribute}" if prefix else attribute
            yield name, getattr(holder, attribute), kind


def _check_stacked(found: _Masked) -> None:
    """Refuse the weights of several models that share one mask: each has its own."""
    if _vmap_levels(found.tensor) - _vmap_levels(found.keep):
        raise FailureError(
            "the weights of several models are stacked (torch.func.vmap), but not their masks: "
            "hand torch.func.functional_call the masks, too, stacked like the weights, "
            f'under their names, such as "0.weight{BACKWARD_SUFFIX}"'
        )


def _vmap_levels(tensor: Tensor) -> set[int]:
    functions = cast(Any, torch._C)._functorch
    levels: set[int] = set()
    while functions.is_functorch_wrapped_tensor(tensor):
        if functions.is_batchedtensor(tensor):
            levels.add(functions.maybe_get_level(tensor))
        tensor = functions.get_unwrapped(tensor)
    return levels


def _holds_tensor(result: Any) -> bool:
    if isinstance(result, list | tuple):
        return any(_holds_tensor(r) for r in result)
    return isinstance(result, Tensor)
