"""Runs of a script in which MLflow's calls are recorded; in a process of another Python if need be.

What the script may do there is in ``script_recorder``: it works on a copy of its folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from mlflow_projects.exceptions import ProjectError

_RECORDER = Path(__file__).parent / "script_recorder"
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from script_recorder import server; sys.path.pop(0); "
    "server.main()"
)
_LEFT_OUT = {
    ".git",
    ".hg",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    "mlruns",
    "mlartifacts",
    ".tox",
    ".airflow",
}
_MOST_BYTES, _MOST_FILES = 2**30, 100_000


class ScriptError(ProjectError):
    """The script cannot be recorded; the text says what it does, and where."""


class CutShortError(ScriptError):
    """The script's process has come to no end; it may also be the machine's fault."""


class RecorderError(ProjectError):
    """The machine's fault, which says nothing of the script."""


@dataclass(frozen=True)
class Recorded:
    """What one run of the script did.

    :param events: calls of MLflow, and what the script does besides, in their order; see ``script_recorder``
    :param inputs: the options that it has, as its own parser declares them
    :param experiments: name by id
    :param arguments: what the values of options became on its command line
    :param variables: of the environment that it reads, with their values or what it has without them
    :param database: what it leaves of MLflow's
    :param stopped: why it came to no end; None if it did
    """

    events: Sequence[Mapping[str, Any]]
    inputs: Sequence[Mapping[str, Any]]
    experiments: Mapping[str, str]
    arguments: Sequence[str] = ()
    stopped: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    database: Path | None = None

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event["kind"] == "call"]


@dataclass
class Script:
    """A script and the folder that it needs.

    :param file: the script
    :param root: the folder that is copied; the script may not read relative paths outside of it
    :param folder: where it is run
    :param args: its arguments, before those of options
    :param seconds: that one recording may take
    """

    file: Path
    root: Path
    folder: Path
    args: Sequence[str] = ()
    seconds: float = 60.0

    @property
    def name(self) -> str:
        """The script as messages name it."""
        return os.path.relpath(self.file, self.folder)

    def said(self, what: Mapping[str, Any]) -> str:
        """Return the sentence for what a recording stopped at."""
        place = what.get("where")
        where = f"{os.path.relpath(self.root / place[0], self.folder)}:{place[1]}: this" if place else f"{self.name}"
        return f"{where} {what['sentence']}"


class Recorder:
    """The process that records; use it in a ``with``.

    :param python: that has the scripts' packages, and mlflow
    """

    def __init__(self, python: str = sys.executable) -> None:
        self.python = python

    def __enter__(self) -> Recorder:
        self._folder = tempfile.TemporaryDirectory(prefix="mlflow-projects-import-", ignore_cleanup_errors=True)
        try:
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        self.scratch = Path(self._folder.name).resolve()
        command = [self.python, "-c", _START, str(_RECORDER.parent)]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "MLFLOW_", "_AIRFLOW"))
        }
        environment.update(PYTHONHASHSEED="0", MLFLOW_DISABLE_TELEMETRY="true", MPLBACKEND="Agg")
        environment.update(HYDRA_FULL_ERROR="1", JOBLIB_MULTIPROCESSING="0")
        self._log = (self.scratch / "log").open("w+", errors="replace")
        try:
            self._process: subprocess.Popen[str] | None = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ScriptError(
                f"{self.python} cannot be started ({error.strerror}); name another --python."
            ) from error
        if not self._ask({"scratch": str(self.scratch)}).get("ready"):
            remedy = "install mlflow there, or name a --python that has it, and the script's packages"
            raise ScriptError(f"{self.python} cannot record ({self._last_line()}); {remedy}.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if process := getattr(self, "_process", None):
            process.kill()
            process.communicate()
        if log := getattr(self, "_log", None):
            log.close()
        self._folder.cleanup()

    def record(
        self,
        script: Script,
        values: Mapping[str, Any],
        args: Sequence[str] | None = None,
        *,
        seed: int = 0,
        environment: Mapping[str, str] | None = None,
        database: Path | None = None,
        keeps: bool = False,
    ) -> Recorded:
        """Run a script once.

        :param values: of its options
        :param args: instead of options
        :param seed: of random numbers; 1 also moves the clock
        :param environment: more variables
        :param database: what an earlier recording left
        :param keeps: leave one
        :raises ScriptError: it did not end, or raised an exception
        :raises RecorderError: nothing can be recorded any more
        """
        scratch = Path(tempfile.mkdtemp(dir=self.scratch))
        root = scratch / "copy"
        copy_folder(script.root, root)
        answer = self._ask(
            {
                "script": str(root / script.file.relative_to(script.root)),
                "folder": str(root / script.folder.relative_to(script.root)),
                "args": [*script.args, *(args or ())],
                "values": dict(values),
                "options": args is None,
                "root": str(root),
                "scratch": str(scratch),
                "seconds": script.seconds,
                "seed": seed,
                "environment": dict(environment or {}),
                "database": database and str(database),
            }
        )
        left = self.scratch / f"{scratch.name}.db"
        if keeps and (scratch / "mlflow.db").exists():
            (scratch / "mlflow.db").rename(left)
        shutil.rmtree(scratch, ignore_errors=True)
        if answer.get("ended"):
            raise RecorderError(
                f"The recording of {script.name} broke off: {self.python} has ended ({self._last_line()}). Try again."
            )
        if answer.get("crashed"):
            raise CutShortError(
                f"{script.name} ends its own process, or needs more than {script.seconds:g} s ({self._last_line()})."
            )
        if error := _without(answer.get("error"), str(root), str(script.root)):
            remedy = "; install it there, or name another --python" if error.get("missing") else ""
            raise ScriptError(f"{script.said(error)}{remedy}. Nothing was written.")
        return Recorded(**_without(answer, str(root), str(script.root)), database=left)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"ended": true}')
        except (OSError, ValueError):
            return {"ended": True}
        return answer

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read()[-4000:].splitlines() if line.strip()]
        return lines[-1][:200] if lines else "no word"


def _without(content: Any, scratch: str, root: str) -> Any:
    """Return a recording as if the script had worked in its own folder."""
    if isinstance(content, str):
        return content.replace(scratch, root)
    if isinstance(content, dict):
        return {key.replace(scratch, root): _without(value, scratch, root) for key, value in content.items()}
    if isinstance(content, list):
        return [_without(value, scratch, root) for value in content]
    return content


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder without what no script needs.

    :raises ScriptError: it is too large, or cannot be read
    """
    size = count = 0

    def ignore(folder: str, names: list[str]) -> set[str]:
        nonlocal size, count
        left_out = {name for name in names if name in _LEFT_OUT}
        for name in names:
            path = Path(folder, name)
            if name in left_out:
                continue
            if path.is_symlink() and not path.exists():
                left_out.add(name)
            elif path.is_file():
                size, count = size + path.stat().st_size, count + 1
            elif not path.is_dir():
                left_out.add(name)
        if size > _MOST_BYTES or count > _MOST_FILES:
            raise ScriptError(
                f"The folder {source} has more than {_MOST_BYTES // 2**30} GB or {_MOST_FILES} files, and the script "
                "works on a copy of it; name a smaller one with --root."
            )
        return left_out

    try:
        shutil.copytree(source, target, ignore=ignore)
    except (shutil.Error, OSError) as error:
        raise ScriptError(f"The folder {source} cannot be copied: {str(error)[:200]}.") from error
