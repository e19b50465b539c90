"""What of docs/managed.md and its files can be checked without an account."""

from __future__ import annotations

import re
import subprocess

from mlflow_projects import __version__
from mlflow_projects.config import OPTIONS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "managed.md").read_text(encoding="utf-8")
FOLDER = ROOT / "docs" / "examples" / "managed"
FILES = {file.relative_to(ROOT / "docs").as_posix(): file.read_text() for file in FOLDER.rglob("*") if file.is_file()}
WHEEL = f"mlflow_projects_on_airflow-{__version__}-py3-none-any.whl"
MWAA = FILES["examples/managed/mwaa/requirements.txt"]


def test_the_page_leads_to_each_file() -> None:
    assert set(re.findall(r"\]\((examples/managed/[^)]+)\)", PAGE)) == set(FILES)


def test_the_wheel_is_the_one_that_is_built() -> None:
    named = re.findall(r"mlflow_projects_on_airflow-[\w.-]+\.whl", PAGE + "".join(FILES.values()))
    assert len(named) >= 3
    assert set(named) == {WHEEL}
    assert FILES["examples/managed/composer/requirements.txt"] == f"mlflow-projects-on-airflow=={__version__}\n"


def test_the_constraints_of_mwaa_are_those_that_our_package_is_tested_with() -> None:
    (airflow, python) = re.findall(r"constraints-([\d.]+)/constraints-([\d.]+)\.txt", MWAA)[0]
    tested = ROOT / "tests" / "system" / "airflow_constraints" / f"{airflow}-python{python}.txt"
    assert tested.read_text().startswith(f"# Airflow's constraints-{airflow}/constraints-{python}.txt\n")


def test_the_startup_script_sets_what_we_know() -> None:
    script = FILES["examples/managed/mwaa/startup.sh"]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    exported = re.findall(r"^export AIRFLOW__MLFLOW_PROJECTS__(\w+)=", script, re.MULTILINE)
    assert {name.lower() for name in exported} <= set(OPTIONS)
    assert exported
