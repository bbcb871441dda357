"""Names as a hostile or unlucky file brings them, and what may not be shown of them."""

import re

NAMES = {
    "clears the screen": "conv\x1b[2J\x1b[1;1Hweight",
    "sets the window's title": "conv\x1b]0;owned\x07weight",
    "an eight-bit control": "conv\x9b31mweight",
    "overwrites its line": "conv 99%\rweight",
    "two lines": "conv\nsecateurs: all is well",
    "another line separator": "conv\u2028weight\u2029\x85",
    "tab and backspace": "conv\tw\x08eight",
    "null": "conv\x00weight",
    "reversed": "conv\u202egnp.exe",
    "isolated": "conv\u2066weight\u2069",
    "without width": "conv\u200bweight\ufeff",
    "half a pair": "conv\ud800weight",
    "bytes that are no UTF-8": b"conv\xff\xfeweight".decode("utf-8", "surrogateescape"),
    "markup": "[bold red]conv[/] :smile: weight",
}

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""What no output may hold but newlines (and tabs of our own)."""
