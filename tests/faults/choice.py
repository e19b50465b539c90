"""Which faults of a table a run takes: a third by turns, and always those that have failed before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

THIRDS = 3
FAILED_BEFORE = Path(__file__).with_name("failed_before.txt")


class Named(Protocol):
    """What has a name, as a fault has."""

    @property
    def name(self) -> str:
        """Return it."""


F = TypeVar("F", bound=Named)


def names_in(record: Path) -> list[str]:
    """Return the names in a file, one a line; lines that begin with # say something else."""
    return [line for line in record.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def choose(table: Sequence[F], third: int | None, record: Path) -> list[F]:
    """Return the faults of a third, by their place in the whole table, and those that have failed before.

    :param third: 0, 1 or 2; None for the whole table
    :param record: the file with the names of those that have failed before
    :raises SystemExit: the file names a fault that the table does not have
    """
    always = {*names_in(record)}
    if unknown := always - {fault.name for fault in table}:
        raise SystemExit(f"{record.name} names no fault of the table: {', '.join(sorted(unknown))}")
    return [
        fault for place, fault in enumerate(table) if third is None or place % THIRDS == third or fault.name in always
    ]
