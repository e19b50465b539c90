"""``mlflow-projects check``: is everything there that a step needs?"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_projects.cli.check_result import CheckResult, Level

if TYPE_CHECKING:
    from mlflow_projects.cli.check_rules import Report

HELP = "check this environment, the tracking server and the MLproject files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        type=Path,
        help="a project's folder, or a folder above some; default: all projects below this folder",
    )
    parser.add_argument(
        "--lint-only", action="store_true", help="look at the MLproject files only; this needs no Airflow"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; return 1 if anything is an error."""
    from mlflow_projects.cli.check_rules import is_template, lint_project

    found, results = _projects(arguments.paths)
    results += [CheckResult(Level.NOTE, f"{root} is a template, passed over.") for root in found if is_template(root)]
    reports = [lint_project(root) for root in found if not is_template(root)]
    levels: list[Level] = []
    if not arguments.lint_only:
        from mlflow_projects.cli.check_worker import inspect_environment
        from mlflow_projects.cli.connection import inspect_closing_queue, inspect_connections

        levels += _print("Environment", inspect_environment({report.environment for report in reports}))
        levels += _print("Tracking server", chain(inspect_connections(), inspect_closing_queue()))
        print("Projects")
    levels += [result.level for result in results]
    for result in results:
        print(result)
    for report in reports:
        levels += _print_report(report)
    errors, warnings = levels.count(Level.ERROR), levels.count(Level.WARNING)
    print(f"{errors} error(s), {warnings} warning(s).")
    return 1 if errors else 0


def _projects(paths: Sequence[Path]) -> tuple[list[Path], list[CheckResult]]:
    """Return the projects at or below paths, and what is to be said where there are none."""
    from mlflow_projects.cli.check_rules import find_projects

    if not paths:
        found = find_projects(Path())
        return found, [] if found else [CheckResult(Level.NOTE, "no MLproject file at or below this folder.")]
    roots: dict[Path, None] = {}
    results = []
    for path in paths:
        found = find_projects(path)
        roots.update(dict.fromkeys(found))
        if not found:
            why = "holds no MLproject file, nor does a folder below it" if path.exists() else "does not exist"
            results.append(CheckResult(Level.ERROR, f"{path} {why}."))
    return list(roots), results


def _print(title: str, results: Iterable[CheckResult]) -> list[Level]:
    """Print results as they come, as some take seconds; return their levels."""
    print(title)
    levels = []
    for result in results:
        print(result, flush=True)
        levels.append(result.level)
    return levels


def _print_report(report: Report) -> list[Level]:
    for finding in report.findings:
        print(finding)
    if not report.findings:
        print(CheckResult(Level.OK, str(report.root)))
    return [Level.ERROR if finding.is_error else Level.WARNING for finding in report.findings]
