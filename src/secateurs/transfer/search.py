"""Choosing settings on a part of the images, so that none is tuned on what it is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from secateurs._validation import check_count
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.results import TransferRow
from secateurs.transfer.attack_variants import NOISE, PLAIN, AttackVariant
from secateurs.transfer.image_choice import ImageSet


@dataclass(frozen=True, kw_only=True)
class Search:
    """How settings are chosen.

    Attributes:
        images: how many images they are chosen on, the first ones in the images' drawn order;
            None for a quarter of them, at least one.
        steps: steps of the attacks that choose; None for as many as the attacks that count.
    """

    images: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("images", "steps"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check_count(f"search_{name}", value))

    def split(self, images: ImageSet) -> tuple[ImageSet, ImageSet]:
        """The images to choose on, and the rest, which the outcome is measured on.

        Raises:
            InvalidArgumentError: nothing would be left for one of the two.
        """
        count = max(1, len(images) // 4) if self.images is None else self.images
        if count >= len(images):
            raise InvalidArgumentError(
                f"a search on {count} of {len(images)} image(s) leaves none to report on: write "
                "fewer ",
                Argument("search_images"),
                ", or a larger ",
                Argument("limit"),
            )
        return images.part(0, count), images.part(count, len(images))


def best_variants(
    variants: Sequence[AttackVariant], rows: Sequence[TransferRow]
) -> list[tuple[AttackVariant, float]]:
    """Of each recipe the variant with the highest mean success, and that success.

    The mean is over networks that the attack did not see, surrogates and seeds, after the last
    step: targeted success in percent, untargeted where the attack aims at no class. The first of
    equals is taken.

    Args:
        variants: what was tried.
        rows: what came out.
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
    """Mean success on networks that the attack did not see, after the last step, in percent."""
    return mean(
        row.untargeted if row.targeted is None else row.targeted
        for row in rows
        if row.variant == str(variant) and row.role == "holdout" and row.step == row.steps
    )
