"""Serve a model with ``mlflow models serve``, ask it for predictions as a client would, and stop it: always.

The server listens on a free port of this machine only. It leads a process group of its own, which is stopped
whatever happens: after the answer, after an error, after Ctrl-C or SIGTERM, and by the kernel (on Linux) should
this process be killed.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import mlflow
import requests

QUESTION = {"dataframe_split": {"data": [[1], [-1]]}}
GRACE_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model-uri", required=True, help="runs:/id/model, models:/name/version or models:/name@alias"
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds until the server must answer")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, end_on_signal)
    with mlflow.start_run():
        started = time.monotonic()
        with serving(arguments.model_uri, arguments.timeout) as address:
            ready = time.monotonic() - started
            answer = ask(address)
        predictions = answer["predictions"]
        mlflow.log_metrics({"ready_seconds": ready, "predictions": len(predictions)})
        mlflow.log_dict({"question": QUESTION, "answer": answer}, "invocation.json")
    print(f"{QUESTION} is answered with {predictions}; the server is stopped.")


def end_on_signal(number: int, _: FrameType | None) -> None:
    """Leave through every ``finally``, with the exit status that a shell shows for the signal."""
    sys.exit(128 + number)


@contextlib.contextmanager
def serving(model_uri: str, timeout: float) -> Iterator[str]:
    """Run the server during the block; yield its address once it is ready.

    :param timeout: seconds until it must be ready
    :raises SystemExit: it ends before, or is not ready in time
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model_uri, "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1", "--env-manager", "local",
    ]  # fmt: skip
    # MLflow starts uvicorn by its name: the one beside this Python, also where no environment is active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    server = subprocess.Popen(
        command, env={**os.environ, "PATH": path}, start_new_session=True, preexec_fn=end_with_parent
    )
    try:
        wait_until_ready(address, server, timeout)
        yield address
    finally:
        stop(server)


def wait_until_ready(address: str, server: subprocess.Popen[bytes], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"The server ended with exit status {server.returncode} before it was ready; see above.")
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{address}/ping", timeout=5).ok:
                return
        time.sleep(0.2)
    sys.exit(f"The server is not ready after {timeout:g} s.")


def ask(address: str) -> dict[str, list[int]]:
    """Return what the server predicts."""
    response = requests.post(f"{address}/invocations", json=QUESTION, timeout=60)
    if not response.ok:
        sys.exit(f"The server refuses the question (HTTP {response.status_code}): {response.text[:500]}")
    return response.json()


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group: politely, then for certain."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt this any more
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and is_alive(server):
            time.sleep(0.05)


def is_alive(server: subprocess.Popen[bytes]) -> bool:
    """Tell whether any process of the server's group lives."""
    server.poll()  # else it stays as a zombie, which still counts as a member
    try:
        os.killpg(server.pid, 0)
    except ProcessLookupError:
        return False
    return True


def end_with_parent() -> None:
    """Let the kernel end the server when this process is killed; MLflow does the same for what it starts itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
