"""The transfer benchmark: attack with some networks, score on others."""

from secateurs.errors import require

require("PIL", "secateurs.transfer", "pillow")

from secateurs.transfer.attack_rows import Subject
from secateurs.transfer.attack_variants import Variant, Variants
from secateurs.transfer.benchmark import Benchmark, check_seeds, check_variants
from secateurs.transfer.image_choice import ImageSet, choose_images, pixel_preprocess
from secateurs.transfer.network import (
    FromPixels,
    Network,
    as_network,
    fit_size,
    shared_size,
)
from secateurs.transfer.plan import Group, Protocol, make_groups
from secateurs.transfer.saved_images import check_saved
from secateurs.transfer.search import Search

__all__ = [
    "Benchmark",
    "FromPixels",
    "Group",
    "ImageSet",
    "Network",
    "Protocol",
    "Search",
    "Subject",
    "Variant",
    "Variants",
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
