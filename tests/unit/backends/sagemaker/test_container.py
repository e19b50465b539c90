"""What a training job gets of a step, and which steps it cannot get."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.attempt.step import run_variables
from mlflow_projects.backends.contract import Host, Job
from mlflow_projects.backends.sagemaker import SageMakerBackend
from mlflow_projects.backends.sagemaker.container import (
    check_environment,
    command_of,
    packages_of,
    public_variables,
)
from mlflow_projects.backends.sagemaker.images import choose_image
from mlflow_projects.backends.sagemaker.settings import SageMakerSettings, settings_from
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import load_project
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import TaskIdentity

MLPROJECT = """
name: wine
entry_points:
  main:
    parameters:
      data: {type: path, default: ""}
      model: {type: path, default: ""}
      text: {type: string, default: hello}
    command: "python train.py {data} {model} {text}"
"""
NEEDED = {"role": "arn:aws:iam::123456789012:role/mlflow", "s3_uri": "s3://bucket/prefix"}
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tracking-AbCdEf:password"
SERVER = {"MLFLOW_TRACKING_URI": "https://mlflow.example.com", "MLFLOW_TRACKING_USERNAME": "me"}


def settings(**config: Any) -> SageMakerSettings:
    return settings_from({**NEEDED, **config})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "wine"
    (folder / "data sets").mkdir(parents=True)
    (folder / "data sets" / "red.csv").write_text("1")
    (folder / "MLproject").write_text(MLPROJECT)
    return folder


def job(root: Path, variables: dict[str, str] | None = None, env_manager: str | None = None, **given: str) -> Job:
    project = load_project(root)
    entry_point = project.entry_point("main")
    return Job(
        project=project,
        entry_point=entry_point,
        parameters=check_parameters(project, entry_point, {"data": "s3://a/b", "model": "s3://a/c", **given}),
        variables=SERVER if variables is None else variables,
        workspace=root.parent,
        cache=Cache(root.parent / "cache"),
        env_manager=env_manager,
    )


def test_a_path_inside_the_project_is_relative_in_the_container(root: Path) -> None:
    inside = root / "data sets" / "red.csv"
    command, inputs = command_of(job(root, data=str(inside), model=root.as_uri(), text="it's"))
    assert shlex.split(command) == ["python", "train.py", "data sets/red.csv", ".", "it's"]
    assert inputs == []


@pytest.mark.parametrize(
    "value", ["{root}/../secret", "/etc/passwd", "file:///etc/passwd", "{root}/link", "{root}/no"]
)
def test_a_path_that_only_the_worker_has_is_refused(root: Path, value: str) -> None:
    (root.parent / "secret").write_text("s")
    (root / "link").symlink_to(root.parent / "secret")
    with pytest.raises(ProjectError, match=r"Parameter 'data' is the path .* which a training job does not see"):
        command_of(job(root, data=value.format(root=root)))


@pytest.mark.parametrize(("own", "chosen"), [("aws_default", "from_option"), ("of_task", "of_task")])
def test_the_defaults_name_a_connection_for_tasks_that_name_none(
    root: Path, monkeypatch: pytest.MonkeyPatch, own: str, chosen: str
) -> None:
    for name, region in (("from_option", "eu-west-1"), ("of_task", "eu-west-2")):
        connection = {"conn_type": "aws", "login": "a", "password": "b", "extra": {"region_name": region}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))
    config = {**NEEDED, "aws_conn_id": "from_option", "image_uri": "image:1"}
    step = replace(job(root), config=config, attempt_id="a")
    handle = SageMakerBackend(Host(print, own)).prepare(step).handle
    assert handle.aws_conn_id == chosen
    assert handle.region == ("eu-west-1" if chosen == "from_option" else "eu-west-2")
    assert handle.from_json(json.loads(json.dumps(handle.as_json()))) == handle


def test_remote_paths_become_inputs(root: Path) -> None:
    uris = ["s3://bucket/a b.csv", "mlflow-artifacts:/1/abc/artifacts/model"]
    command, inputs = command_of(job(root, data=uris[0], model=uris[1], extra="runs:/abc/x"))
    tokens = [entry["token"] for entry in inputs]
    assert [entry["uri"] for entry in inputs] == uris
    assert command == f"python train.py {tokens[0]} {tokens[1]} hello --extra runs:/abc/x", "the runner quotes paths"
    assert all(re.fullmatch(r"@@\w+@@", token) for token in tokens)
    assert tokens[0] != tokens[1]


def test_packages(root: Path) -> None:
    (root / "MLproject").write_text(MLPROJECT + "python_env: python_env.yaml\n")
    (root / "more.txt").write_text("# a comment\nscikit-learn==1.5.0\n")
    (root / "python_env.yaml").write_text(
        "python: '3.11'\nbuild_dependencies: [setuptools]\ndependencies: ['pandas>=2,<3', '-r more.txt']\n"
    )
    lines = ["setuptools", "pandas>=2,<3", "scikit-learn==1.5.0"]
    for manager in ("virtualenv", "uv"):
        assert packages_of(job(root, env_manager=manager), settings()) == lines
    for manager in (None, "local"):
        assert packages_of(job(root, env_manager=manager), settings()) == [], "the image has what it has"
    with pytest.raises(ProjectError, match=r"'install_requirements' is set, but .* has no requirements.txt"):
        packages_of(job(root), settings(install_requirements=True))
    (root / "requirements.txt").write_text("x\n")
    wanted = packages_of(job(root, env_manager="uv"), settings(install_requirements=True))
    assert wanted == ["-r requirements.txt", *lines]


def conda(root: Path, *dependencies: Any, file: str = "conda.yaml", **files: str) -> None:
    """Give the project a conda_env, and files with the ending ".txt"."""
    (root / "MLproject").write_text(f"{MLPROJECT}conda_env: {file}\n")
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps({"channels": ["conda-forge"], "dependencies": dependencies}))
    for name, text in files.items():
        (root / f"{name.replace('__', '/')}.txt").write_text(text)


@pytest.mark.parametrize("manager", ["uv", "virtualenv"])
def test_conda_packages_that_pip_knows_are_lines_for_it(root: Path, manager: str) -> None:
    pip = ["mlflow>=2", "-r more.txt", "./pkg"]
    conda(root, "python=3.10", "pytorch=2.1=*cuda*", "conda-forge::numpy>=1.20,<2", {"pip": pip}, more="six  # why\n")
    lines = ["torch==2.1.*", "numpy>=1.20,<2", "mlflow>=2", "six", "./pkg"]
    step = job(root, env_manager=manager)
    assert packages_of(step, settings()) == lines
    check_environment(step, settings())
    assert packages_of(job(root), settings()) == [], "the image has what it has"


@pytest.mark.parametrize("manager", ["uv", "virtualenv"])
def test_conda_packages_that_pip_does_not_know_are_refused_before_the_start(root: Path, manager: str) -> None:
    conda(root, "python=3.10", "cudatoolkit=11.3", "numpy", "gcc", {"pip": ["six"]})
    step = replace(job(root, env_manager=manager), config={**NEEDED, "image_uri": "image:1"}, attempt_id="a")
    with pytest.raises(ProjectError) as caught:
        check_environment(step, settings())
    said = str(caught.value)
    assert said == (
        f"{root / 'conda.yaml'}: a training job installs with pip, which has no package that is known to be the same "
        "as cudatoolkit, gcc; name what the project needs of them in the 'pip' section, or use an image that has "
        "them and env_manager 'local'."
    )
    with pytest.raises(ProjectError, match="cudatoolkit, gcc"):
        SageMakerBackend(Host(print, "none_such")).prepare(step)
    check_environment(job(root), settings())


def test_a_conda_file_that_pip_cannot_read_is_refused_before_the_start(root: Path) -> None:
    conda(root, "numpy=1.b.c")
    with pytest.raises(ProjectError, match=r"conda\.yaml: pip has no such version as that of 'numpy=1\.b\.c'"):
        check_environment(job(root, env_manager="uv"), settings())


@pytest.mark.parametrize("line", ["./pkg", "-e .", "-c limits.txt", "-f wheels"])
def test_files_of_a_conda_file_in_a_folder_are_refused(root: Path, line: str) -> None:
    """pip in the job starts in the project's folder."""
    conda(root, "numpy", {"pip": [line]}, file="env/conda.yaml", env__limits="six\n")
    with pytest.raises(ProjectError, match=r"env/conda\.yaml: for a training job, a conda file whose 'pip' section"):
        check_environment(job(root, env_manager="uv"), settings())


@pytest.mark.parametrize("line", ["six", "-f https://h.example/x.html", "git+https://h.example/x"])
def test_what_such_a_file_has_from_elsewhere_is_taken(root: Path, line: str) -> None:
    conda(root, "numpy", {"pip": [line]}, file="env/conda.yaml")
    assert packages_of(job(root, env_manager="uv"), settings()) == ["numpy", line]


@pytest.mark.parametrize("manager", ["conda", "poetry"])
def test_other_env_managers_are_refused(root: Path, manager: str) -> None:
    with pytest.raises(ProjectError, match=f"no env_manager '{manager}'; use 'local'"):
        check_environment(job(root, env_manager=manager), settings())


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_a_password_must_come_from_secrets_manager(root: Path, name: str) -> None:
    guarded = job(root, {**SERVER, name: "hunter2"})
    with pytest.raises(ProjectError, match=f"name its ARN in backend_config: secret_environment.{name}") as caught:
        check_environment(guarded, settings())
    assert "hunter2" not in str(caught.value)
    given = settings(secret_environment={name: SECRET})
    check_environment(guarded, given)
    assert public_variables(guarded, given) == SERVER


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "file:///data/mlruns", ""])
def test_a_store_on_the_worker_is_refused(root: Path, uri: str) -> None:
    there = job(root, {"MLFLOW_TRACKING_URI": uri})
    with pytest.raises(ProjectError, match=r"cannot reach the tracking store .*'tracking_uri'"):
        check_environment(there, settings())
    given = settings(tracking_uri="http://mlflow.internal:5000")
    check_environment(there, given)
    assert public_variables(there, given) == {"MLFLOW_TRACKING_URI": "http://mlflow.internal:5000"}


def test_a_password_in_the_tracking_uri_is_refused(root: Path) -> None:
    with pytest.raises(ProjectError, match="'tracking_uri' holds a user or password") as caught:
        check_environment(job(root), settings(tracking_uri="https://me:hunter2@mlflow.internal"))
    assert "hunter2" not in str(caught.value)


def test_only_public_variables_are_shown(root: Path) -> None:
    variables = {
        **SERVER,
        "MLFLOW_TRACKING_PASSWORD": "p",
        "MLFLOW_TRACKING_TOKEN": "t",
        "MLFLOW_RUN_ID": "r",
        "MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/etc/key.pem",
        "AWS_PROFILE": "mine",
        "AIRFLOW__CORE__FERNET_KEY": "k",
    }
    shown = public_variables(job(root, variables), settings())
    assert shown == {**SERVER, "MLFLOW_RUN_ID": "r", "MLFLOW_EXPERIMENT_ID": "7"}


def test_all_that_leads_to_the_run_reaches_the_job(root: Path) -> None:
    run = Run("a" * 32, "7", "step", "RUNNING", "s3://bucket/a")
    variables = run_variables(run, TaskIdentity("dag", "run", "task", 1, "attempt"), system_metrics=True)
    assert public_variables(job(root, variables), settings()) == variables


def test_the_image(root: Path) -> None:
    def choose(given: Any = "") -> str:
        return choose_image(job(root), given, "ml.m5.large", "eu-west-1", print)

    with pytest.raises(ProjectError, match=r"needs 'image_uri'.*\[mlflow_projects\] sagemaker.*docker_env.image"):
        choose()
    with pytest.raises(ProjectError, match="'image_uri' lacks 'version'"):
        choose({"framework": "pytorch"})
    (root / "MLproject").write_text(MLPROJECT + "docker_env: {image: team/wine:1}\n")
    assert choose() == "team/wine:1"
    assert choose("account/other:2") == "account/other:2"
