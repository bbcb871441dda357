"""From what people type to what the parser takes."""

from collections.abc import Collection, Sequence

from secateurs.errors import InvalidArgumentError


def spelled_out(arguments: Sequence[str], several: Collection[str]) -> list[str]:
    """Rewrite a command line into the one spelling that the parser knows.

    ``--p_prune`` becomes ``--p-prune``, as the original method's README wrote options, and an
    option in ``several`` may be followed by any number of values, also with commas between them:
    ``--p-prune 0 0.1,0.2`` becomes ``--p-prune 0 --p-prune 0.1 --p-prune 0.2``. ``-o=PATH`` becomes
    ``-o PATH``, which the parser would take for the path ``=PATH``. What stands behind a lone
    ``--`` is left as it is.

    Raises:
        InvalidArgumentError: an option in ``several`` has no value.

    Example:
        >>> spelled_out(["sweep", "--p_prune", "0", "0.5"], {"--p-prune"})
        ['sweep', '--p-prune', '0', '--p-prune', '0.5']
    """
    result: list[str] = []
    option = ""  # the one in ``several`` whose values are being read
    values: list[str] = []
    words = list(arguments)
    verbatim = words[words.index("--") :] if "--" in words else []
    for word in words[: len(words) - len(verbatim)]:
        if option and not _is_option(word):
            values += _parts(word)
            continue
        result += _repeated(option, values)
        name, equals, value = word.partition("=")
        if equals and _is_short(name):
            result += [name, value]
            option, values = "", []
            continue
        name = name.replace("_", "-") if word.startswith("--") else name
        option, values = (name, []) if name in several else ("", [])
        if not option:
            result.append(name + equals + value)
        elif equals:
            values = _parts(value)
    return result + _repeated(option, values) + verbatim


def refuse_empty(arguments: Sequence[str], several: Collection[str]) -> None:
    """Refuse empty words, which a path would take for the folder that one is in.

    A ``--title`` may be empty, and the options in ``several`` have words of their own for it.

    Raises:
        InvalidArgumentError: there is one.
    """
    before = ""
    for word in arguments:
        name, equals, value = word.partition("=")
        named = bool(equals) and (name.startswith("--") or _is_short(name))
        option = name.replace("_", "-") if named else before
        if not (value if named else word) and option not in ("--title", *several):
            where = f"after {option}" if option else "first"
            raise InvalidArgumentError(
                f"the argument {where} is empty, as where a variable of the shell is not set: "
                "write its value, or leave it out"
            )
        before = word


def numbers(option: str, words: Sequence[str]) -> list[float]:
    """Read the values of an option as numbers.

    Raises:
        InvalidArgumentError: one of them is none.
    """
    return [_number(option, word) for word in words]


def _number(option: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InvalidArgumentError(f"{option} takes numbers such as 0.5, got {word!r}") from None


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    """The option before each of its values; in one word where the value looks like an option."""
    if option and not values:
        raise InvalidArgumentError(f"{option} needs at least one value")
    result: list[str] = []
    for value in values:
        result += [f"{option}={value}"] if _is_option(value) else [option, value]
    return result


def _parts(word: str) -> list[str]:
    """The values between commas; a word without any stays, so that its reader can refuse it."""
    return [part for part in map(str.strip, word.split(",")) if part] or [word]


def _is_short(name: str) -> bool:
    return len(name) == 2 and name[0] == "-" and name[1].isalpha()


def _is_option(word: str) -> bool:
    """A word that starts with a dash, unless it is a negative number."""
    return word.startswith("-") and not word[1:2].isdigit() and not word.startswith("-.")
