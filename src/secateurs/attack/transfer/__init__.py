"""The transfer benchmark: attack with some networks, score on others."""

from secateurs.attack.transfer.benchmark import Benchmark, check_seeds, check_variants
from secateurs.attack.transfer.images import ImageSet, choose_images, pixel_preprocess
from secateurs.attack.transfer.network import (
    FromPixels,
    Network,
    as_network,
    fit_size,
    shared_size,
)
from secateurs.attack.transfer.plan import Group, Protocol, make_groups
from secateurs.attack.transfer.rows import Subject
from secateurs.attack.transfer.saving import check_saved
from secateurs.attack.transfer.search import Search
from secateurs.attack.transfer.variants import Variant, Variants

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
