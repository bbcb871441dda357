"""Map the names of class folders to the indices of a model's logits."""

import re
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from secateurs._io.text import listed, quoted
from secateurs.errors import InvalidArgumentError, require
from secateurs.zoo.loaded_model import LoadedModel

_SHOWN = 4
_WORDNET = re.compile(r"n\d{8}")
_IMAGENET = 1000
LARGEST_LABEL = 10**6 - 1
"""The largest label that a data set may have; no data has as many classes."""


def class_indices(
    names: Sequence[str], model: LoadedModel | None, *, folders: Sequence[str] | None = None
) -> dict[str, int]:
    """Find the index of the logit for each class name.

    The first rule that knows every name decides: (1) the model's own class names, in any case and
    with ``_`` for spaces; (2) WordNet ids such as ``n01440764``, for models with ImageNet's
    classes; (3) whole numbers, which are the indices, from 0; (4) sorted order, if there are as
    many names as the model has classes. Without a model, (4) allows any number of names. If the
    number of classes is unknown, (2) uses the 1,000 classes of ImageNet.

    Args:
        names: the classes that have images.
        model: the model whose logits are indexed.
        folders: all class folders, including those without images, for rule 4; default ``names``.

    Returns:
        An index for each of ``names``.

    Raises:
        InvalidArgumentError: no rule knows all of them; the unknown ones are named.

    Warns:
        UserWarning: numbers start at 1, so that they may be meant to count from 1.
    """
    count = model.num_classes if model else None
    for table in (_own_names(model), _wordnet_ids(names, model)):
        found = {name: table[key] for name in names if (key := _plain(name)) in table}
        if len(found) == len(names):
            return _each_once(found)
        if found:
            raise _unknown([name for name in names if name not in found], model, "its classes")
    if all(name.isascii() and name.isdigit() for name in names):
        return _numbers(names, model, count, folders or names)
    everything = sorted(folders or names)
    if model is None or count == len(everything):
        return {name: index for index, name in enumerate(everything) if name in set(names)}
    if count is None:
        raise InvalidArgumentError(
            f"the number of classes of {model.name} is unknown, so the classes of the class "
            f"folders {_first(names)} would be guessed: give the module an attribute "
            "num_classes or classes, set num_classes, or name the folders by number, from 0"
        )
    raise _unknown(
        names,
        model,
        f"class names, WordNet ids, or exactly {count} folders (here {len(everything)})",
    )


def match_labels(names: Sequence[str], model: LoadedModel | None, data: str) -> list[int]:
    """The index of the logit for each label of a data set whose labels are numbers.

    Labels are matched by name if the model's classes have the same names; otherwise the index is
    the label.

    Raises:
        InvalidArgumentError: the model has another number of classes.
    """
    count = model.num_classes if model else None
    if model is not None and count not in (None, len(names)):
        raise InvalidArgumentError(
            f"{data} has {len(names)} classes but {model.name} has {count}: name a model "
            f"for {data}, or a data set that {model.name} was trained for"
        )
    own = _own_names(model)
    if len(own) == len(names) and all(_plain(name) in own for name in names):
        return [own[_plain(name)] for name in names]
    return list(range(len(names)))


def numbered_classes(
    labels: Collection[int], model: LoadedModel | None, data: str
) -> tuple[list[str], list[int]]:
    """The names of classes counted from 0, and their indices as `match_labels` gives them.

    There are as many as the model has, since the last classes may have no images.
    """
    count = (model.num_classes if model else None) or 0
    classes = [str(each) for each in range(max(count, max(labels) + 1))]
    return classes, match_labels(classes, model, data)


def imagenet_offset(model: LoadedModel | None, data: str) -> int:
    """The index of the first of ImageNet's 1,000 classes: 0, or 1 after a background class.

    Raises:
        InvalidArgumentError: the model has other classes.
    """
    count = model.num_classes if model else None
    if model is None or count in (None, _IMAGENET):
        return 0
    if _has_background(model):
        return 1
    raise InvalidArgumentError(
        f"{data} has the 1000 classes of ImageNet but {model.name} has {count} classes: name a "
        "model that was trained on ImageNet-1k"
    )


def _own_names(model: LoadedModel | None) -> dict[str, int]:
    """The indices of the model's own class names; names that occur twice are left out."""
    plain = [_plain(name) for name in (model.classes or ())] if model else []
    times = Counter(plain)
    return {name: index for index, name in enumerate(plain) if times[name] == 1}


def _wordnet_ids(names: Sequence[str], model: LoadedModel | None) -> Mapping[str, int]:
    """The indices of the WordNet ids of the model's classes, if a name looks like one."""
    if not any(_WORDNET.fullmatch(_plain(name)) for name in names):
        return {}
    require("timm", "matching class folders with ImageNet's classes")
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    count = _IMAGENET if model is None or model.num_classes is None else model.num_classes
    offset = 1 if model is not None and _has_background(model) else 0
    subset = infer_imagenet_subset({"num_classes": count - offset})
    if subset is None:
        return {}
    return {name: index + offset for index, name in enumerate(ImageNetInfo(subset).label_names())}


def _has_background(model: LoadedModel) -> bool:
    """Whether the first class is "background", as in TensorFlow's models for ImageNet."""
    return (
        model.num_classes == _IMAGENET + 1
        and model.classes is not None
        and _plain(model.classes[0]) == "background"
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")


def _numbers(
    names: Sequence[str], model: LoadedModel | None, count: int | None, folders: Sequence[str]
) -> dict[str, int]:
    numbers = _each_once({name: int(name) for name in names})
    present = {int(name) for name in folders if name.isascii() and name.isdigit()}
    # If most numbers are missing, it means nothing that 0 is missing too.
    from_one = 1 < len(present) > max(present) / 2 and min(present) == 1
    outside = [] if count is None else [name for name in names if int(name) >= count]
    if count is not None and outside:
        raise _unknown(
            outside,
            model,
            f"numbers from 0 to {count - 1}"
            + (", but these count from 1: make each one smaller by one" if from_one else ""),
        )
    if from_one:
        warnings.warn(
            f"class folders are numbered from 1 to {max(present)}: folder 1 is taken for class 1 "
            "where the first is class 0; make each number smaller by one if they count from 1",
            stacklevel=6,
        )
    return numbers


def _each_once(found: dict[str, int]) -> dict[str, int]:
    """Refuse names of one class, such as "cat" and "Cat", or "1" and "01"."""
    times = Counter(found.values())
    twice = [name for name, index in found.items() if times[index] > 1]
    if twice:
        raise InvalidArgumentError(
            f"the class folders {_first(twice)} are one class: put their images into one folder"
        )
    return found


def _unknown(names: Sequence[str], model: LoadedModel | None, known: str) -> InvalidArgumentError:
    owner = model.name if model else "ImageNet"
    return InvalidArgumentError(
        f"{owner} does not know the class folder{'s' if len(names) > 1 else ''} {_first(names)}: "
        f"rename or remove them (understood: {known})"
    )


def _first(names: Sequence[str]) -> str:
    return listed(map(quoted, names), _SHOWN)
