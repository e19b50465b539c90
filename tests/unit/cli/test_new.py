from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_projects.cli import main
from mlflow_projects.cli.check_rules import lint_project
from tests.conftest import HOME, ROOT


def files_below(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_the_files_are_clean_and_the_next_commands_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "churn", "--dags", "dags", "--projects", "code/ml projects", "--python-env"]) == 0
    printed = capsys.readouterr().out
    made = files_below(tmp_path)
    project = "code/ml projects/churn"
    names = [f"{project}/{name}" for name in ("MLproject", "train.py", "evaluate.py", "python_env.yaml")]
    assert sorted(made) == sorted([*names, "dags/churn.py"])
    assert lint_project(tmp_path / project).findings == []
    assert 'parents[1] / "code" / "ml projects" / "churn"' in made["dags/churn.py"]
    assert "mlflow==" in made[f"{project}/python_env.yaml"]
    assert f"export AIRFLOW__CORE__DAGS_FOLDER={tmp_path}/dags" in printed
    for command in (f"mlflow-projects check '{project}'", "airflow dags test churn", "mlflow-projects tree churn"):
        assert f"  {command}\n" in printed
    style = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--config",
        str(ROOT / "pyproject.toml"),
        "--ignore",
        "D,I,S,T20,TID",
    ]
    done = subprocess.run([*style, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_folders_they_go_where_airflow_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "dags"))
    assert main(["new", "orders"]) == 0
    assert sorted(files_below(tmp_path)) == [
        "dags/orders.py", "projects/orders/MLproject", "projects/orders/evaluate.py", "projects/orders/train.py",
    ]  # fmt: skip


def test_a_project_far_from_the_dags_is_named_by_its_whole_path(tmp_path: Path) -> None:
    dags, projects = tmp_path / "a" / "b" / "c" / "dags", tmp_path / "projects"
    assert main(["new", "orders", "--dags", str(dags), "--projects", str(projects)]) == 0
    assert f'PROJECT = Path("{projects}/orders")\n' in (dags / "orders.py").read_text()


@pytest.mark.parametrize("taken", ["projects/orders", "dags/orders.py"])
def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str], taken: str) -> None:
    (tmp_path / taken).parent.mkdir(parents=True)
    (tmp_path / taken).write_text("mine")
    assert main(["new", "orders", "--dags", str(tmp_path / "dags")]) == 1
    assert f"{tmp_path / taken} is there already; nothing was written." in capsys.readouterr().err
    assert files_below(tmp_path) == {taken: "mine"}


@pytest.mark.parametrize("name", ["../up", "1st", "a b", "a/b", "", "ümlaut", "x" * 101, "-x;id"])
def test_a_bad_name_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--dags", str(tmp_path / "dags"), "--", name]) == 1
    assert "cannot be a project's name" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mlflow", "json"])
def test_the_name_of_a_module_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", name, "--dags", str(tmp_path / "dags")]) == 1
    assert f"'{name}' is the name of a Python module" in capsys.readouterr().err


def test_help_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, contextlib; from mlflow_projects.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print([name for name in ('airflow', 'mlflow', 'yaml', 'rich', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=True)
    for word in ("new", "check", "tree", "janitor"):
        assert f"    {word} " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
