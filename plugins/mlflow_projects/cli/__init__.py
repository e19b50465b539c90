"""The console command ``mlflow-projects``; each sub-command is a module of its name.

Nothing but the standard library loads before a sub-command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from mlflow_projects import __version__
from mlflow_projects.cli import check, close, environments, import_script, janitor, new, tree
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; return 0 for success, 1 for an error that was printed in one sentence."""
    for stream in (sys.stdout, sys.stderr):  # a name may hold what the terminal's encoding does not
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="mlflow-projects", description="MLflow Projects on Airflow.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (new, import_script, check, environments, tree, close, janitor):
        name = getattr(module, "NAME", module.__name__.rpartition(".")[2])
        description = getattr(module, "DESCRIPTION", f"{module.HELP[0].upper()}{module.HELP[1:]}.")
        command = commands.add_parser(name, help=module.HELP, description=description)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    words = list(sys.argv[1:] if argv is None else argv)
    rest: list[str] = []
    if words[:1] == [import_script.NAME] and "--" in words:  # argparse takes no list of words behind options
        words, rest = words[: words.index("--")], words[words.index("--") + 1 :]
    arguments = parser.parse_args(words)
    if rest:
        arguments.args = rest
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, as in `mlflow-projects check | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is there a complaint at the exit
        return 1
    except (ProjectError, StepFailedError, TrackingError) as error:
        print(f"mlflow-projects: {error}", file=sys.stderr)
        return 1
    return status
