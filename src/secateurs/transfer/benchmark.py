"""`Benchmark`: plain and diversified attacks by the field's protocol, on the same images."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from secateurs._io.text import counted
from secateurs._progress import Bar, progress_bar
from secateurs._validation import as_integer
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.outputs import device_of
from secateurs.provenance import device_name, tensors_sha256
from secateurs.results import Results, Rows, TransferRow
from secateurs.transfer.attack_rows import ImageOrigin, ImageSubset
from secateurs.transfer.attack_runner import Runner, make_jobs, work
from secateurs.transfer.attack_variants import NOISE, PLAIN, AttackVariant
from secateurs.transfer.image_choice import ImageSet
from secateurs.transfer.plan import AttackGroup, Job, Protocol, all_networks
from secateurs.transfer.saved_images import SavedImages
from secateurs.transfer.search import Search, best_variants

_PLAIN, _NOISE = AttackVariant(recipe=PLAIN), AttackVariant(recipe=NOISE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """Attacks with every group and variant, scored on networks that the attack did not use.

    The plain attack and noise are always among the variants, on the same images and seeds. Success
    is measured every ``protocol.every`` steps, on the targets and on the dense surrogates.

    Attributes:
        groups: surrogates and their targets, see `make_groups`; call `fit_size` on all networks
            first.
        images: what `choose_images` found.
        variants: the variants to compare with plain and noise, see `AttackVariants`.
        protocol: how images are attacked.
        seeds: seeds of the attack and of the masks; each is a repetition.
        search: choose the best variant of each recipe on a part of the images, with the first
            seed, and report it on the rest; None reports all variants on all images.
        origin: the origin of the images, for the rows.

    Raises:
        InvalidArgumentError: a seed is not valid, a recipe does not fit a network, or a search
            would leave no images.
    """

    groups: Sequence[AttackGroup]
    images: ImageSet
    variants: Sequence[AttackVariant]
    protocol: Protocol
    seeds: Sequence[int] = (0,)
    search: Search | None = None
    origin: ImageOrigin = field(default_factory=ImageOrigin)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        if self.search is not None:
            self.search.split(self.images)
            if not self.variants:
                raise InvalidArgumentError(
                    "nothing to search: name a ", Argument("recipe"), " beside plain"
                )
        check_variants(self.groups, self.variants)

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return device_of(all_networks(self.groups)[0].inner)

    def configuration(self) -> dict[str, Any]:
        """What must be the same for a run to continue, as JSON can hold it."""
        images = self.images
        pixels = {"levels": images.levels, "labels": images.labels, "targets": images.targets}
        return {
            "networks": {
                network.name: f"{network.sha256}, {network.preprocess}"
                for network in all_networks(self.groups)
            },
            "groups": {
                group.name: [target.name for target in group.targets] for group in self.groups
            },
            "data": asdict(self.origin),
            "images": {"count": len(images), "sha256": tensors_sha256(pixels)},
            "variants": [str(variant) for variant in self.variants],
            "protocol": {**asdict(self.protocol), "method": str(self.protocol.method)},
            "seeds": list(self.seeds),
            "search": None if self.search is None else asdict(self.search),
            "device": device_name(self.device),
        }

    def run(
        self,
        *,
        output: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        save_images: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        started: Callable[[], None] | None = None,
    ) -> Rows[TransferRow]:
        """Attack and score.

        With ``output``, rows are written when a variant is done with a group and a seed, progress
        is saved after every batch, and the same call continues an interrupted run. If the folder
        holds all rows, they are returned without an attack. Variants and seeds can be added to a
        run; those that are finished are not run again.

        Args:
            output: a folder for the results, default none.
            overwrite: delete the results that ``output`` holds.
            save_images: a folder for the attacked images, default none; see
                `secateurs.transfer.saved_images`.
            progress: False shows no progress; by default stderr shows a bar in a terminal, and a
                line about once a minute elsewhere.
            started: called once ``output`` was checked, before the first attack.

        Returns:
            One row for each group, variant, seed, checkpoint and network that was scored; the rows
            of a search come first and have ``search_part="search"``.

        Raises:
            InvalidArgumentError: ``output`` holds another run, or one with more variants or seeds.
            FailureError: the disk is full, or a saved image is not within epsilon.
        """
        with ExitStack() as stack:
            results: Results[TransferRow] | None = None
            if output is not None:
                results = stack.enter_context(Results(output, TransferRow))
                folder = None if save_images is None else str(save_images)
                config = self.configuration() | {"save_images": folder}
                results.open(config, overwrite=overwrite, growing=("variants", "seeds"))
            if started is not None:
                started()
            bar = stack.enter_context(
                progress_bar("Attacking", self._work(), show=progress, unit="image steps")
            )
            runner = Runner(origin=self.origin, device=self.device, results=results, bar=bar)
            some, rest = self._parts()
            rows = [] if some is None else runner.run(self._search_jobs(), some)
            variants = self.variants if some is None else self._choose(rows, bar)
            saved = None
            if save_images is not None:
                saved = SavedImages(Path(save_images), rest.images, self.protocol.eps)
            return Rows([*rows, *runner.run(self._jobs(variants), rest, saved)])

    def _jobs(self, variants: Sequence[AttackVariant]) -> list[Job]:
        return make_jobs(self.groups, [_NOISE, _PLAIN, *variants], self.seeds)

    def _search_jobs(self) -> list[Job]:
        return make_jobs(self.groups, [_PLAIN, *self.variants], self.seeds[:1])

    def _parts(self) -> tuple[ImageSubset | None, ImageSubset]:
        """The images that variants are chosen on, if there is a search, and those to report."""
        if self.search is None:
            return None, ImageSubset("", self.images, self.protocol)
        some, rest = self.search.split(self.images)
        protocol = replace(self.protocol, steps=self.search.steps or self.protocol.steps)
        return ImageSubset("search", some, protocol), ImageSubset("report", rest, self.protocol)

    def _choose(self, rows: Sequence[TransferRow], bar: Bar) -> list[AttackVariant]:
        """The variants that a search chose by its rows."""
        best = best_variants(self.variants, rows)
        for variant, success in best:
            bar.say(
                f"chosen on {counted(rows[0].count, 'image')}: {variant} "
                f"({success:.1f}% on networks that the attack did not use)"
            )
        return [variant for variant, _ in best]

    def _work(self) -> int:
        """The number of image steps, for the progress bar."""
        some, rest = self._parts()
        if some is None:
            return sum(work(job, rest) for job in self._jobs(self.variants))
        chosen = list({variant.recipe: variant for variant in self.variants}.values())
        return sum(work(job, some) for job in self._search_jobs()) + sum(
            work(job, rest) for job in self._jobs(chosen)
        )


def check_variants(groups: Sequence[AttackGroup], variants: Sequence[AttackVariant]) -> None:
    """Make every surrogate once, to find errors before hours of attacks.

    Raises:
        InvalidArgumentError: a recipe does not fit a network.
    """
    for network in dict.fromkeys(network for group in groups for network in group.surrogates):
        for variant in variants:
            variant.surrogate(network, 0)


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds as Python's integers.

    Raises:
        InvalidArgumentError: there are none, one is not from 0 to 2**31 - 1, or one is there twice.
    """
    found: list[int] = []
    for seed in seeds:
        number = as_integer(seed)
        if number is None or not 0 <= number < 2**31:
            raise InvalidArgumentError(f"seeds are whole numbers from 0 to 2**31 - 1, got {seed!r}")
        found.append(number)
    if not found or len(set(found)) < len(found):
        raise InvalidArgumentError(f"give at least one seed, and each once; got {found}")
    return found
