"""A phase of a retraining, dense or with masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import optim

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
