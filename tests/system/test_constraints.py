"""Our package goes with the versions that Airflow publishes as its constraints; uv resolves, nothing is installed.

The files come from tools/airflow_constraints.py; the first line of each says from where.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

UV = Path(sys.executable).with_name("uv")
FILES = sorted((ROOT / "tests" / "system" / "airflow_constraints").glob("*-python*.txt"))


def resolve(airflow: str, python: str, *arguments: str, limits: str = "") -> subprocess.CompletedProcess[str]:
    """Resolve for a Python, which need not be here, with more constraints from the standard input."""
    command = [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "-c", "-", "--python-version", python]
    text = f"{limits}\napache-airflow=={airflow}\n"
    return subprocess.run([*command, *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False)


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where uv reaches no index that has Airflow."""
    asked = tmp_path_factory.mktemp("asked") / "requirements.in"
    asked.write_text("apache-airflow\n")
    if resolve("3.3.1", "3.12", "--no-deps", str(asked)).returncode:
        pytest.skip("uv reaches no package index with Airflow 3.3.1")


def test_there_is_a_file_for_each_python_that_we_support() -> None:
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = set(re.findall(r'"Programming Language :: Python :: (3\.\d+)"', metadata))
    assert {file.stem.partition("-python")[2] for file in FILES} == supported


@pytest.mark.usefixtures("package_index")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_our_package_resolves_with_the_constraints_of_airflow(file: Path) -> None:
    airflow, _, python = file.stem.partition("-python")
    done = resolve(airflow, python, "pyproject.toml", "--extra", "amazon", "--extra", "full", "-c", str(file))
    assert done.returncode == 0, done.stderr
    resolved, published = pins(done.stdout), pins(file.read_text())
    assert resolved["apache-airflow"] == airflow
    assert {"mlflow-skinny", "apache-airflow-providers-amazon"} <= set(resolved)
    limited = {name: version for name, version in resolved.items() if name in published}
    assert limited.items() <= published.items()
    assert len(limited) > len(resolved) * 3 / 4, "few of them are limited, which says little"


@pytest.mark.usefixtures("package_index")
def test_a_constraint_that_our_package_cannot_go_with_is_found() -> None:
    done = resolve("3.3.1", "3.12", "pyproject.toml", limits="py-rattler==0.1.0")
    assert done.returncode != 0
    assert "mlflow-projects-on-airflow depends on py-rattler" in re.sub(r"\s+", " ", done.stderr)
