"""Holds one container, and leaves none behind: started by :mod:`mlflow_projects.backends.local.container`.

It runs below the watchdog, like a command on the worker: whatever ends the task, be it SIGKILL, ends with
SIGTERM here, and then the container is stopped and removed. Its output is the container's, its exit
status the command's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mlflow_projects.backends.local import engine
from mlflow_projects.exceptions import ProjectError, StepFailedError

ENGINE_TROUBLE = 125  # Docker's own exit status for this
_ENGINE_SECONDS = 600.0  # without a sign of life, but for the waiting itself
_LAST_OUTPUT_SECONDS = 30


def main() -> None:
    """Run the container that a file describes; the file holds secrets and is removed at once."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    file = Path(sys.argv[1])
    spec = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    report: dict[str, Any] = {"removed": False}
    try:
        code = _run(spec, stop, report)
    except (ProjectError, StepFailedError) as error:
        code, report["error"] = ENGINE_TROUBLE, str(error)
        _say(str(error))
    if Path(spec["report"]).parent.is_dir():  # the task may be gone, and its files with it
        Path(spec["report"]).write_text(json.dumps(report), encoding="utf-8")
    sys.stdout.flush()
    os._exit(code)  # a thread may still wait for an engine that is gone


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(spec: dict[str, Any], stop: threading.Event, report: dict[str, Any]) -> int:
    import docker  # type: ignore[import-untyped]

    environment = engine.engine_environment()
    try:
        with engine.connected(environment, _ENGINE_SECONDS) as client:
            engine.remove_left_over(client, spec["task"], _say)
            host = client.api.create_host_config(**spec["host"])
            labels = {engine.TASK_LABEL: spec["task"]}
            client.api.create_container(**spec["create"], name=spec["name"], labels=labels, host_config=host)
            return _follow(client, spec, stop)
    except docker.errors.APIError as error:
        raise StepFailedError(f"The container cannot be run: {engine.explained(error)}") from error
    finally:
        with contextlib.suppress(StepFailedError, ProjectError, docker.errors.APIError):
            with engine.connected(environment) as client:
                engine.remove_container(client, spec["name"])
                report["removed"] = True


def _follow(client: Any, spec: dict[str, Any], stop: threading.Event) -> int:
    """Start the container and pass its output on to its end; a stop that is asked for comes in between."""
    name = spec["name"]
    output = client.api.attach(name, stdout=True, stderr=True, stream=True, logs=True)
    client.api.start(name)
    over = threading.Event()

    def copy() -> None:
        with contextlib.suppress(OSError):
            for chunk in output:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()

    def wait() -> None:
        with contextlib.suppress(Exception):  # the engine is gone: the inspection below says so
            client.api.wait(name, timeout=None)
        over.set()

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    threading.Thread(target=wait, daemon=True).start()
    while not over.wait(0.1):
        if stop.is_set():
            client.api.stop(name, timeout=max(1, round(spec["grace"])))
            over.wait(_LAST_OUTPUT_SECONDS)
            break
    copying.join(_LAST_OUTPUT_SECONDS)
    with engine.connected(engine.engine_environment()) as fresh:
        state = fresh.api.inspect_container(name)["State"]
    if state["Running"]:
        raise StepFailedError("The connection to the container engine was lost, so the container was stopped.")
    return int(state["ExitCode"])
