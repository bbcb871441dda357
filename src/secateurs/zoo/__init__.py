"""Load models and data sets by name."""

from secateurs.zoo.classes import class_indices
from secateurs.zoo.data import LoadedData, check_data, load_data, load_unlabelled
from secateurs.zoo.digits import digits_cnn
from secateurs.zoo.images import SKIPPED, CorruptImageError, ImageDataset, drop_skipped
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.models import digits_model, load_model
from secateurs.zoo.preprocess import Preprocess

__all__ = [
    "SKIPPED",
    "CorruptImageError",
    "ImageDataset",
    "LoadedData",
    "LoadedModel",
    "Preprocess",
    "check_data",
    "class_indices",
    "digits_cnn",
    "digits_model",
    "drop_skipped",
    "load_data",
    "load_model",
    "load_unlabelled",
]
