"""Count correct predictions, and sum the loss."""

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs._io.json_objects import as_number, as_whole, member
from secateurs._io.text import counted
from secateurs.errors import InvalidArgumentError
from secateurs.evaluation.batches import checked
from secateurs.outputs import device_of, dtype_of, logits_of, moved

_UNITS = 2**30  # losses are rounded to multiples of 1 / _UNITS nats


@dataclass
class Tally:
    """Running counts of one network over one data set.

    Attributes:
        count: images scored.
        correct1: images whose label had the highest logit.
        correct5: images whose label was among the five highest logits.
        loss_sum: sum of the cross-entropies, in nats; each batch's is rounded to a multiple of
            2^-30 (1e-9), so that the order in which batches are added makes no difference, up
            to a sum of 2^23 nats.
        agreed: images to which the dense network gives the same class; counted only where `add`
            is given the dense network's logits.
        divergence_sum: sum over the same images of the Kullback-Leibler divergence from the dense
            network's probabilities, in nats, rounded as ``loss_sum``.
    """

    count: int = 0
    correct1: int = 0
    correct5: int = 0
    loss_sum: float = 0.0
    agreed: int = 0
    divergence_sum: float = 0.0

    def add(self, logits: Tensor, labels: Tensor, dense: Tensor | None = None) -> str:
        """Count one batch.

        A label whose own logit is NaN counts as wrong, whatever the other logits are.

        Args:
            logits: (batch, classes), any float dtype, on any device.
            labels: (batch,), int64 from 0 to classes - 1; best on the CPU.
            dense: (batch, classes), the dense network's logits, to count agreement with it.

        Returns:
            One digit an image: 1 where the label had the highest logit, else 0.

        Raises:
            InvalidArgumentError: the shapes do not fit, or a label is not a class of the model.
        """
        check_labels(logits, labels)
        labels = labels.to(logits.device)
        logits, top = _highest(logits)
        own = logits.gather(1, labels[:, None])
        hits = ((top == labels[:, None]) & ~own.isnan()).to(logits.dtype)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        agreed, divergence = _beside_dense(logits, top[:, 0], dense)
        # In one tensor, since each copy of a number to the CPU makes a GPU wait.
        sums = torch.stack([hits.sum(), loss, agreed, divergence])
        any_of_five, loss, agreed, divergence, *first = torch.cat([sums, hits[:, 0]]).tolist()
        self.count += labels.numel()
        self.correct1 += int(sum(first))
        self.correct5 += int(any_of_five)
        self.loss_sum += _rounded(loss)
        self.agreed += int(agreed)
        self.divergence_sum += _rounded(divergence)
        return "".join("1" if hit else "0" for hit in first)

    def plus(self, other: "Tally") -> "Tally":
        """The counts of both, over different images."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Tally(*(mine + theirs for mine, theirs in pairs))

    @property
    def top1(self) -> float:
        """Accuracy in per cent; 0.0 before the first image."""
        return 100.0 * self.correct1 / self.count if self.count else 0.0

    @property
    def top5(self) -> float:
        """Accuracy among the five highest logits, in per cent; 0.0 before the first image."""
        return 100.0 * self.correct5 / self.count if self.count else 0.0

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats; 0.0 before the first image."""
        return self.loss_sum / self.count if self.count else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            BrokenJSONError: it is something else, or counts that cannot be right.
        """
        count = as_whole(member(values, "count"))
        first = as_whole(member(values, "correct1"), most=count)
        five = as_whole(member(values, "correct5"), first, count)
        agreed = as_whole(member(values, "agreed"), most=count)
        loss, divergence = (_sum_in(values, name) for name in ("loss_sum", "divergence_sum"))
        return cls(count, first, five, loss, agreed, divergence)


def _sum_in(values: Any, name: str) -> float:
    found = member(values, name)
    # A float may be NaN or infinite: pruning broke the network.
    return found if isinstance(found, float) else as_number(found)


def _beside_dense(logits: Tensor, top: Tensor, dense: Tensor | None) -> tuple[Tensor, Tensor]:
    """How many images have the dense network's class, and the sum of divergences from it."""
    if dense is None:
        nothing = logits.new_zeros(())
        return nothing, nothing
    dense = dense.to(logits.dtype)
    agreed = ((top == classes_of(dense)) & ~logits.isnan().any(1)).sum().to(logits.dtype)
    ours, theirs = logits.log_softmax(1), dense.log_softmax(1)
    return agreed, F.kl_div(ours, theirs, reduction="sum", log_target=True)


def classes_of(logits: Tensor) -> Tensor:
    """The class of each image; of several with the highest logit, the one that `Tally` takes."""
    return _highest(logits)[1][:, 0]


def _highest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in which sums are exact enough, and the classes of the five highest of each image."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits, logits.topk(min(5, logits.shape[1]), dim=1).indices


def _rounded(loss: float) -> float:
    return round(loss * _UNITS) / _UNITS if abs(loss) < _UNITS else loss  # also for NaN


def accuracy(model: nn.Module, loader: Iterable[Any]) -> Tally:
    """Score a model in its current mode, on its own device, in one pass over the data.

    Args:
        model: a classifier in the mode it should be scored in (usually ``eval()``).
        loader: batches of (images, labels); images are moved to the model's device and dtype.

    Returns:
        The counts.

    Raises:
        InvalidArgumentError: a batch is not a pair of tensors, or a label is not a class of the
            model.
    """
    tally, device, dtype = Tally(), device_of(model), dtype_of(model)
    with torch.no_grad():
        for images, labels in map(checked, loader):
            if len(labels):
                tally.add(logits_of(model(moved(images, device, dtype))), labels)
    return tally


def flips(dense: str, hits: str) -> tuple[int, int]:
    """How many images a network lost against the dense one, and how many it won.

    Args:
        dense: the dense network's outcomes, a digit for each image, 1 where it was right.
        hits: those of the network, on the first of these images or on all.

    Example:
        >>> flips("1101", "0101"), flips("1101", "001")
        ((1, 0), (2, 1))
    """
    count = min(len(dense), len(hits))
    before, after = (np.frombuffer(each[:count].encode(), np.uint8) for each in (dense, hits))
    return int(np.count_nonzero(before > after)), int(np.count_nonzero(before < after))


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits and labels that do not match.

    Raises:
        InvalidArgumentError: the shapes do not fit, or a label is not a class of the model.
    """
    if logits.shape[0] != labels.numel():
        raise InvalidArgumentError(
            f"{counted(logits.shape[0], 'row')} of logits for {counted(labels.numel(), 'label')}: "
            "the model must return one row an image"
        )
    low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
    if low < 0 or high >= logits.shape[1]:
        unreadable = " (-1 marks an unreadable image: see secateurs.zoo.drop_skipped)"
        raise InvalidArgumentError(
            f"labels run from {low} to {high}, but the model knows classes 0 to "
            f"{logits.shape[1] - 1}: is this the right data for this model?"
            + (unreadable if low == -1 else "")
        )
