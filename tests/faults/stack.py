"""A whole Airflow with LocalExecutor and an MLflow server, each part a process that can be killed and restarted."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import create_engine, text

from tests.faults.observed import PATIENCE, DagRun, Observed
from tests.support.airflow import sqlite
from tests.support.flaky import FlakyProxy, answer
from tests.support.sagemaker import running_sagemaker
from tests.support.servers import free_port, running_mlflow_server, running_postgresql, wait_until_answers

ROOT = Path(__file__).resolve().parents[2]
SECRET = "planted-secret-8f3kq"
GONE_IMAGE = "registry.example.com/gone:1"
JOB_MODES = ("watched", "deferred")
# Seconds without a heartbeat after which Airflow takes a part or a task for lost. On a busy machine, the scheduler's
# may be 10 s late; for lost, it would reset all tasks that run. What a fault kills is made to look lost for long.
LOST_AFTER = "120"
LONG_AGO = "2020-01-01 00:00:00.000000"
_JOB_TYPES = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob"}
WAYS = 3
# A server is away until something was seen, and on a busy machine until it has started again: steps must be patient.
REPEATS = 15
# Of the tasks that shall give up.
FEW_REPEATS = 2
# Seconds that a request may take on a way of its own: more than the slowest answer, and no longer, as one fault waits
# until a request is given up.
WAY_TIMEOUT = 10


@dataclass(frozen=True)
class Way:
    """DAGs like ``once`` and ``again`` whose tasks reach the tracking server through a proxy of their own."""

    dag_id: str
    proxy: FlakyProxy

    @property
    def again(self) -> str:
        """The DAG with a retry."""
        return f"{self.dag_id}_again"


class Stack(Observed):
    """Airflow's parts below ``home``; the steps reach MLflow through a proxy that misbehaves on order."""

    def __init__(
        self,
        home: Path,
        seed: int = 0,
        *,
        postgresql: bool = False,
        with_sagemaker: bool = False,
        parallelism: int = 6,
    ) -> None:
        self.home, self.seed, self.postgresql, self.with_sagemaker = home, seed, postgresql, with_sagemaker
        self.parallelism = parallelism
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        self._mlflow_port = free_port()
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Stack:
        self.home.mkdir(parents=True, exist_ok=True)
        self._mlflow = contextlib.ExitStack()
        try:
            self._begin()
        except BaseException as error:  # else a mounted disk and processes would stay
            lines = "\n".join(self.last_lines())
            self.__exit__()
            if not isinstance(error, Exception):
                raise
            raise AssertionError(f"The stack does not start: {type(error).__name__} {error}\n{lines}") from error
        return self

    def _begin(self) -> None:
        self._small_disk = self._mount_small_disk()
        server = self._resources.enter_context(running_postgresql()) if self.postgresql else ""
        self.databases = [f"{server}/{name}" for name in ("airflow", "mlflow")] if server else []
        self.mlflow_uri = self._start_mlflow()
        self.proxy = self._resources.enter_context(FlakyProxy(self.mlflow_uri))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        dags = self.home / "dags"
        dags.mkdir()
        (dags / "faults").symlink_to(Path(__file__).parent / "dags")
        (dags / "mlflow_projects_janitor.py").symlink_to(ROOT / "dags" / "mlflow_projects_janitor.py")
        self._ways = [self._resources.enter_context(FlakyProxy(self.mlflow_uri)) for _ in range(WAYS)]
        self._free_ways = queue.SimpleQueue[Way]()
        for number, proxy in enumerate(self._ways):
            self._free_ways.put(Way(f"way_{number}", proxy))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "MLFLOW_", "TESTS_HOME"))}
        self.environment = {
            **clean,
            "AIRFLOW_HOME": str(self.home),
            "FAULTS_SEED": str(self.seed),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": str(self.parallelism),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": "faults-only-secret-that-is-long-enough-for-hs512-signatures-0123456789",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": LOST_AFTER,
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": LOST_AFTER,
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "2",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": LOST_AFTER,
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": _mlflow_connection(self.proxy),
            "AIRFLOW_CONN_IMPATIENT": _mlflow_connection(self.proxy, repeats=FEW_REPEATS),
            **{
                f"AIRFLOW_CONN_WAY_{n}": _mlflow_connection(proxy, timeout=WAY_TIMEOUT)
                for n, proxy in enumerate(self._ways)
            },
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_DISABLE_TELEMETRY": "true",  # a race in it ends a project on a busy machine (a KeyError)
        }
        if self.with_sagemaker:
            self._add_sagemaker()
        self.environment.update(self._database())
        with (self.home / "migration.log").open("wb") as log:
            command = [self._airflow(), "db", "migrate"]
            subprocess.run(command, env=self.environment, check=True, stdout=log, stderr=log)
        for part in ("api-server", "dag-processor", "scheduler", "triggerer"):
            self.start(part)
        health, log = f"{self.url}/api/v2/monitor/health", self.home / "api-server.log"
        wait_until_answers(health, self.parts["api-server"], log)
        token = httpx.get(f"{self.url}/auth/token", follow_redirects=True, timeout=60).json()["access_token"]
        self.http = httpx.Client(
            base_url=f"{self.url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        expected = {
            "once",
            "skipping",
            "again",
            "limited",
            "short_run",
            "many",
            "hasty",
            "way_2_again",
            "tested",
            "function_way_2_again",
            "random_9",
            "mlflow_projects_janitor",
            "job_deferred",
        }
        self.wait(lambda: expected <= {dag["dag_id"] for dag in self.get("/dags?limit=500")["dags"]}, "the DAGs")

    def __exit__(self, *_: object) -> None:
        for part in list(self.parts):
            self._end(part, signal.SIGKILL)
        self._mlflow.close()
        self._resources.close()

    def _add_sagemaker(self) -> None:
        self.sagemaker = self._resources.enter_context(
            running_sagemaker(self.home / "sagemaker", f"--missing-image={GONE_IMAGE}")
        )
        stand_in = self.sagemaker
        # The tracking server asks for no password, but the steps' connection has one: the job gets it as a secret.
        secret = stand_in.client("secretsmanager").create_secret(Name="tracking", SecretString=SECRET)["ARN"]
        settings = {
            "role": stand_in.role,
            "s3_uri": f"s3://{stand_in.bucket}/mlflow",
            "image_uri": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14.0-cpu-amzn2023-sagemaker",
            "secret_environment": {"MLFLOW_TRACKING_PASSWORD": secret},
        }
        self.environment.update(
            stand_in.environment,
            AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER=json.dumps(settings),
            **{f"AIRFLOW_CONN_AWS_{mode.upper()}": self._aws_connection(mode) for mode in JOB_MODES},
        )

    def _aws_connection(self, access_key: str) -> str:
        secret = self.sagemaker.environment["AWS_SECRET_ACCESS_KEY"]
        return json.dumps({"conn_type": "aws", "login": access_key, "password": secret})

    @contextlib.contextmanager
    def way(self) -> Iterator[Way]:
        """Yield a way to the tracking server on which nobody else is; wait for one if need be."""
        way = self._free_ways.get()
        try:
            yield way
        finally:
            way.proxy.down, way.proxy.delay = False, 0.0
            way.proxy.faults.clear()
            self._free_ways.put(way)

    def jobs_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the descriptions of all training jobs of a DAG run."""
        runs = {run.info.run_id for run in self.runs(run_id)}
        found = [self.sagemaker.describe(job["name"]) for job in self.sagemaker.jobs()]
        return [job for job in found if job.get("Environment", {}).get("MLFLOW_RUN_ID") in runs]

    def wait_job(self, run_id: str, *states: str) -> str:
        """Wait until the DAG run has a training job in one of the states (default: it exists); return its name."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [
                job["TrainingJobName"]
                for job in self.jobs_of(run_id)
                if not states or {job["TrainingJobStatus"], job["SecondaryStatus"]} & set(states)
            ]
            return bool(found)

        self.wait(look, f"a job of {run_id}")
        return found[-1]

    def ask(self, method: str, path: str, content: Any) -> httpx.Response:
        return self.http.request(method, path, json=content)

    def mend(self, lane: str = "") -> None:
        """Make AWS behave again for the callers of a lane; access key and lane have one name."""
        if self.with_sagemaker:
            self.sagemaker.no_faults(lane)

    def _database(self, part: str = "") -> dict[str, str]:
        """Return the variable that names Airflow's database."""
        if self.databases:
            return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.databases[0]}
        return sqlite(self.home, part)

    def _airflow(self) -> Path:
        return Path(sys.executable).with_name("airflow")

    def start(self, part: str) -> None:
        """Start a part in a session of its own."""
        its_own = {**self.environment, **self._database(part)}
        with (self.home / f"{part}.log").open("ab") as log:
            self.parts[part] = subprocess.Popen(
                [self._airflow(), part], env=its_own, cwd=self.home, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a part with all processes of its session, wait for the end, and let it look lost."""
        self._end(part, number)
        if part in _JOB_TYPES:
            self._rewrite("job SET latest_heartbeat = :long_ago WHERE job_type = :name", _JOB_TYPES[part])

    def _end(self, part: str, number: int) -> None:
        process = self.parts.pop(part)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _start_mlflow(self) -> str:
        database = self.databases[1] if self.databases else ""
        server = running_mlflow_server(self.home / "mlflow", self._mlflow_port, database)
        return self._mlflow.enter_context(server)

    def let_time_out(self, run_id: str) -> None:
        """Let Airflow believe that a DAG run began long ago."""
        assert self._rewrite("dag_run SET start_date = :long_ago WHERE run_id = :name", run_id) == 1

    def let_look_lost(self, run_id: str) -> None:
        """Let Airflow believe that the last heartbeat of a DAG run's running tasks was long ago."""
        tasks = "task_instance SET last_heartbeat_at = :long_ago WHERE state = 'running' AND run_id = :name"
        assert self._rewrite(tasks, run_id) == 1

    def _rewrite(self, what: str, name: str) -> int:
        """Update Airflow's database past Airflow; return the number of rows."""
        (uri,) = self._database().values()
        database = create_engine(uri)
        try:
            with database.begin() as connection:
                return connection.execute(text(f"UPDATE {what}"), {"long_ago": LONG_AGO, "name": name}).rowcount
        finally:
            database.dispose()

    @contextlib.contextmanager
    def mlflow_killed(self, port: int | None = None) -> Iterator[None]:
        """Kill the MLflow server; bring it back after the block, on the same database.

        :param port: another port; the name that the steps use, the proxy's, stays
        """
        self._mlflow.close()
        try:
            yield
        finally:
            self._mlflow_port = port or self._mlflow_port
            self.mlflow_uri = self._start_mlflow()
            for proxy in (self.proxy, *self._ways):
                proxy.target = self.mlflow_uri

    def wait_tries(self, proxy: FlakyProxy, count: int = 3) -> None:
        """Wait until the tracking server was asked in vain so often, from now on: three times take 3 s and more."""
        before = len(proxy.failed)
        self.wait(lambda: len(proxy.failed) - before >= count, f"{count} requests in vain to {proxy.url}")

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the disk of the MLflow server during the block: a real small one for root, else by its answers."""
        if not self._small_disk:
            body = b'{"error_code": "INTERNAL_ERROR", "message": "database or disk is full"}'
            for path in ("runs/get", "runs/log-batch", "runs/update"):
                self.proxy.faults[path] = [answer(500, body=body)] * 3
            yield
            return
        filler = self.home / "mlflow" / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 2**16)
                file.flush()
        try:
            yield
        finally:
            filler.unlink()

    def _mount_small_disk(self) -> bool:
        """Give the MLflow server a disk of 64 MB, where that is allowed."""
        folder = self.home / "mlflow"
        folder.mkdir(parents=True, exist_ok=True)
        return not self.postgresql and self._mount(folder, "size=64m", self._resources)

    @staticmethod
    def _mount(folder: Path, options: str, resources: contextlib.ExitStack) -> bool:
        """Mount a disk in memory until the resources are closed; return whether that is allowed."""
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        resources.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
        return True

    @property
    def cache(self) -> Path:
        """The cache's folder."""
        return self.home / "mlflow_projects_cache"

    @contextlib.contextmanager
    def cache_without_room(self, options: str = "size=128k") -> Iterator[None]:
        """Give the cache a small disk during the block; where that is not allowed, close its folder."""
        self.cache.mkdir(mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as resources:
            if not self._mount(self.cache, options, resources):
                self.cache.chmod(0o500)
                resources.callback(self.cache.chmod, 0o700)
            yield

    def cache_read_only(self) -> contextlib.AbstractContextManager[None]:
        """Let nobody write the cache during the block."""
        return self.cache_without_room("ro")

    def dags_test(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Return what `airflow dags test` prints, whatever its exit status."""
        command = [self._airflow(), "dags", "test", dag_id, "--conf", json.dumps(conf)]
        environment = {**self.environment, **self._database()}
        ran = subprocess.run(
            command, env=environment, cwd=self.home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return ran.stdout

    def is_up(self) -> bool:
        """Tell whether API server and scheduler answer well."""
        try:
            health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=30).json()
        except (httpx.HTTPError, ValueError):
            return False
        return bool(health["scheduler"]["status"] == "healthy")

    def wait_output(self, run_id: str) -> psutil.Process:
        """Wait until the step's command runs; return its first process, the child of the lower watchdog."""
        found: list[psutil.Process] = []

        def look() -> bool:
            for process in self.processes(run_id):
                with contextlib.suppress(psutil.Error):
                    if is_watchdog(process):
                        found[:] = [child for child in process.children() if not is_watchdog(child)] or found
            return bool(found)

        self.wait(look, f"the command of {run_id}")
        return found[0]

    def processes(self, run_id: str) -> list[psutil.Process]:
        """Return the living processes of a DAG run's commands, watchdogs included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    environment = process.environ()
                    if environment.get("AIRFLOW_CTX_DAG_RUN_ID") == run_id and "MLFLOW_RUN_ID" in environment:
                        found.append(process)
        return found

    def has_process(self, attempt: dict[str, Any]) -> bool:
        title = ""
        with contextlib.suppress(psutil.Error):
            title = " ".join(psutil.Process(attempt["pid"]).cmdline()) if attempt["pid"] else ""
        return title.startswith("airflow worker") and not title.endswith("<idle>")

    def task_process(self, run_id: str) -> psutil.Process:
        """Return the Airflow task process above a DAG run's command."""
        above = self.wait_output(run_id).parent()
        while above is not None and is_watchdog(above):
            above = above.parent()
        assert above is not None
        return above

    def last_lines(self, dag_runs: Sequence[DagRun] = (), count: int = 15) -> list[str]:
        files = [*self.home.glob("*.log"), *self.home.glob("*/*.log")]
        for dag_id, run_id in dag_runs:
            files += (self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}").rglob("*.log*")
        found = []
        for file in files:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
            found += [f"== {file.relative_to(self.home)}", *(line[:500] for line in lines)]
        return found

    def task_log(self, dag_id: str, run_id: str, task_id: str = "parent.step") -> str:
        """Return what all tries of a task have logged, their triggers too."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return "\n".join(file.read_text(errors="replace") for file in sorted(folder.rglob("*.log*")))


def is_watchdog(process: psutil.Process) -> bool:
    """Tell whether a process is one of the two watchdogs of a command."""
    return any("watchdog.py" in part for part in process.cmdline())


def _mlflow_connection(proxy: FlakyProxy, *, timeout: int = 30, repeats: int = REPEATS) -> str:
    connection = {"conn_type": "mlflow", "host": proxy.url, "login": "me", "password": SECRET}
    return json.dumps({**connection, "extra": {"timeout": timeout, "max_retries": repeats}})


@contextlib.contextmanager
def proxy_down(proxy: FlakyProxy) -> Iterator[None]:
    """Make the tracking server unreachable through a proxy during the block."""
    proxy.down = True
    try:
        yield
    finally:
        proxy.down = False
