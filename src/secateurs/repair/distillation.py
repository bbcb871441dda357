"""Self-distillation: a few hundred steps toward the dense network's outputs, without labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.masks.mask import Masks
from secateurs.outputs import logits_of
from secateurs.repair.changes import Changes
from secateurs.repair.divergence import Features, divergence, loss, outputs_of
from secateurs.repair.layerwise import PrunedTarget
from secateurs.repair.pass_state import PassFile, pass_key
from secateurs.repair.repair_options import RepairOptions
from secateurs.training._hold import Hold
from secateurs.training.augmentation import AUGMENTATIONS
from secateurs.training.schedules import Cubic

_HELD_OUT, _MOST_HELD_OUT = 0.125, 1024
"""The share of the images that is held out to choose the best values, and their largest number."""
_CHECKS, _PATIENCE = 15, 5
"""How often the held-out images are scored; it ends after so many scores that are no better."""
_TIGHTENINGS = 20
"""How often masks change while they are tightened."""


def distill(
    model: nn.Module,
    batches: Sequence[Tensor],
    weights: Sequence[PrunedTarget],
    features: Sequence[int],
    changes: Changes,
    how: RepairOptions,
) -> int:
    """Train a pruned network to give the dense network's outputs; no label is needed.

    The loss is the Kullback-Leibler divergence from the dense network's class probabilities
    (Hinton et al. 2015, at temperature 1), plus the error of features, see `Features.error`. In the
    end the model gets the values that were best on held-out images; these may be the first ones.

    Args:
        model: the network, in evaluation mode: BatchNorm's statistics stay.
        batches: images.
        weights: those that are pruned.
        features: the ids of the tensors that identify the layers whose outputs are compared, too.
        changes: records what is changed, and has the dense network's tensors.
        how: the options.

    Returns:
        How many steps were taken.
    """
    images = torch.cat(list(batches))
    if len(images) < 2:
        raise InvalidArgumentError(
            f"'distill' needs two images, of which one is held out, got {len(images)}"
        )
    for module in model.modules():
        for name in module._parameters:
            changes.about_to(module, name)
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    if any(p.dtype == torch.float16 for p in parameters):
        raise InvalidArgumentError(
            "'distill' cannot train weights in float16, in which squares of gradients vanish: call "
            "model.float() before, and model.half() after it"
        )
    before = [(p, p.grad, p.requires_grad) for p in parameters]
    try:
        for p in parameters:
            p.grad = None
            p.requires_grad_(True)
        return _Distiller(model, images, changes.dense, weights, features, parameters, how).run()
    finally:
        for p, grad, required in before:
            p.requires_grad_(required)
            p.grad = grad


@dataclass
class _Progress:
    """How far a distillation is.

    Attributes:
        taken: steps.
        worse: how many scores in a row were no better.
        least: the smallest divergence on held-out images.
        best: the values of all parameters that gave it.
        queue: the indices of images that are left in this epoch.
    """

    taken: int
    worse: int
    least: float
    best: list[Tensor]
    queue: Tensor


class _Distiller:
    """One distillation."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        dense: Mapping[int, Tensor],
        weights: Sequence[PrunedTarget],
        features: Sequence[int],
        parameters: Sequence[Tensor],
        how: RepairOptions,
    ):
        self.model, self.images, self.dense, self.weights = model, images, dense, weights
        self.parameters, self.how = parameters, how
        self.source = torch.Generator().manual_seed(how.seed)
        order = torch.randperm(len(images), generator=self.source, device="cpu")
        held = min(max(1, round(_HELD_OUT * len(images))), _MOST_HELD_OUT)
        self.held, self.learned = order[:held], order[held:]
        self.size = min(how.distill_batch_size, len(self.learned))
        self.features = features if how.features else ()
        self.wanted = outputs_of(model, self._parts(self.held), dense)
        if not bool(torch.isfinite(self.wanted).all()):
            raise FailureError(
                "the dense network's outputs are NaN or infinite on these images: look at the "
                "images and at the network before it is pruned"
            )
        # After so many steps all is pruned; and the share that is pruned, by the step after which.
        self.tightened, self.ratios = round(how.tighten * how.iterations), {0: 1.0}
        if self.tightened:
            every = max(1, self.tightened // _TIGHTENINGS)
            self.ratios = dict(Cubic(1.0, end=self.tightened, every=every).prunings)
        self.optimizer = torch.optim.Adam(parameters, how.learning_rate)
        self.file: PassFile | None = None
        self.hold = Hold(model, [self.optimizer], self._masks_at(0))

    def run(self) -> int:
        """Take all steps that are left, and keep the best values."""
        now = self._progress()
        while now.taken < self.how.iterations and now.worse < _PATIENCE:
            self._step(now)
            each = max(1, self.how.iterations // _CHECKS)
            if now.taken % each == 0 or now.taken == self.how.iterations:
                self._check(now)
                self._save(now)
        with torch.no_grad():
            for p, values in zip(self.parameters, now.best, strict=True):
                p.copy_(values)
        return now.taken

    def _step(self, now: _Progress) -> None:
        if len(now.queue) < self.size:
            source = torch.randperm(len(self.learned), generator=self.source, device="cpu")
            now.queue = self.learned[source]
        chosen, now.queue = now.queue[: self.size], now.queue[self.size :]
        images = self.images[chosen]
        changed = AUGMENTATIONS[self.how.augment](images, self.source)
        if images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last):
            changed = changed.contiguous(memory_format=torch.channels_last)
        for group in self.optimizer.param_groups:
            group["lr"] = self.how.learning_rate * _schedule(now.taken / self.how.iterations)
        self.optimizer.zero_grad()
        self._loss(changed).backward()
        self.optimizer.step()
        self.hold.after_step(self.optimizer)
        now.taken += 1
        if now.taken in self.ratios:
            self.hold.update(self._masks_at(now.taken))

    def _masks_at(self, step: int) -> Masks:
        """The masks in force after a step; the last ones are those that the model had before.

        In each layer the weights that are smallest in the dense network are pruned first, by the
        schedule of Zhu and Gupta (2017).
        """
        ratio = max(ratio for at, ratio in self.ratios.items() if at <= step)
        kept: dict[str, Tensor] = {}
        for one in self.weights:
            mask = one.mask.contiguous()
            if ratio < 1:
                pruned = (~mask).flatten().nonzero().flatten()
                order = self._dense_of(one).flatten()[pruned].abs().argsort(stable=True)
                mask = torch.ones_like(mask)
                mask.view(-1)[pruned[order[: round(ratio * len(pruned))]]] = False
            kept[one.target.name] = mask
        return Masks.from_tensors(kept)

    def _dense_of(self, one: PrunedTarget) -> Tensor:
        return self.dense.get(id(one.target.parameter), one.target.parameter.detach())

    def _loss(self, images: Tensor) -> Tensor:
        with torch.no_grad(), Features(self.features, self.dense) as wanted:
            target = logits_of(self.model(images), of_tokens=True)
        with torch.enable_grad():
            with Features(self.features, {}) as found:
                outputs = logits_of(self.model(images), of_tokens=True)
            error = loss(outputs, target)
            return error + self.how.features * found.error(wanted) if self.features else error

    def _check(self, now: _Progress) -> None:
        """Score the values, and keep them if they are the best, once all is pruned."""
        if now.taken < self.tightened:
            return
        found = self._divergence()
        if found < now.least:
            now.best = [p.detach().clone() for p in self.parameters]
        now.least, now.worse = min(found, now.least), 0 if found < now.least else now.worse + 1

    def _divergence(self) -> float:
        value = divergence(outputs_of(self.model, self._parts(self.held)), self.wanted)
        return value if math.isfinite(value) else math.inf

    def _parts(self, chosen: Tensor) -> list[Tensor]:
        return [self.images[part] for part in chosen.split(self.how.distill_batch_size)]

    def _progress(self) -> _Progress:
        """The progress that an interrupted distillation saved, or none."""
        best = [p.detach().clone() for p in self.parameters]
        now = _Progress(0, 0, self._divergence(), best, self.learned[:0])
        if self.how.state is not None:
            known = (self.images, *self.parameters, *self.model.buffers(), self.wanted)
            self.file = PassFile(self.how.state, pass_key("distill", self.how, known))
            if self.file.parts:
                return self._resumed(self.file.parts[-1])
        for one in self.weights if self.tightened else ():
            with torch.no_grad():  # what is pruned step by step begins dense
                values = torch.where(one.mask, one.target.parameter, self._dense_of(one))
                one.target.parameter.copy_(values)
        return now

    def _save(self, now: _Progress) -> None:
        if self.file is not None:
            self.file.replace(
                {
                    "progress": asdict(now),
                    "values": [p.detach() for p in self.parameters],
                    "optimizer": self.optimizer.state_dict(),
                    "source": self.source.get_state(),
                }
            )

    def _resumed(self, state: dict[str, Any]) -> _Progress:
        with torch.no_grad():
            for p, values in zip(self.parameters, state["values"], strict=True):
                p.copy_(values)
        self.optimizer.load_state_dict(state["optimizer"])
        self.source.set_state(state["source"])
        now = _Progress(**state["progress"])
        self.hold.update(self._masks_at(now.taken))
        return now


def _schedule(progress: float) -> float:
    """The rate's factor: linear warm-up for a twentieth, a cosine (Loshchilov and Hutter 2017)."""
    return min(1.0, 20 * progress + 0.05) * (1 + math.cos(math.pi * progress)) / 2
