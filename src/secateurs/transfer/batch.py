"""Attack one batch of images, round them to 8 bits, and score them."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from secateurs.attacks._noise import noise
from secateurs.attacks.iterative import attack
from secateurs.surrogates.wrappers import call_each
from secateurs.transfer.attack_variants import NOISE, PLAIN
from secateurs.transfer.image_choice import ImageSet, predict
from secateurs.transfer.network import FromPixels
from secateurs.transfer.outcomes import Hits, Outcome
from secateurs.transfer.plan import Job, Protocol

_STRIDE = 1_000_003  # a prime, so that seeds of different batches and members differ
_SEEDS = 2**62


def make_members(job: Job) -> list[FromPixels]:
    """The surrogates of a job, each reading pixels; none for noise."""
    return [job.variant.surrogate(network, job.seed) for network in job.group.surrogates]


def attack_batch(
    job: Job,
    members: Sequence[FromPixels],
    images: ImageSet,
    start: int,
    protocol: Protocol,
    *,
    device: torch.device,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Outcome, Tensor]:
    """Attack the batch of images that begins at ``start``, and score it at every checkpoint.

    All draws depend on the job's seed and ``start`` alone, so the outcome of a batch is independent
    of the batches before it. Images are scored as they are saved: rounded to 8 bits, and within
    epsilon after the rounding. ``advance`` is called with the number of image steps that were done.

    Returns:
        The outcome of this batch, and the images at the end, in 8 bits on the CPU.
    """
    stop = min(start + protocol.batch_size, len(images))
    pixels = images.pixels(start, stop, device)
    labels, targets = images.labels[start:stop], images.targets[start:stop]
    aims = targets if protocol.targeted else labels
    seed = _derived(job.seed, start)
    for number, member in enumerate(members):
        call_each([member], "restart", _derived(seed, number))
    outcome = Outcome(seen=stop - start)
    clock = _Clock(device)
    levels = images.levels[start:stop]
    done = protocol.steps - 1 if job.variant.recipe == NOISE else 0

    def checkpoint(step: int, adversarial: Tensor) -> None:
        nonlocal levels, done
        outcome.seconds[step] = clock.stop()
        levels = rounded(adversarial, images.levels[start:stop], protocol.eps)
        outcome.hits[step] = _score(job, levels, labels, targets, protocol.targeted)
        advance((step - done) * (stop - start))
        done = step
        clock.start()

    clock.start()
    if job.variant.recipe == NOISE:
        checkpoint(protocol.steps, noise(pixels, protocol.eps, seed=seed))
        return outcome, levels
    attack(
        members,
        pixels,
        aims.to(device),
        method=protocol.method,
        eps=protocol.eps,
        alpha=protocol.alpha,
        steps=protocol.steps,
        targeted=protocol.targeted,
        passes=_passes(job, protocol),
        seed=seed,
        every=protocol.every,
        on_checkpoint=checkpoint,
    )
    return outcome, levels


def rounded(adversarial: Tensor, levels: Tensor, eps: float) -> Tensor:
    """Round pixels in [0, 1] to 8 bits, towards the original where they exceed epsilon.

    ``levels`` are the originals in 8 bits on the CPU, and so is the result.

    Example:
        >>> rounded(torch.tensor([0.5]), torch.tensor([100], dtype=torch.uint8), 16.7 / 255)
        tensor([116], dtype=torch.uint8)
    """
    room = int(eps * 255 + 1e-6)  # 16 / 255 * 255 may be a little less than 16
    original = levels.to(torch.int16)
    change = (adversarial.detach().cpu() * 255).round().to(torch.int16) - original
    return (original + change.clamp(-room, room)).clamp(0, 255).to(torch.uint8)


def _passes(job: Job, protocol: Protocol) -> int:
    """The passes of a step; one where all passes would give the same gradient."""
    if job.variant.recipe == PLAIN and not protocol.method.is_random:
        return 1
    return protocol.passes


def _score(
    job: Job, levels: Tensor, labels: Tensor, targets: Tensor, targeted: bool
) -> dict[str, Hits]:
    pixels = levels.float() / 255
    found: dict[str, Hits] = {}
    for network in job.group.scored:
        predicted = predict(network, pixels)
        aimed = _digits(predicted == targets) if targeted else ""
        found[network.name] = Hits(aimed, _digits(predicted != labels))
    return found


def _digits(outcomes: Tensor) -> str:
    return "".join("1" if each else "0" for each in outcomes.tolist())


def _derived(seed: int, index: int) -> int:
    return (seed * _STRIDE + index) % _SEEDS


class _Clock:
    """Counts the seconds of the attack, without those of the scoring in between."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._spent, self._began = device, 0.0, 0.0

    def start(self) -> None:
        self._began = self._now()

    def stop(self) -> float:
        self._spent += self._now() - self._began
        return self._spent

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the GPU works asynchronously
        return time.perf_counter()
