"""Load any data set by its name or folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from secateurs._validation import check_count, nearest
from secateurs.errors import Advice, InvalidArgumentError, require
from secateurs.zoo import folder_layouts, image_tables, named_data, parquet
from secateurs.zoo.downloads import cache_folder
from secateurs.zoo.images import ImageDataset, Item, Listing, subset
from secateurs.zoo.loaded_model import LoadedModel, count_classes
from secateurs.zoo.preprocess import Preprocess


@dataclass
class LoadedData:
    """Images with labels, ready for a DataLoader.

    Attributes:
        dataset: pairs (tensor C x H x W, label), in a fixed order; a label of -1 marks an image
            that ``skip_corrupt`` skipped, see `secateurs.zoo.drop_skipped`.
        name: the specification that loads it again.
        split: the split, such as ``val`` or ``test``; ``all`` for a folder without splits.
        classes: names of the classes in the data, or None.
        targets: for the ImageNet-Compatible layout: the index of the class that a targeted attack
            on each image aims at; otherwise None.
    """

    dataset: ImageDataset
    name: str
    split: str
    classes: Sequence[str] | None
    targets: Sequence[int] | None = None


def load_data(
    spec: str | Path,
    *,
    preprocess: Preprocess | None = None,
    model: LoadedModel | None = None,
    split: str | None = None,
    data_root: str | Path | None = None,
    limit: int | None = None,
    skip_corrupt: bool = False,
    download: bool = True,
) -> LoadedData:
    """Load labelled images by name or from a folder.

    Args:
        spec: a folder in ImageNet layout (``DIR/val/CLASS/*`` or ``DIR/CLASS/*``) or in
            ImageNet-Compatible layout (``DIR/images.csv`` and ``DIR/images/ID.png``), with a table
            of labels (``DIR/labels.csv``: image, label), or of parquet files (``DIR/test.parquet``,
            ``DIR/data/test-*.parquet``: columns image and label); or one of
            digits, mnist, fashion-mnist, kmnist, usps, cifar10, cifar100, svhn, stl10. A folder of
            such a name is written ``./digits``.
        preprocess: from an image to a tensor (a function of your own is its ``transform``);
            default that of ``model``.
        model: the model whose classes the labels are; see `secateurs.zoo.class_indices` for how
            class folders are matched. If its number of classes is unknown, it is run on a black
            image to find it.
        split: of a folder: a sub-folder, default ``val``, else ``test``; of a named
            set: ``test`` (default) or ``train``.
        data_root: the folder that holds named sets, as torchvision arranges them; default inside
            the user's cache folder.
        limit: use this many images, spread evenly over the classes and, in a class, over the
            data; the same at every call. Classes of about equal size are all represented when
            ``limit`` is at least their number.
        skip_corrupt: mark unreadable images with the label -1 instead of raising.
        download: fetch a named set that is absent.

    Returns:
        The images in a fixed order: the same call gives the same images at the same positions.

    Raises:
        InvalidArgumentError: no such data, no images, class folders that the model does not know.
        FailureError: a download without a network; later, from the data set, a corrupt image.

    Example:
        >>> from secateurs.zoo import load_model
        >>> data = load_data("digits", model=load_model("digits", weights="random"), limit=100)
        >>> len(data.dataset), data.dataset[0][0].shape
        (100, torch.Size([1, 8, 8]))
    """
    if model is not None:
        _check_model(model, "give preprocess=...")
    require("PIL", "reading images", "pillow")
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        raise InvalidArgumentError(
            f"preprocess must be a secateurs.zoo.Preprocess, got {type(preprocess).__name__}; it "
            "holds a function of your own as its transform"
        )
    transform = preprocess or (model.preprocess if model else None)
    if transform is None:
        raise InvalidArgumentError("load_data needs preprocess=..., or model=... to take it from")
    wanted = None if limit is None else check_count("limit", limit)
    check_data(spec)
    name = _name(spec)
    if model is not None and model.num_classes is None:
        model = replace(model, num_classes=count_classes(model))
    if name in named_data.NAMES:
        root = _root(name, data_root)
        listing = named_data.read_named(name, split, model, root, download=download)
    else:
        listing = _read_folder(Path(spec).expanduser(), split, model, skip_corrupt)
    return _loaded(name, listing, transform, wanted, skip_corrupt)


def load_unlabelled(
    spec: str | Path,
    *,
    model: LoadedModel,
    split: str | None = None,
    data_root: str | Path | None = None,
    limit: int | None = None,
    skip_corrupt: bool = False,
) -> LoadedData:
    """Load images without reading a label; each gets the label 0.

    Args:
        spec: as for `load_data`, or a folder with images anywhere in it.
        model: whose preprocessing they get.
        split: default ``train``, where there is one; of a folder without it all images.
        data_root: as for `load_data`.
        limit: use this many images, one from each of as many equal parts of the data, at random
            but the same at every call; images of a folder are in the order of their paths.
        skip_corrupt: as for `load_data`.

    Raises:
        InvalidArgumentError: no such data, or no images.
        FailureError: a folder cannot be read, or a download failed.
    """
    _check_model(model, "make a secateurs.zoo.LoadedModel")
    wanted = None if limit is None else check_count("limit", limit)
    check_data(spec)
    require("PIL", "reading images", "pillow")
    name, folder = _name(spec), Path(spec).expanduser()
    if name in named_data.NAMES:
        root = _root(name, data_root)
        listing = named_data.read_named(name, split or "train", None, root, download=True)
    elif parquet.has_parquet(folder):
        usual = ("train", *parquet.HELD_OUT)
        listing = parquet.read_parquet(folder, split, None, usual)
    else:
        listing = folder_layouts.read_any_images(folder, split)
    items = [Item(item.source, 0) for item in listing.items]
    unlabelled = replace(listing, items=items, classes=None, targets=None)
    return _loaded(name, unlabelled, model.preprocess, wanted, skip_corrupt)


def check_data(spec: str | Path) -> None:
    """Refuse a specification that names no data, before anything is loaded or downloaded.

    Raises:
        InvalidArgumentError: it is neither a known name nor a folder.
    """
    folder = Path(spec).expanduser()
    if _name(spec) in named_data.NAMES or folder.is_dir():
        return
    if folder.is_file():
        raise InvalidArgumentError(
            f"{folder} is a file: give a folder; {folder_layouts.UNDERSTOOD}"
        )
    raise InvalidArgumentError(
        f"no data {str(spec)!r}: give a folder that exists, or one of "
        f"{', '.join(named_data.NAMES)}{nearest(str(spec), named_data.NAMES)}"
    )


def _check_model(model: object, otherwise: str) -> None:
    if not isinstance(model, LoadedModel):
        raise InvalidArgumentError(
            f"model must be what load_model gives, got {type(model).__name__}; for a network of "
            f"your own {otherwise}"
        )


def _read_folder(
    folder: Path, split: str | None, model: LoadedModel | None, skip_corrupt: bool
) -> Listing:
    tables = {
        image_tables.COMPATIBLE: image_tables.read_compatible,
        image_tables.LABELS: image_tables.read_label_table,
    }
    for name, read in tables.items():
        if (folder / name).is_file():
            if split not in (None, "test"):
                raise InvalidArgumentError(
                    f"{folder} ({name}) is not divided, so it has no part {split!r}",
                    Advice(": leave split out"),  # some commands have a default of their own
                )
            return read(folder, model, skip_corrupt=skip_corrupt)
    if parquet.has_parquet(folder):
        return parquet.read_parquet(folder, split, model)
    return folder_layouts.read_class_folders(folder, split, model)


def _loaded(
    name: str, listing: Listing, transform: Preprocess, limit: int | None, skip_corrupt: bool
) -> LoadedData:
    count = len(listing.items)
    kept = subset([item.label for item in listing.items], count if limit is None else limit)
    items = [listing.items[index] for index in kept]
    return LoadedData(
        dataset=ImageDataset(items, transform, skip_corrupt=skip_corrupt),
        name=name,
        split=listing.split,
        classes=listing.classes,
        targets=[listing.targets[index] for index in kept] if listing.targets else None,
    )


def _root(name: str, data_root: str | Path | None) -> Path:
    """The folder of a named set; only one that may be downloaded needs the cache folder."""
    if data_root:
        return Path(data_root).expanduser()
    return cache_folder() / "data" if name in named_data.DOWNLOADED else Path()


def _name(spec: str | Path) -> str:
    """A named set in its canonical spelling, or the folder as it was given."""
    name = named_data.canonical(spec) if isinstance(spec, str) else ""
    return name if name in named_data.NAMES else str(spec)
