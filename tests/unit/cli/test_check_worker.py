from __future__ import annotations

import sys
import types
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from mlflow_projects import plugin_entry
from mlflow_projects.cli import check_worker
from mlflow_projects.cli.check_result import CheckResult, Level
from mlflow_projects.cli.check_worker import inspect_environment
from mlflow_projects.plugin import MLflowProjectsPlugin


def about(results: list[CheckResult], word: str) -> CheckResult:
    (found,) = [result for result in results if result.text.startswith(word)]
    return found


def test_a_missing_program_is_an_error_only_where_a_project_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine")
    results = list(inspect_environment({None, "python_env"}))
    assert {result.level for result in results} == {Level.OK, Level.NOTE}
    assert about(results, "uv (").level is Level.OK, "beside this Python, as tasks find it"
    assert about(results, "py-rattler").level is Level.OK
    assert about(results, "The container engine at").level is Level.NOTE

    def gone(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(check_worker.metadata, "version", lambda name: gone(name) if "rattler" in name else "99.9")
    assert about(list(inspect_environment({None})), "py-rattler is not here").level is Level.NOTE
    results = list(inspect_environment({"conda_env", "docker_env"}))
    assert about(results, "py-rattler is not here").level is Level.ERROR
    assert about(results, "The container engine at").level is Level.ERROR


def test_a_part_of_mlflow_is_enough_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "mlflow":
            raise PackageNotFoundError(name)
        return "99.9"

    monkeypatch.setattr(check_worker.metadata, "version", version)
    results = list(inspect_environment(()))
    assert about(results, "MLflow 99.9").level is Level.OK
    assert about(results, "only a part of MLflow is here").level is Level.NOTE


def test_the_plugin_is_found_once_where_it_is_installed_and_in_the_plugins_folder() -> None:
    found = about(list(inspect_environment(())), "plugin ")
    assert found == CheckResult(Level.OK, "plugin mlflow_projects from $PLUGINS_FOLDER/mlflow_projects_plugin.py")


def test_the_entry_point_is_a_plugin_unless_the_plugins_folder_holds_our_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "mlflow_projects_plugin", raising=False)
    assert plugin_entry.plugin is MLflowProjectsPlugin
    monkeypatch.setitem(sys.modules, "mlflow_projects_plugin", types.ModuleType("mlflow_projects_plugin"))
    assert plugin_entry.plugin is None
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = plugin_entry.other


PAUSE = "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME"


@pytest.mark.parametrize(("seconds", "words"), [(None, "is 1 s here"), ("1", "average 0.5 s"), ("4", "average 2 s")])
def test_a_scheduler_that_sleeps_as_long_as_airflow_has_it_is_told_once(
    monkeypatch: pytest.MonkeyPatch, seconds: str | None, words: str
) -> None:
    monkeypatch.delenv(PAUSE, raising=False)
    if seconds:
        monkeypatch.setenv(PAUSE, seconds)
    note = about(list(inspect_environment(())), "[scheduler] scheduler_idle_sleep_time")
    assert note.level is Level.NOTE
    assert words in note.text
    name, _, value = note.text.rpartition(" ")[2].rstrip(".").partition("=")
    assert name == PAUSE
    monkeypatch.setenv(name, value)
    assert "scheduler_idle_sleep_time" not in str(list(inspect_environment(()))), "what the note says helps"


def test_a_pause_that_is_no_number_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PAUSE, "soon")
    error = about(list(inspect_environment(())), "Airflow's configuration")
    assert error.level is Level.ERROR
    assert '"scheduler_idle_sleep_time" key in "scheduler"' in error.text
