"""The stack of docker-compose.yaml as something whose parts can be killed, cut off and filled."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.faults.observed import DagRun, Observed
from tests.stack.client import StackClient

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))

import compose  # noqa: E402

# Prints the command lines of a worker's tasks (Airflow gives them a title), or of the commands of a DAG run: those
# that its container can see; a zombie has no environment.
_LOOK = """\
import json, os, sys
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        environment = open(f"/proc/{pid}/environ", "rb").read().split(b"\\0")
        command = open(f"/proc/{pid}/cmdline").read().rstrip("\\0").split("\\0")
    except OSError:
        continue
    if len(sys.argv) == 1:
        wanted = command[0].startswith("airflow worker -- ")
    else:
        of_run = f"AIRFLOW_CTX_DAG_RUN_ID={sys.argv[1]}".encode() in environment
        wanted = of_run and any(entry.startswith(b"MLFLOW_RUN_ID=") for entry in environment)
    if wanted:
        found.append(command)
print(json.dumps(found))
"""
_BUCKET = "mlflow"  # where MLflow's server keeps the artifacts
_FILLER = "faults/filler"
_FILLER_BYTES = 2 * 2**20  # more than the quota of 1 MB, the least there is


@dataclass(frozen=True)
class ContainerProcess:
    """A living process of a step.

    :param container: the name of the worker's container
    """

    container: str
    arguments: tuple[str, ...]

    def cmdline(self) -> list[str]:
        return [f"{self.container}:", *self.arguments]


class ComposeStack(Observed):
    """A running stack; faults are done to its containers through the engine, as an operator would.

    :param client: what reaches Airflow, MLflow and S3 from outside
    """

    def __init__(self, client: StackClient) -> None:
        self.client = client
        self.mlflow_uri = client.mlflow_url

    def ask(self, method: str, path: str, content: Any) -> httpx.Response:
        return self.client.airflow(method, path, json=content)

    # --- containers

    def container(self, service: str) -> str:
        """Return the name of a service's only container."""
        (name,) = compose.containers(service)
        return name

    def engine(self, *arguments: str, text: str | None = None) -> str:
        """Run the container engine's program and return what it prints.

        :param text: for its standard input
        """
        done = compose.run_engine(*arguments, input=text, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return str(done.stdout)

    @contextlib.contextmanager
    def killed(self, container: str) -> Iterator[None]:
        """Kill a container with all its processes; start it again after the block."""
        self.engine("kill", "--signal", "KILL", container)
        try:
            yield
        finally:
            self.engine("start", container)

    @contextlib.contextmanager
    def cut_off(self, container: str) -> Iterator[None]:
        """Take a container's network away during the block."""
        networks = json.loads(self.engine("inspect", container))[0]["NetworkSettings"]["Networks"]
        for network in networks:
            self.engine("network", "disconnect", network, container)
        try:
            yield
        finally:
            for network in networks:
                self.engine("network", "connect", network, container)

    # --- steps

    def processes(self, run_id: str) -> list[ContainerProcess]:
        found = []
        for container in compose.containers("worker", ended=False):
            with contextlib.suppress(AssertionError):  # it may have been killed since it was listed
                found += [ContainerProcess(container, tuple(command)) for command in self._look(container, run_id)]
        return found

    def is_busy(self, worker: str) -> bool:
        """Tell whether a worker has a task, be it one that Airflow gave up."""
        return bool(self._look(worker))

    def _look(self, container: str, *run_id: str) -> list[list[str]]:
        found: list[list[str]] = json.loads(self.engine("exec", container, "python", "-I", "-c", _LOOK, *run_id))
        return found

    def tell(self, told: str) -> None:
        """Make the file that commands wait for, in the volume that all workers share."""
        self.engine("exec", compose.containers("worker", ended=False)[0], "touch", told)

    def wait_worker(self, run_id: str) -> str:
        """Wait until a step's command runs; return the name of its worker's container."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [process.container for process in self.processes(run_id)]
            return bool(found)

        self.wait(look, f"a command of {run_id}")
        return found[0]

    def hosts(self, dag_id: str, run_id: str, task_id: str = "parent.step", index: int = -1) -> list[str]:
        """Return where the tries of a task ran, the first try first."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}" + (f"/{index}" if index >= 0 else "")
        tries = self.get(f"{path}/tries")["task_instances"]
        return [str(attempt["hostname"]) for attempt in sorted(tries, key=lambda attempt: int(attempt["try_number"]))]

    def records(self) -> str:
        """Return all that MLflow knows of all runs, as text."""
        from mlflow import MlflowClient

        client = MlflowClient(self.mlflow_uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        return "\n".join(str(run.to_dictionary()) for run in client.search_runs(experiments, max_results=1000))

    # --- S3

    @contextlib.contextmanager
    def full_store(self) -> Iterator[None]:
        """Use up the quota of the artifacts' bucket, the least that SeaweedFS knows, during the block."""
        store = self.client.s3()
        store.put_object(Bucket=_BUCKET, Key=_FILLER, Body=os.urandom(_FILLER_BYTES))  # it compresses what it can
        self._in_shell(f"s3.bucket.quota -name={_BUCKET} -op=set -sizeMB=1")
        try:
            self.wait(lambda: "read only" in self._in_shell("s3.bucket.quota.enforce -apply"), "a full bucket")
            yield
        finally:
            self._in_shell(f"s3.bucket.quota -name={_BUCKET} -op=remove", "s3.bucket.quota.enforce -apply")
            store.delete_object(Bucket=_BUCKET, Key=_FILLER)

    def _in_shell(self, *commands: str) -> str:
        script = "\n".join(["lock", *commands, "unlock", ""])
        return self.engine("exec", "--interactive", self.container("s3"), "weed", "shell", text=script)

    # --- what the table of faults asks for

    def is_up(self) -> bool:
        try:
            health = httpx.get(f"{self.client.airflow_url}/api/v2/monitor/health", timeout=30).json()
            parts = [health[part]["status"] for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")]
            mlflow = httpx.get(f"{self.client.mlflow_url}/health", timeout=30)
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return set(parts) == {"healthy"} and mlflow.status_code == httpx.codes.OK

    def mend(self, lane: str = "") -> None:
        """Start what was left dead; ``init`` has ended by itself."""
        for container in set(compose.containers()) - set(compose.containers(ended=False)):
            if container not in compose.containers("init"):
                self.engine("start", container)

    def last_lines(self, dag_runs: Sequence[DagRun] = (), count: int = 25) -> list[str]:
        found = container_logs(count)
        for dag_id, run_id in dag_runs:
            with contextlib.suppress(httpx.HTTPError):  # a broken stack may not have them any more
                for task in self.client.task_instances(dag_id, run_id):
                    where = task["task_id"], task["try_number"], task["map_index"]
                    lines = self.client.log(dag_id, run_id, *where).splitlines()[-count:]
                    found += [f"== {run_id} {where}", *(line[:500] for line in lines)]
        return found


def container_logs(count: int = 25) -> list[str]:
    """Return the ends of the logs of all containers."""
    found = []
    for container in compose.containers():
        done = compose.run_engine(
            "logs", "--tail", str(count), container,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", check=False,
        )  # fmt: skip
        found += [f"== {container}", *(line[:500] for line in done.stdout.splitlines())]
    return found
