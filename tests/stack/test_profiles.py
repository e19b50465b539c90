"""The profiles of docker-compose.yaml on a real engine: a private git server, SageMaker's stand-in, MySQL."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.stack.client import StackClient, wait_until
from tests.stack.conftest import ENV_FILE, compose, read, stack
from tests.support.servers import free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]


def git(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", *who, *arguments],
        cwd=folder, check=False, capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


def records(client: StackClient, dag_id: str, conf: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Run a DAG; return its MLflow runs by name."""
    client.wait_for_dag(dag_id, 300)
    run_id = client.trigger(dag_id, conf)
    state = client.wait_for_end(dag_id, run_id)
    failed = [task for task in client.task_instances(dag_id, run_id) if task["state"] == "failed"]
    assert state == "success", [client.log(dag_id, run_id, task["task_id"], task["try_number"]) for task in failed]
    runs = {run["info"]["run_name"]: run for run in client.runs(dag_id, run_id)}
    assert {run["info"]["status"] for run in runs.values()} == {"FINISHED"}
    return runs


def test_a_step_runs_a_project_that_a_user_pushed_to_the_private_git_server(
    client: StackClient, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "sample_projects" / "echo", tmp_path / "work" / "echo")
    work, env = tmp_path / "work", client.env
    # What differs makes a commit, also on a stack that a test before this one has used.
    (work / "number").write_text(secrets.token_hex(8))
    for command in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "-m", "test"]):
        git(work, *command)
    url = f"http://{env['GIT_USER']}:{{}}@127.0.0.1:{env['GIT_PORT']}/stack-tests.git"
    for password in ("", "git", env["GIT_USER"], "password"):
        done = git(work, "push", url.format(password), "main", check=False)
        assert "Authentication failed" in done.stderr
    git(work, "push", "--quiet", "--force", url.format(env["GIT_PASSWORD"]), "main")
    [run] = records(client, "stack_private_git").values()
    assert run["params"] == {"text": "from git", "num": "1"}
    assert run["tags"]["mlflow.source.git.commit"] == git(work, "rev-parse", "HEAD").stdout.strip()
    assert run["tags"]["mlflow.source.name"] == "http://git:3000/stack-tests.git#echo"
    assert env["GIT_PASSWORD"] not in str(run)


def test_the_steps_of_echo_zip_run_as_training_jobs_of_the_stand_in(client: StackClient) -> None:
    runs = records(client, "echo_zip", {"backend": "sagemaker", "text": "as a job"})
    assert runs.keys() == {"pipeline", "echo", "zip"}
    for name in ("echo", "zip"):
        assert runs[name]["tags"]["sagemaker.job_name"].startswith(f"mlflow-echo-zip-{name}-")
        assert client.env["MLFLOW_AIRFLOW_PASSWORD"] not in str(runs[name])
    assert runs["echo"]["params"] == {"text": "as a job", "num": "2"}
    assert client.artifacts(runs["zip"]["info"]["run_id"]) == ["downstream/upstream.zip"]


@pytest.fixture
def on_mysql(client: StackClient, tmp_path: Path) -> Iterator[tuple[StackClient, dict[str, str]]]:
    """Yield a client of a second stack, of MLflow and what it needs, and the variables that lead to it."""
    project = f"{os.environ.get('COMPOSE_PROJECT_NAME', 'mlflow-projects')}-mysql"
    file = tmp_path / "mysql.env"
    settings = {"MLFLOW_PORT": free_port(), "S3_PORT": free_port(), "MLFLOW_STORE": "mysql+pymysql"}
    settings |= {"MLFLOW_DB_HOST": "mysql", "COMPOSE_PROJECT_NAME": project}
    if image := read(ENV_FILE).get("STACK_IMAGE"):
        settings["STACK_IMAGE"] = image
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    variables = {"ENV_FILE": str(file), "COMPOSE_PROJECT_NAME": project, "COMPOSE_PROFILES": "mysql"}
    try:
        stack("up", "--no-build", "mlflow", **variables)
        yield StackClient(read(file)), variables
    finally:
        stack("down", "--volumes", **variables)


def test_mlflow_keeps_its_runs_in_mysql(on_mysql: tuple[StackClient, dict[str, str]]) -> None:
    client, variables = on_mysql
    client.s3().create_bucket(Bucket="mlflow")
    experiment = client.mlflow("POST", "/experiments/create", json={"name": "on mysql"}).raise_for_status().json()
    started = client.mlflow("POST", "/runs/create", json={**experiment, "run_name": "ün", "start_time": 1})
    run_id = started.raise_for_status().json()["run"]["info"]["run_id"]
    batch = {
        "run_id": run_id,
        "params": [{"key": "text", "value": "é" * 6000}],
        "metrics": [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}],
        "tags": [{"key": "airflow.dag_id", "value": "d"}, {"key": "airflow.run_id", "value": "r"}],
    }
    client.mlflow("POST", "/runs/log-batch", json=batch).raise_for_status()
    auth = (client.env["MLFLOW_ADMIN_USER"], client.env["MLFLOW_ADMIN_PASSWORD"])
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/{experiment['experiment_id']}/{run_id}/artifacts/a.txt"
    httpx.put(client.mlflow_url + artifact, content=b"text", auth=auth, timeout=60).raise_for_status()
    assert httpx.post(f"{client.mlflow_url}/api/2.0/mlflow/runs/search", json={}, timeout=60).status_code == 401

    compose("restart", "mlflow", **variables)
    wait_until(lambda: httpx.get(f"{client.mlflow_url}/health").status_code == 200, 120, "MLflow")
    [run] = client.runs("d", "r")
    assert run["info"]["run_name"] == "ün"
    assert run["params"] == {"text": "é" * 6000}
    assert run["metrics"] == {"loss": 0.5}
    assert client.artifacts(run_id) == ["a.txt"]
    query = (
        "MYSQL_PWD=$MYSQL_PASSWORD mysql --host=127.0.0.1 --user=mlflow --execute='SELECT run_uuid FROM runs' mlflow"
    )
    assert run_id in compose("exec", "-T", "mysql", "sh", "-c", query, **variables)
