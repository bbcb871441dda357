"""The state of a retraining, and its files, which a kill leaves either old or new."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn, optim

from secateurs._io.durable import remove_leftovers, replace_files
from secateurs._io.regular_files import read_if_there
from secateurs.errors import Argument, FailureError, InvalidArgumentError
from secateurs.training.knowledge_distillation import Objective
from secateurs.training.pruner import Pruner


@dataclass(frozen=True)
class TrainingPhase:
    """The objects that all epochs of a phase use, and their state.

    Attributes:
        name: "dense" or "retrain".
        objective: the loss.
        optimizer: of the network's parameters.
        pruner: the `Pruner`; None in the dense phase.
    """

    name: str
    objective: Objective
    optimizer: optim.Optimizer
    pruner: Pruner | None

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.pruner is not None:
            self.pruner.load_state_dict(state["pruner"])

    def state(self) -> dict[str, Any]:
        """What a resumed phase needs besides the model's state."""
        return {
            "phase": self.name,
            "optimizer": self.optimizer.state_dict(),
            "pruner": None if self.pruner is None else self.pruner.state_dict(),
        }

    def after_step(self) -> None:
        """Prune if the schedule says so."""
        if self.pruner is not None:
            self.pruner.step()

    def end(self) -> None:
        """Stop holding masks."""
        if self.pruner is not None:
            self.pruner.remove()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values so that a kill leaves either the old file or the new one.

    Args:
        path: the file; its folder exists.
        state: values that `torch.load` reads with ``weights_only=True``.

    Raises:
        FailureError: the disk is full; the old file is intact.
    """
    content = io.BytesIO()
    torch.save(state, content)
    replace_files({path: content.getvalue()})


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if there is no file.

    Raises:
        FailureError: the file is damaged or of another kind.
    """
    remove_leftovers(path.parent, lambda name: name == path.name, of_running=True)
    content = read_if_there(path)
    if content is None:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document what damaged bytes raise
        raise _damaged(path) from error
    if not isinstance(state, dict):
        raise _damaged(path)
    return state


def check_saveable(model: nn.Module) -> None:
    """Check that `save_weights` can write a model.

    Raises:
        InvalidArgumentError: its state dict holds something that is no tensor.
    """
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise InvalidArgumentError(
                f"the network's state_dict() has {name}, a {type(value).__name__}, and safetensors "
                "files hold tensors alone: let get_extra_state() of its module return a tensor"
            )


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a model's state dict as safetensors, as safely as `save_state`.

    Raises:
        FailureError: the disk is full; the old file is intact.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory.
        tensors[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    replace_files({path: save(tensors)})


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read what `save_weights` wrote.

    Raises:
        FailureError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, "missing or damaged") from error


def _damaged(path: Path, how: str = "damaged") -> FailureError:
    return FailureError(
        f"{path} is {how}, so the training cannot go on from it: begin again with ",
        Argument("overwrite", True),
    )
