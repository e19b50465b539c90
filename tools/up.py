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
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from home import BIN, HOME, ROOT, embedded_store, environment, prepare

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
    services: list[tuple[str, subprocess.Popen[bytes], str, Path]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell started us in the background
    try:
        if own_server:
            env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven more processes that nobody needs here
            command = [
                BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1",
                "--backend-store-uri", embedded_store(), "--artifacts-destination", HOME / "mlartifacts",
            ]  # fmt: skip
            services.append(start("MLflow", command, env, f"{mlflow_url}/health", log_folder / "mlflow.log"))
            env["MLFLOW_TRACKING_URI"] = mlflow_url
            del env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"]
        env["AIRFLOW__API__PORT"] = str(airflow_port)
        env["AIRFLOW__API__HOST"] = "127.0.0.1"
        env["AIRFLOW__API__BASE_URL"] = airflow_url
        env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = f"{airflow_url}/execution/"
        env["AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL"] = "30"
        env["AIRFLOW__CORE__TEST_CONNECTION"] = "Enabled"  # the Test button of the connection form
        health = f"{airflow_url}/api/v2/monitor/health"
        services.append(start("Airflow", [BIN / "airflow", "standalone"], env, health, log_folder / "airflow.log"))
        for name, process, url, log in services:
            if problem := wait_for(process, url):
                return fail(f"{name} {problem}; see {os.path.relpath(log, ROOT)}")
        user, password = login()
        print(f"Airflow   {airflow_url}   (user {user}, password {password})")
        print(f"MLflow    {mlflow_url if own_server else env['MLFLOW_TRACKING_URI']}")
        print("Ctrl-C stops both.", flush=True)
        while all(process.poll() is None for _, process, _, _ in services):
            time.sleep(0.5)
        name, _, _, log = next(service for service in services if service[1].poll() is not None)
        return fail(f"{name} ended by itself; see {os.path.relpath(log, ROOT)}")
    except KeyboardInterrupt:
        return 0
    finally:
        print("\nStopping ...", flush=True)
        stop([process for _, process, _, _ in reversed(services)])


def start(name: str, command: list, env: dict[str, str], url: str, log: Path):
    print(f"Starting {name} ...", flush=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Both services end cleanly on SIGINT only, which a shell's background job would ignore.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return name, process, url, log


def wait_for(process: subprocess.Popen, url: str) -> str:
    """Return "" once the URL answers well, else what is wrong."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"ended at once with exit status {process.returncode}"
        with contextlib.suppress(HTTPError, URLError, OSError, ValueError), urlopen(url, timeout=5) as answer:
            body = answer.read().decode()
            if not body.startswith("{") or all(
                part.get("status") in ("healthy", None) for part in json.loads(body).values()
            ):
                return ""
        time.sleep(0.5)
    return f"does not answer at {url} after {WAIT_SECONDS} s"


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
