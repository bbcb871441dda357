"""Colours of the charts on a light page, and what each becomes on a dark one."""

INK, FAINT, GRID, PAPER = "#222222", "#777777", "#e4e4e4", "#ffffff"
DENSE = "#555555"
ABSENT = "#e9e9e9"
"""Cells of a heat map that have no colour of its scale."""

# M. Okabe and K. Ito, "Color universal design" (2008), without yellow, which fades on white.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

# Heat maps keep far enough from the colour of their numbers that these can be read everywhere.
LOW, HIGH = "#f4f8fc", "#86b6e4"
LESS, EQUAL, MORE = "#ef9f95", "#f7f7f7", "#91bfe8"

DARK = {
    INK: "#e8eaed",
    FAINT: "#9aa0a6",
    GRID: "#343a42",
    PAPER: "#171a1f",
    DENSE: "#a3a9b1",
    ABSENT: "#3a4048",
    "#0072b2": "#4ba3e3",
    "#d55e00": "#ff8b42",
    "#009e73": "#35c79c",
    "#cc79a7": "#e6a3ca",
    "#56b4e9": "#9ad7fb",
    "#e69f00": "#f3bd4b",
    "#9a9a9a": "#848b94",
    LOW: "#1c232b",
    HIGH: "#1f65a8",
    LESS: "#973c36",
    EQUAL: "#252b33",
    MORE: "#1e63a5",
}
"""The colour on a dark page for each colour on a light one."""


def line_colour(number: int) -> str:
    """The colour of a chart's line by its number; they repeat after the sixth."""
    return LINES[number % len(LINES)]


def is_dashed(number: int) -> bool:
    """Whether a line is dashed, so that two of one colour differ."""
    return number // len(LINES) % 2 == 1
