"""Result rows of attacks."""

from dataclasses import dataclass
from typing import Any

import torch

from secateurs.outputs import dtype_of
from secateurs.provenance import device_name, versions
from secateurs.results import TransferRow, digest_of, hit_columns
from secateurs.transfer.attack_variants import NOISE, PLAIN, AttackVariant, option_text
from secateurs.transfer.image_choice import ImageSet
from secateurs.transfer.network import Network
from secateurs.transfer.outcomes import Hits, Outcome
from secateurs.transfer.plan import AttackGroup, Job, Protocol


@dataclass(frozen=True, kw_only=True)
class ImageOrigin:
    """The origin of the attacked images, as the rows name it.

    Attributes:
        data: name of the data set or folder.
        split: split of the data.
        image_seed: seed of the images' order, and of drawn target classes.
        interpolation: how images were resized to the common size.
    """

    data: str = ""
    split: str = ""
    image_seed: int = 0
    interpolation: str = ""


@dataclass(frozen=True)
class ImageSubset:
    """The images of a row, and how they are attacked.

    The name is ``search`` for images that settings are chosen on, ``report`` for the others, and
    empty without a search.
    """

    name: str
    images: ImageSet
    protocol: Protocol


def make_rows(
    job: Job, part: ImageSubset, outcome: Outcome, origin: ImageOrigin, device: torch.device
) -> list[TransferRow]:
    """One row for every checkpoint and every network that was scored."""
    shared = {
        **_attack_columns(job, part, origin),
        **_variant_columns(job.variant),
        "achieved": outcome.achieved,
        "candidates_count": part.images.seen,
        "device": device_name(device),
        "versions": versions(),
    }
    return [
        TransferRow(
            **shared,
            **_network_columns(job.group, network, origin),
            **_hits(networks[network.name], targeted=part.protocol.targeted),
            step=step,
            seconds=round(outcome.seconds[step], 3),
        )
        for step, networks in sorted(outcome.hits.items())
        for network in job.group.scored
    ]


def _attack_columns(job: Job, part: ImageSubset, origin: ImageOrigin) -> dict[str, Any]:
    protocol, images = part.protocol, part.images
    drawn = f"drawn, seed {origin.image_seed}" if images.drawn else "given"
    return {
        "surrogates": job.group.name,
        "surrogates_weights": ";".join(network.sha256 for network in job.group.surrogates),
        "method": str(protocol.method),
        "passes": protocol.passes,
        "eps": protocol.eps,
        "alpha": protocol.alpha,
        "steps": protocol.steps,
        "seed": job.seed,
        "targeted_attack": protocol.targeted,
        "target_classes": drawn if protocol.targeted else "",
        "data": origin.data,
        "split": origin.split,
        "images": digest_of(images.names),
        "search_part": part.name,
        "img_size": images.levels.shape[-1],
        "batch_size": protocol.batch_size,
        "rounded": True,
    }


def _variant_columns(variant: AttackVariant) -> dict[str, Any]:
    """The options of the recipe; empty for plain attacks and noise, which prune nothing."""
    pruned = variant.recipe not in (PLAIN, NOISE)
    options = variant.defaults | dict(variant.options) if pruned else {}
    texts = (
        *("prune_type", "redraw", "granularity", "scope", "score"),
        *("layers", "include", "exclude"),
    )
    return {
        "variant": str(variant),
        "recipe": "" if variant.recipe == PLAIN else variant.recipe,
        **{name: option_text(options.get(name, "")) for name in texts},
        **{name: options.get(name, 0.0) for name in ("p_prune", "p_bern")},
    }


def _network_columns(group: AttackGroup, network: Network, origin: ImageOrigin) -> dict[str, Any]:
    attacked = network in group.surrogates
    squashed = f"squashed ({origin.interpolation}), " if origin.interpolation else ""
    return {
        "target": network.name,
        "target_sha256": network.sha256,
        "role": "whitebox" if attacked else "holdout",
        "preprocess": squashed + network.preprocess,
        "dtype": str(dtype_of(network.inner)).removeprefix("torch."),
    }


def _hits(hits: Hits, *, targeted: bool) -> dict[str, Any]:
    return hit_columns(map(int, hits.untargeted), map(int, hits.targeted) if targeted else None)
