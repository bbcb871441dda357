"""From what people type to what the parser takes."""

from collections.abc import Collection, Sequence

from secateurs.errors import InvalidArgumentError


def spelled_out(arguments: Sequence[str], several: Collection[str]) -> list[str]:
    """Rewrite a command line into the one spelling that the parser knows.

    ``--p_prune`` becomes ``--p-prune``, as the original method's README wrote options, and an
    option in ``several`` may be followed by any number of values, also with commas between them:
    ``--p-prune 0 0.1,0.2`` becomes ``--p-prune 0 --p-prune 0.1 --p-prune 0.2``.

    Example:
        >>> spelled_out(["sweep", "--p_prune", "0", "0.5"], {"--p-prune"})
        ['sweep', '--p-prune', '0', '--p-prune', '0.5']
    """
    result: list[str] = []
    option: str | None = None
    for word in arguments:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word.partition("=")
            name = name.replace("_", "-")
            option = name if name in several else None
            if option is None:
                result.append(name + equals + value)
            elif equals:
                result += _repeated(option, value)
            else:
                result.append(option)  # waits for its first value
        elif option is not None and not _is_flag(word):
            if result[-1] == option:
                result.pop()
            result += _repeated(option, word)
        else:
            option = None
            result.append(word)
    return result


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


def _repeated(option: str, words: str) -> list[str]:
    return [part for word in words.split(",") if word for part in (option, word)]


def _is_flag(word: str) -> bool:
    """A word that starts with a dash, unless it is a negative number."""
    return word.startswith("-") and not word[1:2].isdigit()
