"""Steps in containers of a real engine: what they see, how they end, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.backends.contract import Host, Job, OpenRun, Running
from mlflow_projects.backends.local import LocalBackend, container
from mlflow_projects.backends.local import engine as engine_module
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.spec import load_project
from tests.conftest import ROOT
from tests.support.dagruns import run_dag
from tests.support.engine import PACKAGES, Engine, running_registry
from tests.support.measured import SCRIPT, SOON, was_measured
from tests.support.waiting import wait

SHELL = ROOT / "tests" / "projects" / "shell"
SECRET = "correct-horse-battery"
LOG_A_METRIC = """\
import os, sys, mlflow
with mlflow.start_run():
    mlflow.log_metric("answer", 42)
    mlflow.log_text("made in " + os.getcwd(), "note.txt")
"""

pytestmark = pytest.mark.usefixtures("airflow_db")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both engines, but for one that ends the engine itself."""
    engines = ["podman"] if "goes_away" in metafunc.function.__name__ else ["podman", "docker"]
    metafunc.parametrize("engine_server", engines, indirect=True, scope="session")


@pytest.fixture(autouse=True)
def nothing_left(engine: Engine) -> Iterator[None]:
    yield
    assert engine.leftovers() == []


def shell(image: str, command: str, **config: Any) -> Any:
    parameters = {"command": command}
    return run_dag(
        "one_step", {"uri": str(SHELL), "parameters": parameters, "backend_config": {"docker_image": image, **config}}
    )


def tracked_project(folder: Path, image: str, command: str = "python3 work.py", **docker_env: Any) -> Path:
    """Write a project with a docker_env whose container has the tests' own packages, and mlflow among them."""
    packages = {"volumes": [f"{PACKAGES}:/opt/packages:ro"], "environment": [["PYTHONPATH", "/opt/packages"]]}
    packages = {key: value + docker_env.pop(key, []) for key, value in packages.items()}
    entry_points = {"main": {"command": command}}
    content = {"name": "contained", "docker_env": {"image": image, **packages, **docker_env}}
    (folder / "MLproject").write_text(json.dumps({**content, "entry_points": entry_points}))
    (folder / "work.py").write_text(LOG_A_METRIC)
    return folder


def started(made: Job) -> Running:
    """Start a job's container, as an attempt does."""
    return LocalBackend(Host(print)).prepare(made).start(OpenRun(), lambda running: None)


def job(workspace: Path, image: str, command: str, **changes: Any) -> Job:
    project = load_project(SHELL)
    entry_point = project.entry_point("main")
    values: dict[str, Any] = {
        "project": project,
        "entry_point": entry_point,
        "parameters": check_parameters(project, entry_point, {"command": command}),
        "variables": {},
        "workspace": workspace,
        "cache": Cache(workspace),
        "config": {"docker_image": image},
        "label": "tests",
        "attempt_id": f"attempt-{uuid.uuid4()}",
        "task_key": "tests-key",
    }
    return Job(**{**values, **changes})


@pytest.mark.usefixtures("tracking_uri")
def test_output_exit_code_user_folder_and_tags(tracking_uri: str, base_image: str, engine: Engine) -> None:
    result = shell(base_image, "echo in $PWD as $(id -u); cat MLproject | head -1; echo word >&2; exit 7")
    assert f"in {container.PROJECT_FOLDER} as {os.getuid()}" in result.log
    assert "name: shell" in result.log
    assert "word" in result.log
    assert result.tasks["parent.step"].state == "failed"
    *_, step = _steps(result, tracking_uri)
    tags = step.data.tags
    assert (step.info.status, tags["mlflow_projects.exit_code"]) == ("FAILED", "7")
    assert (tags["mlflow.project.env"], tags["mlflow.docker.image.uri"]) == ("docker", base_image)
    assert tags["mlflow.docker.image.id"] == engine.client().images.get(base_image).id
    # Docker copies output and errors by themselves: which line is the last is not known.
    assert "word" in tags["mlflow_projects.output_tail"].splitlines()


def _steps(result: Any, tracking_uri: str) -> list[Any]:
    from tests.support.dagruns import mlflow_runs

    found = mlflow_runs(tracking_uri, result.dag_id, result.run_id)
    return [run for run in found if run.data.tags["airflow.task_id"] == "parent.step"]


def test_a_step_is_reused_as_long_as_the_name_means_the_same_image(
    tracking_uri: str, base_image: str, engine: Engine
) -> None:
    client = engine.client()
    client.images.get(base_image).tag("localhost/reused", "latest")
    conf = {
        "uri": str(SHELL),
        "parameters": {"command": f"echo {uuid.uuid4()}"},
        "backend_config": {"docker_image": "localhost/reused:latest"},
        "reuse": True,
    }

    def original() -> str | None:
        result = run_dag("one_step", conf)
        assert result.state == "success", result.log
        [step] = _steps(result, tracking_uri)
        return step.data.tags.get("mlflow_projects.reused_from")

    try:
        assert original() is None
        assert original()
        changed = client.containers.create(base_image, "true")
        changed.commit("localhost/reused", "latest", changes=["ENV CHANGED=yes"])
        changed.remove()
        assert original() is None
    finally:
        client.images.remove("localhost/reused:latest", force=True)


@pytest.mark.usefixtures("tracking_uri")
def test_variables_are_there_and_secrets_only_there(
    tracking_uri: str, base_image: str, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connection = {"conn_type": "mlflow", "host": tracking_uri, "login": "me", "password": SECRET}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "a-key-of-airflow")
    monkeypatch.setenv("OF_THE_WORKER", "copied")

    def look() -> list[Any]:
        """Return what others see of the running container; then let it end."""
        try:
            client = engine.client()
            running = wait(client.api.containers, "the container")
            ps = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
            return [*(client.api.inspect_container(found["Id"]) for found in running), ps]
        finally:
            (tmp_path / "seen").touch()

    project = tracked_project(
        tmp_path, base_image,
        'env | sort; test -n "$MLFLOW_TRACKING_PASSWORD" && until [ -e seen ]; do sleep 0.1; done',
        environment=["OF_THE_WORKER", "MLFLOW_RUN_ID", ["SET", "here"]],
    )  # fmt: skip
    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        result = run_dag("one_step", {"uri": str(project)})
        *inspected, ps = looking.result()
    assert result.state == "success", result.log[-3000:]
    for line in ("OF_THE_WORKER=copied", "SET=here", f"MLFLOW_TRACKING_URI={tracking_uri}", "AIRFLOW_CTX_DAG_ID="):
        assert line in result.log
    assert f"MLFLOW_RUN_ID={result.tasks['parent.step'].xcom['run_id']}" in result.log
    assert "AIRFLOW__" not in result.log
    assert SECRET not in result.log
    for found in inspected:
        found["Config"].pop("Env")
    assert SECRET not in f"{inspected}{ps}"


@pytest.mark.usefixtures("tracking_uri")
def test_volumes_are_read_as_mlflows_shell_reads_them(
    base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("home", "data", "project"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "here.txt").write_text(f"this is {folder}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    volumes = ["~/:/h:ro", "${DATA}:/d", "$(pwd):/mlflow/projects/code"]
    project = tracked_project(
        tmp_path / "project", base_image, "cat /h/here.txt /d/here.txt here.txt; pwd; echo $WHERE > /d/made.txt",
        volumes=volumes, environment=["MLFLOW_TRACKING_TOKEN", ["WHERE", "$PWD/x"]],
    )  # fmt: skip
    result = run_dag("one_step", {"uri": str(project)})
    assert result.state == "success", result.log[-3000:]
    for words in ("this is home", "this is data", "this is project", "/mlflow/projects/code"):
        assert words in result.log
    assert (tmp_path / "data" / "made.txt").read_text() == f"{project}/x\n"
    result = run_dag("one_step", {"uri": str(project), "backend_config": {"docker_workdir": "image"}})
    assert "cat: here.txt: No such file" in result.log, "the image has another folder"


@pytest.mark.parametrize("store", ["http", "sqlite"])
def test_the_container_logs_into_the_run(
    store: str, base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_server: str
) -> None:
    from mlflow import MlflowClient

    uri = mlflow_server if store == "http" else f"sqlite:///{tmp_path}/store/mlflow.db"
    (tmp_path / "store").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "store")  # the default artifact root is below the current folder
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    result = run_dag("one_step", {"uri": str(tracked_project(tmp_path / "project", base_image))})
    assert result.state == "success", result.log[-3000:]
    run = result.runs(uri)["step"]
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"answer": 42})
    assert [found.path for found in MlflowClient(uri).list_artifacts(run.info.run_id)] == ["note.txt"]


def test_mlflow_measures_the_machine_in_the_container(base_image: str, tmp_path: Path, tracking_uri: str) -> None:
    project = tracked_project(tmp_path, base_image, environment=[[name, value] for name, value in SOON.items()])
    (project / "work.py").write_text(SCRIPT)
    result = run_dag("measured_step", {"uri": str(project)})
    assert was_measured(result.runs(tracking_uri)["step"]), result.log[-3000:]


@pytest.mark.usefixtures("tracking_uri")
def test_path_parameters_are_folders_in_the_container(base_image: str, tmp_path: Path) -> None:
    project, data = tmp_path / "project", tmp_path / "data with space"
    for folder in (project, project / "inside", data):
        folder.mkdir()
    (data / "a.txt").write_text("from the worker")
    (project / "inside" / "b.txt").write_text("from the project")
    parameters = {"given": "path", "own": {"type": "path", "default": "inside"}}
    command = "cat {given}/a.txt {own}/b.txt; touch {given}/c 2>&1 || echo read-only; echo made > made.txt"
    (project / "MLproject").write_text(
        json.dumps({"entry_points": {"main": {"parameters": parameters, "command": command}}})
    )
    conf = {
        "uri": str(project),
        "parameters": {"given": str(data), "own": str(project / "inside")},
        "backend_config": {"docker_image": base_image},
    }
    result = run_dag("one_step", conf)
    assert result.state == "success", result.log[-3000:]
    assert "from the workerfrom the project" in result.log
    assert "read-only" in result.log
    assert (project / "made.txt").stat().st_uid == os.getuid()


def test_output_comes_line_by_line_and_a_stop_reaches_every_process(tmp_path: Path, base_image: str) -> None:
    # A shell that waits for a child does not pass signals on; both say that they got one.
    child = "(trap 'echo child got it; exit' TERM; echo ready; while :; do sleep 0.1; done)"
    command = f"trap 'echo parent got it' TERM; {child} & wait; wait"
    running = started(job(tmp_path, base_image, command))
    lines: list[str] = []
    for line in running.lines():
        lines.append(line)
        if line == "ready":
            assert running.status().state == "running"
            running.cancel()
    assert {"child got it", "parent got it"} <= set(lines)
    assert running.status().state in ("failed", "succeeded")


def test_a_command_that_ignores_the_stop_is_killed_after_the_grace_time(tmp_path: Path, base_image: str) -> None:
    config = {"docker_image": base_image, "grace_seconds": 1}
    running = started(job(tmp_path, base_image, "trap '' TERM; echo ready; sleep 600 & wait", config=config))
    for _ in running.lines():
        running.cancel()
    assert running.status().exit_code == 128 + signal.SIGKILL


WORKER = """
import sys, pathlib
sys.path[:0] = {path!r}
from tests.system.test_containers import job, started
running = started(job(pathlib.Path({folder!r}), {image!r}, "echo running; sleep 600"))
for line in running.lines():
    print(line, flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, base_image: str) -> Iterator[subprocess.Popen[str]]:
    """Start a worker whose container is running."""
    code = WORKER.format(path=[str(ROOT), str(ROOT / "plugins")], folder=str(tmp_path), image=base_image)
    environment = {**os.environ, "TESTS_HOME": os.environ["AIRFLOW_HOME"]}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert any(line == "running\n" for line in process.stdout)
    yield process
    process.kill()
    process.wait()


def test_no_container_outlives_a_worker_that_is_killed(worker: Any, engine: Engine) -> None:
    assert engine.leftovers()
    worker.kill()
    wait(lambda: not engine.leftovers(), "the end of the container")


def test_what_a_killed_worker_with_all_its_processes_left_goes_with_the_next_try(
    worker: Any, engine: Engine, tmp_path: Path, base_image: str
) -> None:
    import psutil

    everything = psutil.Process(worker.pid).children(recursive=True)
    for process in (*everything, psutil.Process(worker.pid)):
        process.send_signal(signal.SIGSTOP)  # so that none of them sees the end of another
    for process in (*everything, psutil.Process(worker.pid)):
        process.kill()
    worker.wait()
    assert len(engine.leftovers()) == 1
    lines = list(started(job(tmp_path, base_image, "echo next")).lines())
    assert re.fullmatch("Removing the container mlflow-tests-.* of an earlier try.", lines[0])
    assert lines[1:] == ["next"]


@pytest.mark.usefixtures("tracking_uri")
def test_an_image_that_is_nowhere_fails_at_once_with_one_sentence(tracking_uri: str) -> None:
    result = shell("localhost/no-such-image:1", "true")
    (step,) = _steps(result, tracking_uri)  # no retry
    assert step.info.status == "FAILED"
    reason = step.data.tags["mlflow_projects.reason"]
    assert reason.startswith(
        "The container engine does not have the image 'localhost/no-such-image:1' and cannot pull"
    )
    assert "build it on this worker" in reason


def test_an_image_that_a_registry_has_is_pulled(engine: Engine, tmp_path: Path) -> None:
    def podman(*arguments: str) -> None:
        subprocess.run(["podman", *arguments], env={**os.environ, **engine.podman}, check=True, capture_output=True)

    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    podman("build", "--format", "docker", "--tag", "localhost/to-pull:1", str(tmp_path))
    podman("push", "localhost/to-pull:1", f"dir:{tmp_path}/pushed")
    log: list[str] = []
    with running_registry(engine, tmp_path / "pushed", "team/work") as image:
        client = engine.client()
        image_id = engine_module.ensure_image(client, image, log.append)
        assert image_id == client.images.get(image).id
        assert log[0] == f"The engine does not have the image {image}: pulling it (once; later steps share it)."
        with pytest.raises(ProjectError, match="cannot pull it"):
            engine_module.ensure_image(client, image.replace("work", "other"), log.append)
    log.clear()
    assert engine_module.ensure_image(engine.client(), image, log.append) == image_id
    assert log == []
    with pytest.raises(StepFailedError, match="cannot pull it"):  # nobody answers there now
        engine_module.ensure_image(engine.client(), image.replace("work", "other"), log.append)


def test_an_engine_that_goes_away_fails_the_step(
    engine: Engine, tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.podman:
        pytest.skip("needs an engine of our own that may be killed")
    with tempfile.TemporaryDirectory() as folder:
        host = f"unix://{folder}/e.sock"
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", host], env={**os.environ, **engine.podman}
        )
        wait((Path(folder) / "e.sock").exists, "the engine's socket")
        monkeypatch.setenv("DOCKER_HOST", host)
        running = started(job(tmp_path, base_image, "echo running; sleep 600"))
        lines = []
        for line in running.lines():
            lines.append(line)
            if line == "running":
                service.kill()
                service.wait()
        status = running.status()
    assert (status.state, status.exit_code) == ("failed", 125)
    assert f"The container engine at {host} does not answer" in status.reason
    for left in engine.client().containers.list():  # as soon as the engine is back, the next try does this
        left.remove(force=True)


@pytest.mark.usefixtures("tracking_uri")
def test_without_an_engine_nothing_starts(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, base_image: str
) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(engine_module, "_SOCKETS", ("/nowhere/docker.sock",))
    result = shell(base_image, "true")
    (step,) = _steps(result, tracking_uri)
    assert step.info.status == "FAILED"
    assert "this worker has no container engine" in step.data.tags["mlflow_projects.reason"]


def test_an_engine_that_does_not_answer_is_worth_a_retry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base_image: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(StepFailedError, match="does not answer"):
        LocalBackend(Host(print)).prepare(job(tmp_path, base_image, "true"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": {"docker_image": "i", "docker_memory": "much"}}, "'docker_memory' must be a size"),
        ({"config": {"docker_image": "i", "docker_gpus": "two"}}, "'docker_gpus' must be a number"),
        ({"config": {"docker_image": "i"}, "env_manager": "uv"}, "leave env_manager out"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(changes: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=re.escape(sentence)):
        LocalBackend(Host(print)).prepare(job(tmp_path, "", "true", **changes))
