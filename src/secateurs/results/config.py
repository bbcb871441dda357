"""The configuration in a results folder, and how it differs from another one."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.regular_files import read_if_there
from secateurs._io.text import printable
from secateurs.errors import Argument, InvalidArgumentError

OTHER_OUTPUT = (" give another ", Argument("output"), ", or ", Argument("overwrite", True))
"""How errors about a folder of other results end."""

_LONGEST = 60  # characters of a value or a name in an error
_SHOWN = 8  # settings in an error


def read_config(path: Path) -> dict[str, Any] | None:
    """The configuration in a folder, or None when there is none.

    Raises:
        InvalidArgumentError: The file is not a JSON object.
        FailureError: The file cannot be read.
    """
    content = read_if_there(path)
    try:
        return None if content is None else parse_object(content)
    except BrokenJSONError as error:
        raise InvalidArgumentError(
            f"{path} is not a configuration ({error});", *OTHER_OUTPUT
        ) from error


def differences(
    present: dict[str, Any],
    wanted: dict[str, Any],
    growing: Collection[str] = (),
    optional: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """A text for each setting that differs: "p_prune: there [0.1], now [0.2]".

    Args:
        present: the configuration in the folder.
        wanted: the one asked for.
        growing: names of lists; more entries than before are no difference.
        optional: settings, or objects of settings, that are compared only where both
            configurations have a value: neither lacks the setting nor has None; for each, the text
            if it differs, since its values, such as checksums, tell a reader nothing.
    """
    old, new = _flat(present), _flat(wanted)
    differing = [
        text
        for name, text in optional.items()
        if _differs_where_known(_flat({name: present.get(name)}), _flat({name: wanted.get(name)}))
    ]
    differing += [
        f"{printable(name)[:_LONGEST]}: there {_show(old, name)}, now {_show(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if name not in old or name not in new or old[name] != new[name]
        if not (name in growing and _has_grown(old.get(name), new.get(name)))
        if name.partition(".")[0] not in optional
    ]
    more = len(differing) - _SHOWN
    return differing if more < 2 else [*differing[:_SHOWN], f"and {more} more"]


def compared(present: dict[str, Any], wanted: dict[str, Any], name: str) -> bool:
    """Whether both configurations have a value for the optional setting ``name``, or in it."""
    old, new = (_flat({name: config.get(name)}) for config in (present, wanted))
    return any(None not in (old.get(part), new.get(part)) for part in old.keys() | new.keys())


def _differs_where_known(old: dict[str, Any], new: dict[str, Any]) -> bool:
    both = [(old.get(name), new.get(name)) for name in old.keys() | new.keys()]
    return any(a != b for a, b in both if a is not None and b is not None)


def _has_grown(old: Any, new: Any) -> bool:
    return isinstance(old, list) and isinstance(new, list) and all(each in new for each in old)


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(cast(dict[str, Any], value), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _show(config: dict[str, Any], name: str) -> str:
    if name not in config:
        return "not set"
    text = printable(json.dumps(config[name], ensure_ascii=False))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
