"""``mlflow-projects environments``: the Python environments of projects, made ahead, listed and removed."""

from __future__ import annotations

import argparse
import os
import time

HELP = "make the environment of a project ahead, list all of them, or remove those that nobody uses"
_DAYS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may follow the sub-command's name."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = commands.add_parser("build", help="make a project's environment, for example in an image")
    build.add_argument("project", metavar="PROJECT", help="a folder, a git URL or a zip file")
    build.add_argument("--version", help="branch, tag or commit, for git")
    build.add_argument("--env-manager", help="uv, virtualenv or conda; default: what the project declares")
    commands.add_parser("list", help="show them: size, last use, what they are made from")
    prune = commands.add_parser("prune", help="remove those that were not used lately")
    prune.add_argument("--days", type=_days, default=_DAYS, help=f"not used for so long; default: {_DAYS:g}")


def _days(text: str) -> float:
    days = float(text)
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of days; give 0 or more")
    return days


def run(arguments: argparse.Namespace) -> int:
    """Do it, and print what there is to know.

    :raises ProjectError: the project is wrong, or its environment cannot be made
    :raises StepFailedError: a tool that makes it failed
    """
    actions = {"build": _build, "list": _list, "prune": _prune}
    actions[arguments.action](arguments)
    return 0


def _build(arguments: argparse.Namespace) -> None:
    from mlflow_projects import config
    from mlflow_projects.backends.local.environments import EnvironmentBuilder
    from mlflow_projects.backends.local.settings import LocalSettings
    from mlflow_projects.backends.local.withheld_variables import worker_variables
    from mlflow_projects.project.fetch import fetch
    from mlflow_projects.project.python_environment import choose_env_manager

    cache = config.cache()
    with cache.workspace() as workspace:
        project = fetch(
            arguments.project, arguments.version, cache, workspace, trusted_dirs=config.git_trusted_dirs()
        ).project
        settings = LocalSettings.of(config.backend_defaults("local"), project)
        manager = choose_env_manager(project, arguments.env_manager, settings.conda_env_manager)
        if manager == "local":
            print(f"{arguments.project} needs no environment: it runs in the worker's own Python.")
            return
        builder = EnvironmentBuilder(cache, worker_variables(os.environ), print, settings)
        with builder.activation(project, manager) as activation:
            print(f"ready: {activation.folder}")


def _list(_: argparse.Namespace) -> None:
    from mlflow_projects import config

    entries = sorted(config.cache().entries("environments"), key=lambda entry: entry.last_use, reverse=True)
    for entry in entries:
        days = (time.time() - entry.last_use) / 86400
        print(f"{entry.bytes / 10**6:8.0f} MB  used {days:5.1f} days ago  {entry.folder}  {entry.about}".rstrip())
    print(f"{len(entries)} environments, {sum(entry.bytes for entry in entries) / 10**6:.0f} MB")


def _prune(arguments: argparse.Namespace) -> None:
    from mlflow_projects import config

    kinds = ("environments", "conda_packages", "uv_packages")  # environments keep what they share with the others
    removed = [folder for kind in kinds for folder in config.cache().prune(kind, arguments.days * 86400)]
    for folder in removed:
        print(f"removed {folder}")
    print(f"{len(removed)} folders removed")
