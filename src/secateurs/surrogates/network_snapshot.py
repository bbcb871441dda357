"""The weights that a surrogate prunes, found anew when its network has changed."""

import shlex
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import Advice, InvalidArgumentError
from secateurs.gradient_pruning.prunable_layers import check_gradient_prunable
from secateurs.gradient_pruning.pruned_forward import FAST_PATHS
from secateurs.originals.module_state import is_pruned
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import targets_in
from secateurs.parameters.refusals import refuse_scripted
from secateurs.parameters.target import Target
from secateurs.selection.candidates import Candidates
from secateurs.selection.selection_options import SelectionOptions
from secateurs.surrogates.module_proxy import ModuleProxy
from secateurs.surrogates.thread_parameters import holders_of, parameters_of


def contents_of(model: nn.Module) -> ModelContents:
    """The contents of a model, of which a surrogate can be made.

    Raises:
        InvalidArgumentError: the model is no module, scripted, divided over ranks, or a surrogate
            itself.
    """
    contents = ModelContents(model)
    refuse_scripted(model)
    if isinstance(model, ModuleProxy):
        raise InvalidArgumentError("the model is a surrogate already: give its .network")
    contents.refuse_ranks("a surrogate", "give each rank a whole model")
    return contents


class NetworkSnapshot:
    """The weights that compete in a network as it is now, and the modules that have them.

    Args:
        contents: of the network.
        options: which weights compete.
        prune_type: ``"global"`` or ``"gradient"``.

    Attributes:
        targets: the weights, in order.
        holders: the modules that have them.
        modules: all modules of the network, but for scripted ones.
        fast: the modules in which torch may run other code if no gradient is wanted.

    Raises:
        InvalidArgumentError: the network is pruned, nothing competes, or a weight cannot be pruned
            for one call.
    """

    def __init__(self, contents: ModelContents, options: SelectionOptions, prune_type: str):
        if any(is_pruned(module) for _, module in contents.modules):
            raise InvalidArgumentError(  # a surrogate would prune it further
                "the model is pruned: call secateurs.restore(model) or make_permanent(model) first"
            )
        self.targets = targets_in(contents, options.layer_choice)
        for target in self.targets:
            for module, _ in target.places:
                _check_holder(target.name, module)
        if prune_type == "gradient":
            check_gradient_prunable(self.targets)
        self.holders = holders_of([target.places for target in self.targets])
        # A scripted module has no ordinary submodules, and takes no hooks.
        scripted = torch.jit.ScriptModule
        self.modules = [m for _, m in contents.modules if not isinstance(m, scripted)]
        self.fast = [module for module in self.modules if isinstance(module, FAST_PATHS)]
        self._seen = _ids_of(self.modules)

    @property
    def lasting(self) -> bool:
        """Whether these are the model's parameters, not tensors that torch.func sets for a call."""
        return all(isinstance(target.parameter, nn.Parameter) for target in self.targets)

    def is_current(self) -> bool:
        """Whether the network still has the same modules and parameters in the same order."""
        return _ids_of(self.modules) == self._seen

    def fits(self, candidates: Candidates) -> bool:
        """Whether candidates are those of these weights, with the same names and shapes."""
        weights = {t.name: w for t, w in zip(self.targets, self.weights(), strict=True)}
        return weights.keys() == candidates.units.keys() and all(
            units.shape == tuple(weights[name].shape) for name, units in candidates.units.items()
        )

    def weights(self) -> list[Tensor]:
        """The parameters that the model has now: ``.to()`` may have replaced those before."""
        return [parameters_of(target.module)[target.attribute] for target in self.targets]


def _ids_of(modules: Sequence[nn.Module]) -> list[object]:
    # Ids, so as not to keep replaced parameters alive. One loop and one list, since every call runs
    # it.
    found: list[object] = []
    for module in modules:
        own: dict[str, Any] = module.__dict__
        found.extend(map(id, own["_modules"].values()))
        found.append(None)  # separates the submodules from the parameters
        found.extend(map(id, own["_parameters"].values()))
        found.append(is_pruned(module))
    return found


def surrogate_barrier(target: Target) -> str:
    """Why a weight cannot be pruned in a surrogate because of its layer; empty if it can."""
    recurrent = any(isinstance(module, nn.RNNBase) for module, _ in target.places)
    return "cannot be pruned in a surrogate" if recurrent else ""


def _check_holder(name: str, module: nn.Module) -> None:
    """Refuse a weight that its module does not look up in its parameters when it is called."""
    if isinstance(module, nn.RNNBase):
        kind, out = f"a recurrent layer ({type(module).__name__})", "nn.RNNBase"
    elif isinstance(module, torch.jit.ScriptModule):
        kind, out = "a scripted or traced part", "torch.jit.ScriptModule"
    else:
        return
    raise InvalidArgumentError(
        f"{name} belongs to {kind}, which keeps its weights where a surrogate cannot prune them "
        "for one call: write ",
        Advice(
            f"exclude={out}, which leaves out all of that kind", f"--exclude {shlex.quote(name)}"
        ),
    )
