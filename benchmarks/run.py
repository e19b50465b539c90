"""Measure this project against the other ways to run an MLflow Project in Airflow, row by row.

Usage: python -m benchmarks.run [ROW …] [--quick] [--write]

All sides of a row are measured in turns in one run. The rows go to build/bench.json, together with those that an
earlier run with the same sizes left there. The exit status is 0 if the measurement is valid, however slow the
machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import report, rows
from benchmarks.row import ROOT, Bench, Row, machine, versions

RESULT = ROOT / "build" / "bench.json"


def main() -> None:
    modules = {int(name.split("_")[1]): name for _, name, _ in pkgutil.iter_modules(rows.__path__)}
    arguments = parse_arguments(modules)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # so that servers are stopped too
    result = earlier(arguments.result, quick=arguments.quick)
    invalid = []
    with Bench(arguments.result.parent / "bench", arguments.quick) as bench:
        for number in arguments.rows or sorted(modules):
            print(f"Row {number}: {modules[number]}", file=sys.stderr, flush=True)
            begin = time.monotonic()
            try:
                row = importlib.import_module(f"benchmarks.rows.{modules[number]}").measure(bench)
            except Exception:  # the other rows are worth their time all the same
                traceback.print_exc()
                result.pop(str(number), None)
                invalid.append(number)
                continue
            result[str(number)] = as_json(row, time.monotonic() - begin)
            arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    report.show(result)
    if arguments.write:
        report.write(result)
    if invalid:
        sys.exit(f"The measurement is invalid; see above for row {', '.join(map(str, invalid))}.")


def parse_arguments(modules: dict[int, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the ways to run an MLflow Project in Airflow.")
    numbers = ", ".join(map(str, sorted(modules)))
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help=f"which to measure (default: {numbers})")
    parser.add_argument(
        "--quick",
        action="store_true",
        default=os.environ.get("BENCH_QUICK") == "1",
        help="small sizes and one round, to see that all works; the figures are worth nothing (or BENCH_QUICK=1)",
    )
    parser.add_argument("--write", action="store_true", help="write table and plot into docs/")
    parser.add_argument("--result", type=Path, default=RESULT, help="default: build/bench.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(modules):
        parser.error(f"There is no row {', '.join(map(str, unknown))}; there are {numbers}.")
    return arguments


def earlier(file: Path, *, quick: bool) -> dict[str, Any]:
    """Return what an earlier run on this machine measured, to be completed."""
    about = {"machine": machine(), "versions": versions(), "quick": quick}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return about
    return found if {key: found.get(key) for key in about} == about else about


def as_json(row: Row, seconds: float) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "met": row.met, "measured_in_s": round(seconds)}


if __name__ == "__main__":
    main()
