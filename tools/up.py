"""Start Airflow and an MLflow server on the store that ``make demo`` writes to; stop both on Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from home import BIN, HOME, ROOT, database, embedded_store, environment, prepare

WAIT_SECONDS = 300  # a busy machine needs more than two minutes
PASSWORDS = HOME / "simple_auth_manager_passwords.json.generated"


def main() -> int:
    airflow_port, mlflow_port = port("AIRFLOW_PORT"), port("MLFLOW_PORT")
    env = environment()
    own_server = env["MLFLOW_TRACKING_URI"] == embedded_store()
    for name, number in [("AIRFLOW_PORT", airflow_port)] + [("MLFLOW_PORT", mlflow_port)] * own_server:
        if in_use(number):
            return fail(f"Port {number} is in use; choose another one: make up {name}={number + 1}")
    prepare(env)
    log_folder = HOME / "logs"
    log_folder.mkdir(parents=True, exist_ok=True)
    airflow_url, mlflow_url = f"http://127.0.0.1:{airflow_port}", f"http://127.0.0.1:{mlflow_port}"
    services: list[Service] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started us in the background
    try:
        health = [f"{airflow_url}/api/v2/monitor/health"]
        if own_server:
            env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven more processes that nobody needs here
            command = [
                BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1",
                "--backend-store-uri", embedded_store(), "--artifacts-destination", HOME / "mlartifacts",
            ]  # fmt: skip
            print("Starting MLflow ...", flush=True)
            services.append(start("MLflow", command, env, log_folder / "mlflow.log"))
            health.append(f"{mlflow_url}/health")
            env["MLFLOW_TRACKING_URI"] = mlflow_url
            del env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"]
        env["AIRFLOW__API__PORT"] = str(airflow_port)
        env["AIRFLOW__API__HOST"] = "127.0.0.1"
        env["AIRFLOW__API__BASE_URL"] = airflow_url
        env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = f"{airflow_url}/execution/"
        env["AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL"] = "30"
        env["AIRFLOW__CORE__TEST_CONNECTION"] = "Enabled"  # the Test button of the connection form
        print("Starting Airflow ...", flush=True)
        for part in ("api-server", "scheduler", "dag-processor", "triggerer"):
            its_own = {**env, **database(part)}
            services.append(start(f"Airflow's {part}", [BIN / "airflow", part], its_own, log_folder / f"{part}.log"))
        deadline = time.monotonic() + WAIT_SECONDS
        while not all(map(answers, health)):
            if gone := next(filter(Service.has_ended, services), None):
                return fail(f"{gone.name} ended at once; see {os.path.relpath(gone.log, ROOT)}")
            if time.monotonic() > deadline:
                logs = os.path.relpath(log_folder, ROOT)
                return fail(f"Not everything answers after {WAIT_SECONDS} s; see the *.log in {logs}")
            time.sleep(0.5)
        user, password = login()
        print(f"Airflow   {airflow_url}   (user {user}, password {password})")
        print(f"MLflow    {mlflow_url if own_server else env['MLFLOW_TRACKING_URI']}")
        print("Ctrl-C stops both.", flush=True)
        while not any(map(Service.has_ended, services)):
            time.sleep(0.5)
        gone = next(filter(Service.has_ended, services))
        return fail(f"{gone.name} ended by itself; see {os.path.relpath(gone.log, ROOT)}")
    except KeyboardInterrupt:
        return 0
    finally:
        print("\nStopping ...", flush=True)
        stop([service.process for service in reversed(services)])


class Service(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def has_ended(self) -> bool:
        return self.process.poll() is not None


def start(name: str, command: list[str | Path], env: dict[str, str], log: Path) -> Service:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # They end cleanly on SIGINT only, which a shell's background job would ignore.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return Service(name, process, log)


def answers(url: str) -> bool:
    """Say whether a URL answers, and all parts that it tells of are well."""
    with contextlib.suppress(HTTPError, URLError, OSError, ValueError), urlopen(url, timeout=5) as answer:
        body = answer.read().decode()
        return not body.startswith("{") or all(
            part.get("status") in ("healthy", None) for part in json.loads(body).values()
        )
    return False


def login() -> tuple[str, str]:
    return next(iter(json.loads(PASSWORDS.read_text()).items()))


def stop(processes: list[subprocess.Popen]) -> None:
    """End each service with its whole session: first politely, then for certain."""
    import psutil

    family = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(process.pid)
            family += [top, *top.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
    _, alive = psutil.wait_procs(family, timeout=15)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(alive, timeout=5)


def port(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdigit() or not 0 < int(text) < 65536:
        sys.exit(fail(f"{variable} must be a port number, not {text!r}."))
    return int(text)


def in_use(number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return True
    return False


def fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
