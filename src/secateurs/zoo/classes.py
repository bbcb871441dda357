"""From the names of class folders to the indices of a model's answers."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

from secateurs._io.text import quoted
from secateurs.errors import InvalidArgumentError
from secateurs.zoo.loaded_model import LoadedModel

_SHOWN = 4
_IMAGENET = 1000


def class_indices(
    names: Sequence[str], model: LoadedModel | None, *, folders: Sequence[str] | None = None
) -> dict[str, int]:
    """Find the answer that each class name stands for.

    The first rule that knows every name decides: (1) the model's own class names, spelled in any
    case and with ``_`` for spaces; (2) WordNet ids such as ``n01440764``, for models with
    ImageNet's classes; (3) whole numbers, which count the model's answers from 0; (4) sorted order,
    when there are as many names as the model has answers. Without a model (4) means any number of
    names, and without a number of answers (2) means the 1,000 classes of ImageNet.

    Args:
        names: the classes that have images.
        model: whose answers are meant.
        folders: all class folders, also those without images, for rule 4; default ``names``.

    Returns:
        An index for each of ``names``.

    Raises:
        InvalidArgumentError: no rule knows all of them; the unknown ones are named.

    Warns:
        UserWarning: numbers start at 1, so that they may be meant to count from 1.
    """
    count = model.num_classes if model else None
    for table_of in (_own_names, _wordnet_ids):
        table = table_of(model)
        found = {name: table[key] for name in names if (key := _plain(name)) in table}
        if len(found) == len(names):
            return found
        if found:
            raise _unknown([name for name in names if name not in found], model, "its classes")
    if all(name.isascii() and name.isdigit() for name in names):
        return _numbers(names, model, count, folders or names)
    everything = sorted(folders or names)
    if model is None or count == len(everything):
        return {name: index for index, name in enumerate(everything) if name in set(names)}
    if count is None:
        raise InvalidArgumentError(
            f"nobody knows how many classes {model.name} answers, so which of them the class "
            f"folders {_first(names)} stand for would be guessed: give the module an attribute "
            "num_classes or classes, say num_classes, or name the folders by number, from 0"
        )
    raise _unknown(
        names,
        model,
        f"class names, WordNet ids, or exactly {count} folders (here {len(everything)})",
    )


def match_labels(names: Sequence[str], model: LoadedModel | None, data: str) -> list[int]:
    """The answer for each label of a data set whose labels are numbers.

    By name where the model's classes are the same names in another order, else as they are.

    Raises:
        InvalidArgumentError: the model has another number of answers.
    """
    count = model.num_classes if model else None
    if model is not None and count not in (None, len(names)):
        raise InvalidArgumentError(
            f"{data} has {len(names)} classes but {model.name} has {count} answers: name a model "
            f"for {data}, or a data set that {model.name} was trained for"
        )
    own = _own_names(model)
    if len(own) == len(names) and all(_plain(name) in own for name in names):
        return [own[_plain(name)] for name in names]
    return list(range(len(names)))


def imagenet_offset(model: LoadedModel | None, data: str) -> int:
    """Where ImageNet's 1,000 classes start: 0, or 1 for a model with a background class.

    Raises:
        InvalidArgumentError: the model was not made for these classes.
    """
    count = model.num_classes if model else None
    if model is None or count in (None, _IMAGENET):
        return 0
    if _has_background(model):
        return 1
    raise InvalidArgumentError(
        f"{data} has the 1000 classes of ImageNet but {model.name} has {count} answers: name a "
        "model that was trained on ImageNet-1k"
    )


def _own_names(model: LoadedModel | None) -> dict[str, int]:
    """Names that occur twice stand for neither class."""
    plain = [_plain(name) for name in (model.classes or ())] if model else []
    times = Counter(plain)
    return {name: index for index, name in enumerate(plain) if times[name] == 1}


def _wordnet_ids(model: LoadedModel | None) -> Mapping[str, int]:
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    count = _IMAGENET if model is None or model.num_classes is None else model.num_classes
    offset = 1 if model is not None and _has_background(model) else 0
    subset = infer_imagenet_subset({"num_classes": count - offset})
    if subset is None:
        return {}
    return {name: index + offset for index, name in enumerate(ImageNetInfo(subset).label_names())}


def _has_background(model: LoadedModel) -> bool:
    """TensorFlow's ImageNet models answer 1,001 classes, of which the first is none of them."""
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
    numbers = {name: int(name) for name in names}
    times = Counter(numbers.values())
    twice = [name for name, number in numbers.items() if times[number] > 1]
    if twice:
        raise InvalidArgumentError(
            f"the class folders {_first(twice)} are one class: put their images into one folder"
        )
    present = {int(name) for name in folders if name.isascii() and name.isdigit()}
    # Some may be missing, but not most: of a thousand classes, any few may be there.
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


def _unknown(names: Sequence[str], model: LoadedModel | None, known: str) -> InvalidArgumentError:
    who = model.name if model else "ImageNet"
    return InvalidArgumentError(
        f"{who} does not know the class folder{'s' if len(names) > 1 else ''} {_first(names)}: "
        f"rename or remove them (understood: {known})"
    )


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
