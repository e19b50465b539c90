"""Runs the script once for each request, in a child of a process that has imported MLflow already.

A request is a line of JSON on standard input: ``{"script": …, "args": […], "values": {…}, "root": …, "scratch": …,
"seconds": …, "seed": …, "options": true}``; the answer is one on standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import runpy
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from typing import Any

from . import state
from .state import FIRST_EXPERIMENT, NO_END, Recording, StopScript

_SECONDS_TO_SAY = 20.0  # where it is


def main() -> None:
    """Serve the requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the script prints is not an answer
    first = json.loads(sys.stdin.readline())
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    database = os.path.join(first["scratch"], "template.db")
    _prepare(database)
    answers.write(json.dumps({"ready": True}) + "\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_answer(request, database)) + "\n")
        answers.flush()


def _prepare(database: str) -> None:
    """Import what every run needs, and make the database that each gets a copy of."""
    import mlflow
    import mlflow.artifacts
    import mlflow.projects
    from mlflow.tracking import MlflowClient

    for name in ("numpy", "click", "typer"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    uri = f"sqlite:///{database}"
    client = MlflowClient(tracking_uri=uri)
    filler = client.create_experiment("filler", artifact_location="/nowhere")
    client._tracking_client.store.engine.dispose()
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET experiment_id = ?, lifecycle_stage = 'deleted' WHERE experiment_id = ?",
            (FIRST_EXPERIMENT, int(filler)),
        )
    del mlflow


def _answer(request: dict[str, Any], database: str) -> dict[str, Any]:
    result = os.path.join(request["scratch"], "result.json")
    with contextlib.suppress(FileNotFoundError):
        os.remove(result)
    sys.stdout.flush()
    begun, begins = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            _run(request, database, result, begins)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(begins)
    os.read(begun, 1)  # the time is the script's own; what comes before depends on how busy the machine is
    os.close(begun)
    if not _ends(child, request["seconds"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGUSR1)  # it says where it is
        if not _ends(child, _SECONDS_TO_SAY):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    try:
        with open(result, encoding="utf-8") as file:
            content: dict[str, Any] = json.load(file)
            return content
    except (OSError, ValueError):
        return {"crashed": True}


def _ends(child: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _run(request: dict[str, Any], database: str, result: str, begins: int) -> None:
    from . import clock, environment_variables, mlflow_calls, options, outside, parallel
    from .options import Values

    root, scratch = request["root"], request["scratch"]
    copy = os.path.join(scratch, "mlflow.db")
    shutil.copyfile(request["database"] or database, copy)
    os.environ.update(MLFLOW_TRACKING_URI=f"sqlite:///{copy}", TMPDIR=os.path.join(scratch, "tmp"))
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    current = Recording(root, scratch)
    current.is_again = bool(request["database"])

    def write(**end: Any) -> None:
        content = {
            "events": current.events, "inputs": current.inputs, "stopped": current.stopped,
            "experiments": experiments(), "variables": current.variables, "arguments": current.arguments, **end,
        }  # fmt: skip
        temporary = f"{result}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, default=str)
        os.replace(temporary, result)

    def experiments() -> dict[str, str]:
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            rows = connection.execute("SELECT experiment_id, name FROM experiments").fetchall()
        return {str(number): name for number, name in rows}

    os.makedirs(os.environ["TMPDIR"], exist_ok=True)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(outside.NoInput()))
    sys.argv = [request["script"], *request["args"]]
    sys.path[0:0] = [os.path.dirname(request["script"])]
    sys.dont_write_bytecode = True
    random.seed(request["seed"])
    if request["seed"] == 1:
        clock.move(days=401)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(request["seed"])
    Values.wanted, Values.seen = request["values"], not request["options"]
    import mlflow

    mlflow.set_tracking_uri(current.tracking_uri)  # before what the script puts into the environment
    mlflow_calls.install()
    if request["options"]:
        options.install()
    environment_variables.install()
    parallel.install()
    outside.install()
    current.environment = dict(os.environ)

    def too_long(*_: object) -> None:
        current.stopped = {"sentence": NO_END, "where": current.place(), "decides": False}
        write()
        os._exit(0)

    signal.signal(signal.SIGUSR1, too_long)
    state.current = current
    error: BaseException | None = None
    os.close(begins)
    try:
        runpy.run_path(request["script"], run_name="__main__")
    except StopScript:
        pass
    except BaseException as caught:
        error = caught
    state.current = None
    if error is None and not current.stopped and Values.wanted and not Values.seen:
        name = next(iter(Values.wanted))
        current.stopped = {
            "sentence": f"has no option {name!r} that an import knows, by argparse, click, hydra or a "
            "function of fire; its own arguments are passed after --",
            "where": None, "decides": False,
        }  # fmt: skip
    if current.stopped or error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        write()
        return
    write(error=_in_words(error, current))


def _in_words(error: BaseException, current: Recording) -> dict[str, Any]:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if current.is_own(frame.filename)]
    where = (os.path.relpath(frames[-1].filename, current.root), frames[-1].lineno) if frames else None
    if isinstance(error, SystemExit):
        said = f"ends by sys.exit({error.code!r})"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        said = f"needs the package {error.name!r}, which {sys.executable} does not have"
    elif isinstance(error, EOFError):
        said = "reads from its standard input, which is empty here"
    else:
        try:
            text = " ".join(str(error).split())[:300]
        except Exception:  # of the script's own class
            text = ""
        said = f"raises {type(error).__name__}: {text}" if text else f"raises {type(error).__name__}"
    return {
        "sentence": said,
        "where": where,
        "missing": getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None,
    }
