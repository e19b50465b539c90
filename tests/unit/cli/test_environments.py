"""Environments made ahead, listed and removed by a person."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_projects import config
from mlflow_projects.backends.local.environments import EnvironmentBuilder
from mlflow_projects.cli import main
from mlflow_projects.project.cache import ABOUT

DAY = 86400


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of environments in a cache of this test's own."""
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "environments"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "wine"
    root.mkdir()
    (root / "MLproject").write_text("name: red wine\npython_env: env.yaml\n")
    (root / "env.yaml").write_text("dependencies: []\n")
    return root


def entry(key: str, size: int, days: float, about: str = "") -> Path:
    """Put an environment into the cache that was used so many days ago."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "data").write_bytes(bytes(size))
        if about:
            (folder / ABOUT).write_text(f"{about}\n")

    with config.cache().entry("environments", key, make) as made:
        pass
    os.utime(made.with_suffix(".ready"), (time.time() - days * DAY - 60,) * 2)
    return made


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert main(["environments", *arguments]) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_an_environment_is_built_once_and_listed(
    project: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(capsys, "build", str(project))
    found = re.search(r"^ready: (.+)$", said, re.MULTILINE)
    assert found
    made = Path(found[1])
    assert made.parent == folder
    assert f"Building the uv environment {made}" in said
    code = "import sys; print(sys.prefix, sys.version_info[:2] == tuple(map(int, sys.argv[1].split('.'))))"
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = subprocess.run([made / "bin" / "python", "-c", code, minor], capture_output=True, text=True, check=True)
    assert python.stdout.split() == [str(made), "True"]
    assert run(capsys, "build", str(project), "--env-manager", "uv") == f"ready: {made}\n", "no second time"
    lines = run(capsys, "list").splitlines()
    assert re.fullmatch(rf" +\d+ MB  used +0\.0 days ago  {re.escape(str(made))}  uv for red wine", lines[0])
    assert re.fullmatch(r"1 environments, \d+ MB", lines[1])


def test_what_a_step_looks_for_is_what_was_built(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow_projects.project.spec import load_project

    said = run(capsys, "build", str(project))
    lines: list[str] = []
    with EnvironmentBuilder(config.cache(), dict(os.environ), lines.append).activation(
        load_project(project), "uv"
    ) as activation:
        assert said.endswith(f"ready: {activation.folder}\n")
    assert lines == []


def test_a_project_without_an_environment_needs_none(
    project: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "MLproject").write_text("name: x\n")
    expected = f"{project} needs no environment: it runs in the worker's own Python.\n"
    assert run(capsys, "build", str(project)) == expected
    assert run(capsys, "build", str(project), "--env-manager", "local") == expected
    assert not folder.exists()


def test_the_option_chooses_the_manager_of_conda_projects(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "MLproject").write_text("conda_env: env.yaml\n")
    (project / "env.yaml").write_text("dependencies: [cudatoolkit, libgcc-ng]\n")
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CONDA_ENV_MANAGER", "uv")
    said = run(capsys, "build", str(project))
    assert "known to be the same: cudatoolkit, libgcc-ng." in said
    assert "Building the uv environment" in said
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CONDA_ENV_MANAGER", "pipenv")
    assert "'conda_env_manager' must be one of local, uv, virtualenv, conda, not 'pipenv'" in run(
        capsys, "build", str(project), status=1
    )


@pytest.mark.parametrize(("content", "options", "words"), [
    ("dependencies: 3", [], "env.yaml: 'dependencies' must be a list of requirements, "),
    ("", ["--env-manager", "poetry"], "There is no env_manager 'poetry'; use one of: local, uv, virtualenv, conda."),
    ("", ["--env-manager", "conda"], "declares no 'conda_env'; env_manager 'conda' needs it."),
    ("python: 2.99.1", ["--env-manager", "virtualenv"],
     "env.yaml: env_manager 'virtualenv' finds no Python 2.99.1 on this worker; install it (pyenv install 2.99.1)"),
    ("dependencies: [./missing]", [], "env.yaml: Distribution not found at: "),
])  # fmt: skip
def test_what_cannot_be_built_is_one_sentence_and_no_environment(
    content: str, options: list[str], words: str, project: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "env.yaml").write_text(content)
    said = run(capsys, "build", str(project), *options, status=1)
    assert said.startswith("mlflow-projects: ")
    assert words in said
    assert said.count("\n") == 1
    assert not list(folder.glob("*.ready"))
    assert [path for path in folder.glob("*") if path.is_dir()] == []


def test_a_project_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "build", str(tmp_path / "missing"), status=1)
    assert str(tmp_path / "missing") in said
    assert said.count("\n") == 1


def test_the_list_begins_with_what_was_used_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "list") == "0 environments, 0 MB\n"
    old, new = entry("a" * 24, 3_000_000, 40, "conda for x"), entry("b" * 24, 5_000_000, 2)
    with config.cache().entry("checkouts", "c", Path.mkdir):
        pass
    assert run(capsys, "list").splitlines() == [
        f"       5 MB  used   2.0 days ago  {new}",
        f"       3 MB  used  40.0 days ago  {old}  conda for x",
        "2 environments, 8 MB",
    ]


def test_what_nobody_used_lately_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    old, new = entry("old", 10, 31), entry("new", 10, 29)
    with config.cache().entry("checkouts", "kept", Path.mkdir) as kept:
        pass
    os.utime(kept.with_suffix(".ready"), (1, 1))
    assert run(capsys, "prune") == f"removed {old}\n1 folders removed\n"
    assert (old.exists(), new.exists(), kept.exists()) == (False, True, True)
    assert run(capsys, "prune", "--days", "29.5") == "0 folders removed\n"
    assert run(capsys, "prune", "--days", "0") == f"removed {new}\n1 folders removed\n"
    assert run(capsys, "list") == "0 environments, 0 MB\n"


def test_an_environment_in_use_is_not_removed(capsys: pytest.CaptureFixture[str]) -> None:
    used = entry("used", 10, 40)
    with config.cache().entry("environments", "used", Path.mkdir):
        os.utime(used.with_suffix(".ready"), (1, 1))
        assert run(capsys, "prune", "--days", "0") == "0 folders removed\n"
        assert (used / "data").exists()
    assert run(capsys, "prune", "--days", "0") == f"removed {used}\n1 folders removed\n"


@pytest.mark.parametrize(
    "arguments",
    [[], ["remove"], ["build"], ["prune", "--days", "soon"], ["prune", "--days", "-1"], ["prune", "--days", "nan"]],
)
def test_a_wrong_command_is_told_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["environments", *arguments])
    assert caught.value.code == 2
    assert "usage: mlflow-projects environments" in capsys.readouterr().err
