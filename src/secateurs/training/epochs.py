"""One epoch of training, and scoring."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.distributed.process_group import ProcessGroup
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.outputs import device_of, dtype_of, evaluation_mode, logits_of, moved
from secateurs.training.knowledge_distillation import Objective
from secateurs.training.labelled_images import (
    TrainingImages,
    epoch,
    mixed,
    steps_of,
    unreadable,
)
from secateurs.training.settings import TrainingSettings

SCORED_AT_ONCE = 512
"""The batch size of scoring."""


class DivergedError(FailureError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class ImageScore:
    """The accuracy and the loss of a network on a set of images.

    Attributes:
        count: images scored.
        correct: images classified correctly.
        loss: mean cross-entropy, nats.
    """

    count: int
    correct: int
    loss: float

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100 * self.correct / max(self.count, 1)


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: TrainingImages,
    settings: TrainingSettings,
    objective: Objective,
    *,
    number: int,
    seed: int,
    rate_at: Callable[[int], float],
    after_step: Callable[[], object],
    ranks: ProcessGroup,
    advance: Callable[[int], object] = lambda _: None,
) -> float:
    """Train for one epoch.

    Args:
        network: the model, or the model in DistributedDataParallel.
        optimizer: of its parameters.
        images: to train on.
        settings: batch size, augmentation, precision.
        objective: the loss.
        number: of the epoch, counted over all phases; order, augmentation and dropout depend on it
            and on ``seed`` alone.
        seed: of the training.
        rate_at: the learning rate of each step of the epoch; steps count from 0.
        after_step: called after each step of the optimizer.
        ranks: the processes that train together.
        advance: called after each step with its number of images, on all ranks together.

    Returns:
        The mean loss, in nats.

    Raises:
        DivergedError: the loss is NaN or infinite; it names the first such step.
    """
    torch.manual_seed(mixed(seed, number, ranks.rank))
    network.train()
    device, dtype = device_of(network), dtype_of(network)
    total = torch.zeros((), device=device)
    wrong = torch.full((), -1, device=device)
    count, unscored = 0, None
    batches = epoch(
        images, number, batch_size=settings.batch_size, seed=seed, augment=settings.augment,
        rank=ranks.rank, ranks=ranks.size,
    )  # fmt: skip
    for step, (batch, labels) in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.amp):
            inputs = moved(batch, device, dtype)
            logits = logits_of(network(inputs))
            loss = objective(inputs, logits.float(), labels.to(device))
        found = loss.detach()
        # The first wrong step is noted on the device, so that a GPU is not waited for.
        wrong = torch.where((wrong < 0) & ~found.isfinite(), step, wrong)
        if ranks.size == 1 and device.type == "cpu" and wrong >= 0:
            break  # several ranks go on, since each waits for the gradients of the others
        loss.backward()
        optimizer.step()
        try:
            after_step()
        except InvalidArgumentError as error:
            unscored = error  # scores are NaN if the weights are, then on all ranks
            break
        total += found * len(labels)
        count += len(labels)
        advance(len(labels) * ranks.size)
    summed, counted = _sums(ranks, float(total), count)
    firsts = np.zeros(ranks.size, np.int64)
    firsts[ranks.rank] = int(wrong) + 1
    found_at = [step for step in ranks.sum(firsts).tolist() if step]
    if found_at:
        raise DivergedError(
            f"the loss became NaN or infinite at step {min(found_at)} of "
            f"{steps_of(images, settings.batch_size, ranks.size)} of the epoch: lower the "
            "learning rate, or look for wrong images"
        )
    if unscored is not None:
        raise unscored
    return summed / max(counted, 1)


def leave_gradients(network: nn.Module, images: TrainingImages, settings: TrainingSettings) -> None:
    """Leave gradients in the parameters for scores that read them before the first step.

    They are those of cross-entropy on one batch, the first in the order of the data of which an
    image can be read.

    Raises:
        FailureError: no image can be read.
    """
    device, dtype = device_of(network), dtype_of(network)
    order = torch.arange(len(images), device="cpu")
    batches = images.batches(order, settings.batch_size)
    found = next((batch for batch in batches if len(batch[1])), None)
    if found is None:
        raise unreadable()
    batch, labels = found
    network.zero_grad()
    with evaluation_mode(network):
        logits = logits_of(network(moved(batch, device, dtype)))
        F.cross_entropy(logits.float(), labels.to(device)).backward()


@torch.no_grad()
def score_images(
    model: nn.Module, images: TrainingImages, *, amp: bool, ranks: ProcessGroup
) -> ImageScore:
    """Measure accuracy and loss.

    Args:
        model: scored in eval mode; afterwards each module is in its mode of before.
        images: each is scored once.
        amp: whether to compute in bfloat16 where torch's autocast does.
        ranks: each scores a share of the images.

    Raises:
        FailureError: none of the images can be read.
    """
    device, dtype = device_of(model), dtype_of(model)
    loss = torch.zeros((), device=device, dtype=torch.float64)
    correct = torch.zeros((), device=device)
    count = 0
    share = torch.arange(ranks.rank, len(images), ranks.size, device="cpu")
    with evaluation_mode(model):
        for batch, labels in images.batches(share, SCORED_AT_ONCE):
            if not len(labels):  # none of these images could be read
                continue
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                logits = logits_of(model(moved(batch, device, dtype)))
            labels = labels.to(device)
            loss += F.cross_entropy(logits.float(), labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
            count += len(labels)
    total, right, losses = _sums(ranks, count, float(correct), float(loss))
    if not total:
        raise FailureError("none of the images to score can be read: give others")
    return ImageScore(int(total), int(right), losses / total)


def _sums(ranks: ProcessGroup, *numbers: float) -> list[float]:
    """Each number added up over the ranks."""
    return ranks.sum(np.array(numbers, np.float64)).tolist()
