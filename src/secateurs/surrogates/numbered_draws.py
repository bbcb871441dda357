"""One draw: which candidates are pruned in one forward pass, made again whenever it is needed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from secateurs._tensors.memory_order import same_order, side_by_side
from secateurs.masks.mask import Masks
from secateurs.parameters.target import Target
from secateurs.selection.candidates import Candidates
from secateurs.surrogates.torch_transforms import is_transformed


@dataclass(frozen=True)
class Draw:
    """A draw by its number, so that it need not be kept: the same number gives the same masks.

    Attributes:
        candidates: what is drawn from.
        p_bern: the probability with which a candidate is pruned.
        seed: of this draw alone.
    """

    candidates: Candidates
    p_bern: float
    seed: int

    def masks(self) -> Masks:
        """Draw, where the candidates are: a GPU need not wait for the CPU."""
        devices = {chosen.device for chosen in self.candidates.chosen.values()}
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        generator = torch.Generator(device if device.type == "cuda" else "cpu")
        return self.candidates.draw(self.p_bern, generator=generator.manual_seed(self.seed))


def seed_of(seed: int, number: int) -> int:
    """The seed of one draw of a sequence: unrelated for neighbouring seeds and numbers."""
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def beside(
    candidates: Candidates, targets: Sequence[Target], weights: Sequence[torch.Tensor]
) -> Candidates:
    """Bring candidates to the devices and into the orders of memory of their weights."""
    if any(map(is_transformed, weights)):
        return candidates  # torch.func lends what has no memory of its own, and broadcasts
    of = {t.name: weight.detach() for t, weight in zip(targets, weights, strict=True)}
    if all(_fits(chosen, of[name]) for name, chosen in candidates.chosen.items()):
        return candidates
    like = [
        of[name] if chosen.shape == of[name].shape else chosen.to(of[name].device)
        for name, chosen in candidates.chosen.items()
    ]
    made = dict(zip(candidates.chosen, side_by_side(like, torch.bool), strict=True))
    for name, chosen in candidates.chosen.items():
        made[name].copy_(chosen)
    return replace(candidates, chosen=made)


def _fits(chosen: torch.Tensor, weight: torch.Tensor) -> bool:
    alike = chosen.shape != weight.shape or same_order(chosen, weight)
    return alike and chosen.device == weight.device
