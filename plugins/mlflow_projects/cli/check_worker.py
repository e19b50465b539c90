"""What the tasks of this environment find: Python, Airflow, MLflow, the plugin, and programs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Collection, Iterator
from importlib import metadata
from pathlib import Path

from mlflow_projects import __version__
from mlflow_projects.cli.check_result import CheckResult, Level
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.spec import EnvironmentKind

_OLDEST_PYTHON, _NEWEST_PYTHON = (3, 10), (3, 13)
_OLDEST = {"apache-airflow-core": ("Airflow", (3, 3)), "mlflow-skinny": ("MLflow", (3, 17))}
_DISTRIBUTION = "mlflow-projects-on-airflow"
_PLUGIN = "mlflow_projects"
_ENGINE_SECONDS = 10


def inspect_environment(declared: Collection[EnvironmentKind | None]) -> Iterator[CheckResult]:
    """Yield a result for each part.

    :param declared: the environments that projects declare; a program that they need must be there
    """
    yield _python()
    versions = list(_versions())
    yield from versions
    if not any(result.level is Level.ERROR for result in versions):
        yield _provider()
        yield _plugin()
        yield from _scheduler_pause()
    yield _program("git", "projects in git need it", needed=False)
    yield _program("uv", "python_env needs it", needed="python_env" in declared)
    yield _conda_library(needed="conda_env" in declared)
    yield _container_engine(needed="docker_env" in declared)


def _python() -> CheckResult:
    text = f"Python {platform.python_version()} ({sys.executable})"
    if _OLDEST_PYTHON <= sys.version_info[:2] <= _NEWEST_PYTHON:
        return CheckResult(Level.OK, text)
    oldest, newest = (".".join(map(str, version)) for version in (_OLDEST_PYTHON, _NEWEST_PYTHON))
    return CheckResult(Level.ERROR, f"{text}: Python {oldest} to {newest} is needed.")


def _versions() -> Iterator[CheckResult]:
    for distribution, (name, oldest) in _OLDEST.items():
        wanted = ".".join(map(str, oldest))
        try:
            found = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            yield CheckResult(Level.ERROR, f"{name} is not installed here; {name} {wanted} or later is needed.")
            continue
        if tuple(int(part) for part in found.split(".")[:2]) < oldest:
            yield CheckResult(Level.ERROR, f"{name} {found} is too old; {name} {wanted} or later is needed.")
        else:
            if name == "Airflow":
                from airflow.configuration import AIRFLOW_HOME

                found += f", AIRFLOW_HOME {AIRFLOW_HOME}"
            yield CheckResult(Level.OK, f"{name} {found}")
    if not is_whole_mlflow():
        yield CheckResult(
            Level.NOTE,
            "only a part of MLflow is here (mlflow-skinny); projects that log models and have no environment of "
            f"their own need the whole: pip install '{_DISTRIBUTION}[full]'.",
        )


def is_whole_mlflow() -> bool:
    """Tell whether more of MLflow is installed here than what this package brings."""
    try:
        metadata.version("mlflow")
    except metadata.PackageNotFoundError:
        return False
    return True


def _provider() -> CheckResult:
    """Look for the provider, without which the connection type has no form and ``connections add`` no type."""
    found = [
        dist.version
        for dist in metadata.distributions()
        if (dist.metadata["Name"] or "").lower() == _DISTRIBUTION
        and any(entry.group == "apache_airflow_provider" for entry in dist.entry_points)
    ]
    if not found:
        return CheckResult(
            Level.WARNING,
            f"{_DISTRIBUTION} is not installed as a package: steps run, but the form of the connection and our "
            "options of airflow.cfg are unknown to Airflow; pip install it.",
        )
    if len(found) > 1:
        return CheckResult(
            Level.ERROR,
            f"{_DISTRIBUTION} is installed {len(found)} times ({', '.join(found)}); "
            "uninstall it, then install it once.",
        )
    return CheckResult(Level.OK, f"provider {_DISTRIBUTION} {__version__}")


def _plugin() -> CheckResult:
    from airflow import plugins_manager

    sources = [str(info["source"]) for info in plugins_manager.get_plugin_info(["source"]) if info["name"] == _PLUGIN]
    errors = [
        f"{place}: {error}"
        for place, error in plugins_manager.get_import_errors().items()
        if _PLUGIN in f"{place}{error}"
    ]
    if errors:
        return CheckResult(Level.ERROR, f"Airflow cannot load the plugin {_PLUGIN} ({'; '.join(errors)}).")
    if not sources:
        return CheckResult(
            Level.ERROR,
            f"Airflow does not find the plugin {_PLUGIN}: runs would stay open when a person ends a task; "
            f"pip install {_DISTRIBUTION}, or copy plugins/ with its .airflowignore.",
        )
    if len(sources) > 1:
        return CheckResult(
            Level.ERROR, f"Airflow finds the plugin {_PLUGIN} {len(sources)} times ({', '.join(sources)})."
        )
    return CheckResult(Level.OK, f"plugin {_PLUGIN} from {sources[0].partition(': EntryPoint')[0]}")


def _scheduler_pause() -> Iterator[CheckResult]:
    """Yield a note if the scheduler sleeps as long as Airflow's own default between two looks."""
    from airflow.configuration import conf
    from airflow.exceptions import AirflowConfigException

    section, option = "scheduler", "scheduler_idle_sleep_time"
    try:
        seconds = conf.getfloat(section, option)
    except AirflowConfigException as error:
        yield CheckResult(Level.ERROR, f"Airflow's configuration: {error}")
        return
    if seconds >= float(conf.get_default_value(section, option)):
        yield CheckResult(
            Level.NOTE,
            f"[{section}] {option} is {seconds:g} s here: each task waits up to that long for its start, on average "
            f"{seconds / 2:g} s; for the scheduler, set AIRFLOW__{section.upper()}__{option.upper()}=0.2.",
        )


def _program(name: str, why: str, *, needed: bool) -> CheckResult:
    """Look where tasks look: beside this Python, then on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found:
        return CheckResult(Level.OK, f"{name} ({found})")
    return CheckResult(Level.ERROR if needed else Level.NOTE, f"{name} is not here; {why}.")


def _conda_library(*, needed: bool) -> CheckResult:
    """Look for what makes conda environments; nothing of it is loaded."""
    try:
        return CheckResult(Level.OK, f"py-rattler {metadata.version('py-rattler')}")
    except metadata.PackageNotFoundError:
        return CheckResult(
            Level.ERROR if needed else Level.NOTE,
            "py-rattler is not here; only projects with conda_env need it: pip install py-rattler, or name a program "
            "such as micromamba in [mlflow_projects] conda_program.",
        )


def _container_engine(*, needed: bool) -> CheckResult:
    from mlflow_projects.backends.local.engine import connected, engine_host

    level = Level.ERROR if needed else Level.NOTE
    try:
        host = engine_host(os.environ)
    except ProjectError:
        hint = "only projects with docker_env or docker_image need one"
        return CheckResult(
            level, f"no container engine is here (no DOCKER_HOST, no socket of Docker or podman); {hint}."
        )
    try:
        with connected(os.environ, timeout=_ENGINE_SECONDS) as client:
            return CheckResult(Level.OK, f"container engine {client.version()['Version']} at {host}")
    except StepFailedError as error:
        return CheckResult(level, str(error))
