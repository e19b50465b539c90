"""Nothing heavy loads before it is needed: every Airflow task is a new process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HEAVY = (
    "mlflow",
    "pandas",
    "numpy",
    "boto3",
    "botocore",
    "docker",
    "git",
    "requests",
    "sagemaker",
    "fastapi",
    "torch",
)
REPORT = "\nimport sys, json; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"


def loaded_by(code: str, tmp_path: Path) -> list[str]:
    """Run code in a fresh process; return which heavy modules it loaded."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT.format(heavy=HEAVY)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


MODULES = """
import pkgutil, importlib, mlflow_projects
for module in pkgutil.walk_packages(mlflow_projects.__path__, "mlflow_projects."):
    if module.name not in ("mlflow_projects.ui.app", "mlflow_projects.ui.webhook"):  # loaded by the API server only
        importlib.import_module(module.name)
"""

DAGS = """
import importlib.util, pathlib
for file in sorted(pathlib.Path({folder!r}).glob("*.py")):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


def test_no_module_of_the_library_loads_anything_heavy(tmp_path: Path) -> None:
    assert loaded_by(MODULES, tmp_path) == []


def test_no_dag_file_loads_anything_heavy(tmp_path: Path, repository_root: Path) -> None:
    assert loaded_by(DAGS.format(folder=str(repository_root / "dags")), tmp_path) == []


def test_importing_the_package_does_not_even_load_airflow(tmp_path: Path) -> None:
    code = "import mlflow_projects, sys; assert 'airflow' not in sys.modules"
    assert loaded_by(code, tmp_path) == []


BELOW_THE_HOOKS = """
import importlib, pkgutil, sys
import mlflow_projects.attempt.life, mlflow_projects.attempt.reuse
for room in ("backends", "project", "tracking"):
    package = importlib.import_module(f"mlflow_projects.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
assert "mlflow_projects.backends.sagemaker.request" in sys.modules
assert "airflow" not in sys.modules
"""


def test_nothing_below_the_hooks_loads_airflow(tmp_path: Path) -> None:
    assert loaded_by(BELOW_THE_HOOKS, tmp_path) == []
