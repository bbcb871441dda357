"""The transfer benchmark: attack some networks, and score the images on others."""

from secateurs.errors import require

require("PIL", "secateurs.transfer", "pillow")

from secateurs.transfer.attack_rows import ImageOrigin
from secateurs.transfer.attack_variants import AttackVariant, AttackVariants
from secateurs.transfer.benchmark import Benchmark, check_seeds, check_variants
from secateurs.transfer.image_choice import ImageSet, choose_images, pixel_preprocess
from secateurs.transfer.network import (
    FromPixels,
    Network,
    as_network,
    fit_size,
    shared_size,
)
from secateurs.transfer.plan import AttackGroup, Protocol, make_groups
from secateurs.transfer.saved_images import check_saved
from secateurs.transfer.search import Search

__all__ = [
    "AttackGroup",
    "AttackVariant",
    "AttackVariants",
    "Benchmark",
    "FromPixels",
    "ImageOrigin",
    "ImageSet",
    "Network",
    "Protocol",
    "Search",
    "as_network",
    "check_saved",
    "check_seeds",
    "check_variants",
    "choose_images",
    "fit_size",
    "make_groups",
    "pixel_preprocess",
    "shared_size",
]
