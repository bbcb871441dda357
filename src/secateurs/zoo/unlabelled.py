"""Images of a folder without labels, such as those that calibrate a pruned network."""

from pathlib import Path

from secateurs.errors import InvalidArgumentError, require
from secateurs.zoo.class_folder import list_images
from secateurs.zoo.data import LoadedData, spread
from secateurs.zoo.images import ImageDataset, Item
from secateurs.zoo.preprocess import Preprocess


def load_unlabelled(
    folder: str | Path,
    preprocess: Preprocess,
    *,
    limit: int | None = None,
    skip_corrupt: bool = False,
) -> LoadedData:
    """Load all images below a folder, whatever its layout; each has the label 0.

    Args:
        folder: the folder.
        preprocess: from an image to a tensor.
        limit: use this many images, spread evenly over the folder.
        skip_corrupt: mark unreadable images with the label -1 instead of raising.

    Raises:
        InvalidArgumentError: there is no such folder, or no image in it.
        FailureError: a folder cannot be read.
    """
    require("PIL", "reading images", "pillow")
    path = Path(folder).expanduser()
    found = list(list_images(path).images) if path.is_dir() else []
    if not found:
        raise InvalidArgumentError(f"no images below {path}: give a folder of image files")
    items = [Item(found[index], 0) for index in spread(len(found), limit)]
    dataset = ImageDataset(items, preprocess, skip_corrupt=skip_corrupt)
    return LoadedData(dataset, str(folder), "unlabelled", None)
