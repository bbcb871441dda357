"""The modules and parameters of a model, and the ranks that hold it."""

from functools import cached_property

from torch import nn

from secateurs.distributed.dtensor import reshard
from secateurs.distributed.model_group import description_of, group_of
from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.target import Target


class ModelContents:
    """What a model holds, collected once; functions that prune pass it on.

    Args:
        model: the network. Parameters that FSDP gathered for a forward pass become shards again.

    Attributes:
        model: the network.
        modules: every module once, with its first qualified name, in the model's order.

    Raises:
        InvalidArgumentError: ``model`` is no module.
    """

    def __init__(self, model: nn.Module):
        if not isinstance(model, nn.Module):
            raise InvalidArgumentError(
                f"model must be a torch.nn.Module, got {type(model).__name__}"
            )
        self.model = model
        self._names = list(model.named_modules(remove_duplicate=False))
        several = len(set(map(id, (module for _, module in self._names)))) < len(self._names)
        self.modules = list(model.named_modules()) if several else self._names
        reshard(module for _, module in self.modules)

    @cached_property
    def group(self) -> ProcessGroup:
        """The ranks that hold the model.

        Raises:
            InvalidArgumentError: it is distributed in a way that cannot be pruned.
        """
        parameters = (
            p for _, module in self.modules for p in module._parameters.values() if p is not None
        )
        return group_of((module for _, module in self.modules), parameters)

    @cached_property
    def targets(self) -> dict[str, Target]:
        """Every Parameter once, by its first name, with all modules that hold it."""
        first: dict[int, str] = {}  # the first name of each Parameter, by its id
        found: dict[str, Target] = {}
        group = self.group.holders
        for prefix, module in self._names:
            before = f"{prefix}." if prefix else ""
            for attribute, parameter in module._parameters.items():
                if parameter is None:
                    continue
                name, place = before + attribute, (module, attribute)
                known = first.setdefault(id(parameter), name)
                if known not in found:
                    found[name] = Target(name, parameter, (place,), (name,), group)
                    continue
                places, names = found[known].places, (*found[known].names, name)
                places = places if place in places else (*places, place)
                found[known] = Target(known, parameter, places, names, group)
        return found

    def refuse_ranks(self, who: str, instead: str, *, copies: bool = False) -> None:
        """Refuse a model that is divided over ranks, where all of it is needed in one process.

        Args:
            who: what needs it, for the error.
            instead: what to do instead.
            copies: whether to refuse also a DistributedDataParallel, of which each rank has a copy.

        Raises:
            InvalidArgumentError: it is such a model.
        """
        if self.group.is_sharded:
            how = "is divided over ranks"
        elif copies and self.group.is_distributed:
            how = "is wrapped in DistributedDataParallel"
        else:
            return
        raise InvalidArgumentError(
            f"{who} needs a whole model in one process, and this one {how}: {instead}"
        )

    def __repr__(self) -> str:
        return description_of((name, target.parameter) for name, target in self.targets.items())
