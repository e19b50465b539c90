"""The benchmark's result as a table in the terminal, and as table and plot in docs/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.row import ROOT

DOCS = ROOT / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PLOT = """
The plot shows every figure as a multiple of its row's goal: left of the line, the goal is met.

![Every row's figures as multiples of its goal](images/benchmarks.svg)
"""


def measured(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a result, in order."""
    return [result[key] for key in sorted((key for key in result if key.isdigit()), key=int)]


def about(result: Mapping[str, Any]) -> str:
    """Return one line on machine and versions."""
    machine = result["machine"]
    names = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    words = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {names}"
    return f"QUICK, so the figures are worth nothing: {words}" if result["quick"] else words


def show(result: Mapping[str, Any]) -> None:
    """Print the table."""
    table = Table(title="Measured, side by side")
    for name in ("#", "what", "unit", "limit", "ours", "goal", "met", "other ways"):
        table.add_column(name, justify="right" if name in ("#", "limit", "ours", "goal") else "left")
    for row in measured(result):
        table.add_row(*_cells(row))
    console = Console(width=150)
    console.print(table)
    console.print(about(result))


def write(result: Mapping[str, Any], docs: Path = DOCS) -> None:
    """Write the table into ``benchmarks.md`` and the plot into ``images/benchmarks.svg``, both below a folder.

    :raises ValueError: the page has lost the marks around the table
    """
    page = docs / "benchmarks.md"
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: {BEGIN} … {END}")
    head = "| # | what | unit | limit | ours | goal | met | other ways |\n|---|---|---|---|---|---|---|---|\n"
    lines = "".join(f"| {' | '.join(_cells(row, bold='**'))} |\n" for row in measured(result))
    measurements = f"{about(result)}.\n\n{head}{lines}{PLOT}"
    page.write_text(f"{before}{begin}\n{measurements}{end}{after}", encoding="utf-8")
    _plot(result, docs / "images" / "benchmarks.svg")


def _cells(row: Mapping[str, Any], bold: str = "") -> list[str]:
    relation = "≥" if row["at_least"] else "≤"
    unmet = [name for name, holds in row["conditions"].items() if not holds]
    peers = "; ".join(f"{name}: {_number(value)}" for name, value in row["peers"].items())
    return [
        str(row["number"]),
        row["name"],
        row["unit"],
        _number(row["limit"]),
        f"{bold}{_number(row['ours'])}{bold}",
        f"{relation} {_number(row['goal'])}",
        "yes" if row["met"] else f"no: {', '.join(unmet)}" if unmet else "no",
        peers,
    ]


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _plot(result: Mapping[str, Any], file: Path) -> None:
    """Draw each row's figures as multiples of its goal, better to the left."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"})  # small, and the same every time
    from matplotlib import pyplot as plt

    rows = measured(result)[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows):
        peers = [_of_goal(row, value) for value in row["peers"].values()]
        first = place == len(rows) - 1
        axes.scatter(peers, [place] * len(peers), color="#b0b7bf", s=60, label="other ways" if first else None)
        color = "#0b7a3b" if row["met"] else "#c0392b"
        axes.scatter(_of_goal(row, row["ours"]), place, color=color, s=80, zorder=3, label="ours" if first else None)
    axes.axvline(1, color="#0b3954", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{row['number']}  {row['name']}" for row in rows])
    axes.set_xlabel("of the goal (1 = the goal; left is better)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)


def _of_goal(row: Mapping[str, Any], value: float) -> float:
    ratio = row["goal"] / max(value, 1e-9) if row["at_least"] else value / max(row["goal"], 1e-9)
    return float(min(max(ratio, 0.01), 1000.0))
