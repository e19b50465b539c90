"""A command on the worker: what it gets of the worker's environment, what is said of its end, how it is stopped."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_projects.backends.contract import DurableLaunch, Host, Job, JobStatus, Launch, OpenRun, Running
from mlflow_projects.backends.local import LocalBackend
from mlflow_projects.backends.local import command as command_module
from mlflow_projects.backends.local import engine as engine_module
from mlflow_projects.backends.local.command import RunningProcess
from mlflow_projects.backends.local.environments import Activation, EnvironmentBuilder
from mlflow_projects.backends.local.withheld_variables import worker_variables
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import load_project
from tests.support.attempts import wait_until_gone

WITHHELD = {
    "AIRFLOW__CORE__FERNET_KEY": "fernet",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://u:p@db",
    "AIRFLOW_CONN_MLFLOW_DEFAULT": "http://u:p@server",
    "AIRFLOW_VAR_TOKEN": "token",
    "AIRFLOW_HOME": "/airflow",
    "_AIRFLOW_WWW_USER_PASSWORD": "password",
    "__AIRFLOW_SUPERVISOR_FD": "3",
    "_AIRFLOW__X": "x",
    "MLFLOW_TRACKING_URI": "http://the.workers.own",
    "MLFLOW_TRACKING_TOKEN": "token",
    "MLFLOW_RUN_ID": "another",
    "MLFLOW_EXPERIMENT_NAME": "another",
    "MLFLOW_EXPERIMENT_ID": "7",
}
PASSED = {
    "AIRFLOW_CTX_DAG_ID": "dag",
    "AIRFLOW": "no setting",
    "MY_AIRFLOW__X": "the user's own",
    "MLFLOW_S3_ENDPOINT_URL": "http://s3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "AWS_PROFILE": "team",
    "airflow__lower": "another name",
}


def job(
    folder: Path, command: str = "true", *, head: str = "", given: dict[str, Any] | None = None, **more: Any
) -> Job:
    root = folder / "project"
    root.mkdir(exist_ok=True)
    (root / "MLproject").write_text(f"{head}\nentry_points:\n  main:\n    command: |\n      {command}\n")
    if given:
        with (root / "MLproject").open("a") as file:
            file.write("    parameters: {" + ", ".join(f"{name}: path" for name in given) + "}\n")
    (folder / "workspace").mkdir(exist_ok=True)
    project = load_project(root)
    main = project.entry_point("main")
    values: dict[str, Any] = {"variables": {}, "env_manager": "local", **more}
    return Job(
        project=project, entry_point=main, parameters=check_parameters(project, main, given or {}),
        workspace=folder / "workspace", cache=Cache(folder / "cache"), **values,
    )  # fmt: skip


def prepared(made: Job, log: list[str] | None = None) -> Launch:
    return LocalBackend(Host((log if log is not None else []).append)).prepare(made)


def started(made: Job, log: list[str] | None = None) -> RunningProcess:
    begun: list[Running] = []
    running = prepared(made, log).start(OpenRun({"MLFLOW_RUN_ID": "run"}), begun.append)
    assert begun == [running]
    assert isinstance(running, RunningProcess)
    return running


def ran(made: Job, log: list[str] | None = None) -> tuple[list[str], JobStatus]:
    """Return a command's output and how it ended."""
    running = started(made, log)
    return list(running.lines()), running.status()


def variables(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_airflows_secrets_and_the_workers_own_tracking_are_withheld_and_nothing_else() -> None:
    assert worker_variables({**WITHHELD, **PASSED}) == PASSED


def test_what_is_withheld_does_not_reach_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    for name, value in {**WITHHELD, **PASSED}.items():
        monkeypatch.setenv(name, value)
    own = {"MLFLOW_TRACKING_URI": "http://mine", "AWS_PROFILE": "the connection's"}
    lines, status = ran(job(tmp_path, "env", variables=own))
    seen = variables(lines)
    assert status == JobStatus("succeeded", 0)
    assert {name: seen[name] for name in seen if name in {**WITHHELD, **PASSED}} == {
        **PASSED,
        **own,
        "MLFLOW_RUN_ID": "run",
    }
    assert seen["PYTHONUNBUFFERED"] == "1"


def test_the_workers_own_wish_for_buffered_output_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "")
    assert ran(job(tmp_path, 'echo "<$PYTHONUNBUFFERED>"'))[0] == ["<>"]


def test_the_command_works_in_the_projects_folder_and_is_said(tmp_path: Path) -> None:
    log: list[str] = []
    made = job(tmp_path, "pwd; ls")
    assert ran(made, log)[0] == [str(made.project.root), "MLproject"]
    assert [line.strip() for line in log] == ["Running: pwd; ls"]


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("exit 1", 1, "exit status 1"),
        ("exit 125", 125, "exit status 125"),
        ("./MLproject", 126, "exit status 126: the command cannot be executed"),
        ("no-such-program", 127, "exit status 127: a program of the command was not found"),
        ("exit 128", 128, "exit status 128"),
        ("kill -HUP $$", 129, "exit status 129: ended by signal 1"),
        ("kill -KILL $$", 137, "exit status 137: ended by signal 9, often for want of memory"),
        ("kill -TERM $$", 143, "exit status 143: ended by signal 15"),
    ],
)
def test_the_end_of_a_command_is_explained(command: str, code: int, reason: str, tmp_path: Path) -> None:
    assert ran(job(tmp_path, command))[1] == JobStatus("failed", code, reason)


def test_a_running_command_is_stopped_with_its_children(tmp_path: Path) -> None:
    running = started(job(tmp_path, "sleep 600 & echo $!; sleep 600", config={"grace_seconds": 30}))
    lines = running.lines()
    child = int(next(lines))
    assert running.status() == JobStatus("running")
    running.cancel()
    running.cancel()
    list(lines)
    assert running.status() == JobStatus("failed", 143, "exit status 143: ended by signal 15")
    wait_until_gone(child)
    running.cancel()


def test_whoever_stops_reading_ends_the_command(tmp_path: Path) -> None:
    running = started(job(tmp_path, "trap '' TERM; echo $$; sleep 600", config={"grace_seconds": "0.1"}))
    lines = running.lines()
    number = int(next(lines))
    lines.close()  # type: ignore[attr-defined]
    wait_until_gone(number)
    assert running.status().exit_code == 128 + signal.SIGKILL


def test_a_process_has_no_handle_as_it_ends_with_its_task(tmp_path: Path) -> None:
    assert not isinstance(prepared(job(tmp_path)), DurableLaunch)


@pytest.mark.parametrize("seconds", [0, 3600, "7", 0.5])
def test_a_grace_time_of_up_to_an_hour_is_taken(seconds: Any, tmp_path: Path) -> None:
    prepared(job(tmp_path, config={"grace_seconds": seconds}))


@pytest.mark.parametrize(
    ("step", "said"),
    [
        *(
            ({"config": {"grace_seconds": wrong}},
             f"backend_config: 'grace_seconds' must be a number from 0 to 3600, not {wrong!r}.")
            for wrong in (-1, 3601, "soon", None, [3], float("nan"))
        ),
        ({"env_manager": "pip"}, "There is no env_manager 'pip'; use one of: local, uv, virtualenv, conda."),
        ({"env_manager": "uv", "config": {"docker_image": "x"}}, "This step runs in the image 'x', where "),
    ],
)  # fmt: skip
def test_what_cannot_run_here_is_refused(step: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        prepared(job(tmp_path, **step))
    assert str(caught.value).startswith(said)


def test_what_conda_needs_is_looked_for_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CONDARC", str(tmp_path / "condarc"))
    made = job(tmp_path, head="conda_env: MLproject", env_manager=None)
    assert prepared(made).manager == "conda"
    assert prepared(replace(made, config={"conda_env_manager": "uv"})).manager == "uv"
    for key, value, why in (
        ("conda_program", "micromamba", "conda_program names 'micromamba', which this worker does not have"),
        ("conda_program", "/bin/sh", "conda_program is '/bin/sh'; name conda, mamba or micromamba"),
        ("conda_env_manager", "pixi", "'conda_env_manager' must be one of local, uv, virtualenv, conda, not 'pixi'"),
    ):
        with pytest.raises(ProjectError, match=why):
            prepared(replace(made, config={key: value}))
    (tmp_path / "condarc").write_text("channels: {a: b}\n")
    with pytest.raises(ProjectError, match="condarc: 'channels' must be a list of channels"):
        prepared(made)
    (tmp_path / "condarc").unlink()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ProjectError, match="needs py-rattler, which this worker does not have"):
        prepared(made)


@pytest.fixture
def engine_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a container engine answer."""
    answers = contextlib.nullcontext(SimpleNamespace(ping=lambda: True))
    monkeypatch.setattr(engine_module, "connected", lambda *_: answers)


@pytest.mark.usefixtures("engine_that_answers")
def test_the_record_names_the_environment(tmp_path: Path) -> None:
    assert prepared(job(tmp_path)).tags == {"mlflow.project.env": "local"}
    declared = job(tmp_path, head="python_env: MLproject", env_manager=None)
    assert prepared(declared).tags == {"mlflow.project.env": "uv"}
    image = job(tmp_path, head="docker_env: {image: 'declared:1'}")
    assert prepared(image).tags == {"mlflow.project.env": "docker", "mlflow.docker.image.uri": "declared:1"}


@pytest.mark.usefixtures("engine_that_answers")
def test_an_image_with_a_digest_and_its_cards_are_what_a_result_depends_on(tmp_path: Path) -> None:
    named = "image@sha256:" + "0" * 64
    config = {"docker_image": named}
    assert prepared(job(tmp_path, config=config)).identity() == {"image": named, "gpus": ""}
    assert prepared(job(tmp_path, config={**config, "docker_gpus": 2})).identity()["gpus"] == "2"


# --- what is elsewhere is fetched, with MLflow in a process of its own


@pytest.fixture
def an_mlflow(tmp_path: Path) -> dict[str, str]:
    """Return the variables with which a Python finds a small stand-in for mlflow.artifacts."""
    (tmp_path / "site" / "mlflow").mkdir(parents=True)
    (tmp_path / "site" / "mlflow" / "__init__.py").touch()
    (tmp_path / "site" / "mlflow" / "artifacts.py").write_text(
        "import os, pathlib, sys\n"
        "def download_artifacts(artifact_uri, dst_path):\n"
        "    if 'silent' in artifact_uri: sys.exit(3)\n"
        "    if 'missing' in artifact_uri: raise OSError('no such object, says ' + os.environ['STORE'])\n"
        "    print('a progress bar')\n"
        "    file = pathlib.Path(dst_path) / 'data.csv'\n"
        "    file.write_text(artifact_uri)\n"
        "    return str(file)\n"
    )
    return {"PYTHONPATH": str(tmp_path / "site"), "STORE": "the store"}


def test_a_path_that_is_elsewhere_is_fetched_into_the_workspace(tmp_path: Path, an_mlflow: dict[str, str]) -> None:
    given = {"a": "s3://bucket/a", "b": "s3://bucket/b"}
    made = job(tmp_path, "echo {a} {b}; cat {b}", given=given, variables=an_mlflow)
    folder = tmp_path / "workspace"
    assert ran(made)[0] == [f"{folder}/param_0/data.csv {folder}/param_1/data.csv", "s3://bucket/b"]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("s3://bucket/missing", "OSError: no such object, says the store"), ("s3://bucket/silent", "no reason given")],
)
def test_a_path_that_cannot_be_fetched_says_why_and_starts_nothing(
    uri: str, reason: str, tmp_path: Path, an_mlflow: dict[str, str]
) -> None:
    log: list[str] = []
    with pytest.raises(ProjectError) as caught:
        ran(job(tmp_path, "echo {a}", given={"a": uri}, variables=an_mlflow), log)
    assert str(caught.value) == f"The 'path' value {uri!r} cannot be downloaded: {reason}"
    assert log == []


def test_a_command_that_linux_cannot_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="Put long values into a file and pass its path"):
        ran(job(tmp_path, f"echo {'x' * 131_072}"))


def test_what_is_fetched_is_fetched_without_the_variables_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the worker's Python, before the command: a project's LD_PRELOAD or PYTHONPATH is not for it."""
    taken: list[dict[str, str]] = []

    @contextlib.contextmanager
    def activation(*_: object) -> Iterator[Activation]:
        yield Activation({"PYTHONPATH": "/of/the/project"})

    monkeypatch.setattr(EnvironmentBuilder, "activation", activation)
    monkeypatch.setattr(command_module, "downloader", lambda _, variables: taken.append(variables))
    assert ran(job(tmp_path, "echo $PYTHONPATH"))[0] == ["/of/the/project"]
    assert taken[0].get("PYTHONPATH") != "/of/the/project"
