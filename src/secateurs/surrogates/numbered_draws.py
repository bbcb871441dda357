"""Draws by number, whose masks can be made again instead of being kept."""

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
    """One draw. It makes the same masks each time, so that they need not be kept.

    Attributes:
        candidates: the candidates.
        p_bern: the probability with which a candidate is pruned.
        seed: the seed of this draw alone.
    """

    candidates: Candidates
    p_bern: float
    seed: int

    def masks(self) -> Masks:
        """Make the masks on the device of the candidates: a GPU need not wait for the CPU."""
        devices = {chosen.device for chosen in self.candidates.chosen.values()}
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        generator = torch.Generator(device if device.type == "cuda" else "cpu")
        return self.candidates.draw(self.p_bern, generator=generator.manual_seed(self.seed))


def seed_of(seed: int, number: int) -> int:
    """The seed of one draw of a sequence: unrelated for neighbouring seeds and numbers."""
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def placed_like(
    candidates: Candidates, targets: Sequence[Target], weights: Sequence[torch.Tensor]
) -> Candidates:
    """Bring candidates to the devices and memory layouts of their weights, if they differ."""
    if any(map(is_transformed, weights)):
        return candidates  # inside torch.func's transforms tensors have no memory of their own
    of = {t.name: weight.detach() for t, weight in zip(targets, weights, strict=True)}
    if all(_fits(chosen, of[name]) for name, chosen in candidates.local.items()):
        return candidates
    like = [
        of[name] if chosen.shape == of[name].shape else chosen.to(of[name].device)
        for name, chosen in candidates.local.items()
    ]
    made = dict(zip(candidates.local, side_by_side(like, torch.bool), strict=True))
    for name, chosen in candidates.local.items():
        made[name].copy_(chosen)
    return replace(candidates, local=made)


def _fits(chosen: torch.Tensor, weight: torch.Tensor) -> bool:
    alike = chosen.shape != weight.shape or same_order(chosen, weight)
    return alike and chosen.device == weight.device
