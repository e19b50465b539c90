"""What Airflow's plugin loader and its listeners load, in a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("airflow_db")


def assert_last_line(code: str, expected: str) -> None:
    """Run code in a fresh process, in the tests' AIRFLOW_HOME."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == [expected], done.stdout + done.stderr


def test_after_airflow_loaded_its_plugins_mlflow_is_still_mlflow() -> None:
    code = """
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
assert not errors, errors
assert "mlflow_projects" in {plugin.name for plugin in plugins}, plugins
import sys
from pathlib import Path
library = [name for name, module in sys.modules.items()
           if "/plugins/mlflow_projects/" in str(getattr(module, "__file__", "")) and "." not in name]
assert library in ([], ["mlflow_projects"]), library
assert "mlflow_projects.ui.app" not in sys.modules, "the web app belongs to the API server alone"
import mlflow, git
assert Path(mlflow.__file__).parts[-3:] == ("site-packages", "mlflow", "__init__.py"), mlflow.__file__
print("plugins are fine")
"""
    assert_last_line(code, "plugins are fine")


def test_the_listeners_load_nothing_for_a_task_that_is_none_of_ours() -> None:
    code = """
from airflow.sdk.execution_time.task_runner import TaskRunnerMarker
from airflow.sdk.listener import get_listener_manager
manager = get_listener_manager()
manager.hook.on_starting(component=TaskRunnerMarker())
import sys
assert "mlflow_projects.listeners.preload" in sys.modules
print([name for name in sys.modules if name.startswith(("mlflow_projects.operators", "mlflow_projects.backends"))])
"""
    assert_last_line(code, "[]")
