"""Choose settings on a part of the images; success is measured on the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from secateurs._io.text import counted
from secateurs._validation import check_count
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.results import TransferRow
from secateurs.transfer.attack_variants import NOISE, PLAIN, AttackVariant
from secateurs.transfer.image_choice import ImageSet


@dataclass(frozen=True, kw_only=True)
class Search:
    """How settings are chosen.

    Attributes:
        images: number of images that they are chosen on, the first ones; None for a quarter, at
            least one.
        steps: steps of the attacks of the search; None for the steps of the protocol.
    """

    images: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("images", "steps"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_count(f"search_{name}", value))

    def split(self, images: ImageSet) -> tuple[ImageSet, ImageSet]:
        """The images to choose on, and the rest, which success is measured on.

        Raises:
            InvalidArgumentError: nothing would be left for one of the two.
        """
        count = max(1, len(images) // 4) if self.images is None else self.images
        if count >= len(images):
            raise InvalidArgumentError(
                f"a search on {count} of {counted(len(images), 'image')} leaves none to report "
                "on: write fewer ",
                Argument("search_images"),
                ", or a larger ",
                Argument("limit"),
            )
        return images.part(0, count), images.part(count, len(images))


def best_variants(
    variants: Sequence[AttackVariant], rows: Sequence[TransferRow]
) -> list[tuple[AttackVariant, float]]:
    """The variant of each recipe with the highest mean success, and that success.

    The mean is over targets, groups and seeds, after the last step: targeted success in percent,
    untargeted success of an untargeted attack. Of equal variants, the first is chosen.
    """
    found: dict[str, tuple[AttackVariant, float]] = {}
    for variant in variants:
        if variant.recipe in (PLAIN, NOISE):
            continue
        score = mean_success(variant, rows)
        if variant.recipe not in found or score > found[variant.recipe][1]:
            found[variant.recipe] = (variant, score)
    return list(found.values())


def mean_success(variant: AttackVariant, rows: Sequence[TransferRow]) -> float:
    """Mean success on networks that the attack did not use, after the last step, in percent."""
    return mean(
        row.untargeted if row.targeted is None else row.targeted
        for row in rows
        if row.variant == str(variant) and row.role == "holdout" and row.step == row.steps
    )
