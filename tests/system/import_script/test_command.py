"""`mlflow-projects import` as a person uses it: a script becomes a DAG, and both do the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DRIVERS = ROOT / "tests" / "projects" / "drivers"


def mlflow_projects(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT / "plugins"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "mlflow_projects.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def drivers(tmp_path: Path) -> Path:
    shutil.copytree(DRIVERS, tmp_path / "drivers")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("local_or_aws", 2),
        pytest.param("four_steps", 4, marks=pytest.mark.nightly),
        pytest.param("random_search", 11, marks=pytest.mark.nightly),
        pytest.param("cached_steps", 3, marks=pytest.mark.nightly),
        pytest.param("commands", 2, marks=pytest.mark.nightly),
        pytest.param("listed_steps", 3, marks=pytest.mark.nightly),
    ],
)
def test_script_and_dag_run_the_same_commands(name: str, steps: int, drivers: Path) -> None:
    done = mlflow_projects("import", f"{name}.py", "--out", "../dags/x.py", "--verify", folder=drivers / "drivers")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": same command, parameters, metrics, artifacts\n") == steps, done.stdout
    assert (drivers / "dags" / "x.py").is_file()


def test_a_difference_is_told(drivers: Path) -> None:
    (drivers / "drivers" / "differs.py").write_text(
        "import mlflow, os\n"
        "data = 'recorded' if 'mlflow-projects-import' in os.getcwd() else 'for real'\n"
        "mlflow.run('step', parameters={'data': data}, env_manager='local')\n"
    )
    done = mlflow_projects("import", "differs.py", "--out", "../dags/x.py", "--verify", folder=drivers / "drivers")
    assert done.returncode == 1, done.stderr
    assert "step: command: \"echo 'for real' 0.5\" and 'echo recorded 0.5'" in done.stdout


def test_an_entry_point_is_imported_by_its_own_parameters(drivers: Path) -> None:
    (drivers / "drivers" / "MLproject").write_text(
        "name: whole\nentry_points:\n  main:\n    parameters:\n      words: {type: string, default: hello}\n"
        "      lines: {type: int, default: 3}\n    command: 'python local_or_aws.py --text {words} --num {lines}'\n"
    )
    first = mlflow_projects(
        "import", "drivers", "--dag-id", "whole", "--out", "a.py", "-P", "words=a b", folder=drivers
    )
    again = mlflow_projects(
        "import", "drivers", "--dag-id", "whole", "--out", "b.py", "-P", "words=a b", folder=drivers
    )
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    text = (drivers / "a.py").read_text()
    assert text == (drivers / "b.py").read_text()
    assert '"words": Param("a b", type="string", title="Words"),' in text
    assert 'parameters={"data": "{{ params.words }}", "num": "{{ params.lines }}"},' in text


def test_a_file_that_is_there_is_kept(drivers: Path) -> None:
    (drivers / "kept.py").write_text("mine")
    done = mlflow_projects("import", "drivers/commands.py", "--out", "kept.py", folder=drivers)
    assert done.returncode == 1
    assert "is there already; nothing was written" in done.stderr
    assert (drivers / "kept.py").read_text() == "mine"
