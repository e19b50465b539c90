"""One start of the container, from the spec to the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import traceback
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from mlflow_projects.public_uri import secrets_in

from .errors import BAD_SPEC, BUG, NOT_STARTED, RunnerError, Stopped, one_line
from .inputs import download
from .output import Output, failure_text
from .packages import install
from .processes import Processes
from .project_archive import unpack
from .secret_values import read_secrets
from .tracking import Tracking

_MAX_ARGUMENT = 120_000  # bytes; Linux takes 128 KiB
_SHOWN = 2_000  # characters of a command


class Job:
    """One start of the container, from the spec to the exit status."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._scratch = base / "mlflow_project"  # on the job's own volume, as all of /opt/ml
        self._failure = base / "output" / "failure"
        self.output = Output()
        self._processes = Processes(self.output)

    def run(self) -> int:
        """Do it all; return the exit status."""
        with contextlib.suppress(OSError):
            self._failure.unlink()  # of the start before this one
        try:
            spec = self._read_spec()
            first, host = self._is_first_host()
            command, environment, tracking = self._prepare(spec, first, host)
            self._processes.interruptible = False  # from here on, a signal is the command's
            status = self._start(command, environment)
        except Stopped:
            status = 128 + self._processes.signal
            return self._failed(status, "The job was stopped before the command began.", ())
        except RunnerError as error:
            return self._failed(error.status, str(error), self.output.tail)
        except Exception as error:
            self.output.note(traceback.format_exc())
            return self._failed(BUG, f"The runner failed: {type(error).__name__}: {one_line(error)}", ())
        if self._processes.stopped and first:
            self._close_run(spec, tracking)
        if status:
            sentence = f"Entry point command failed with exit status {status}."
            return self._failed(status, sentence, self.output.tail)
        return 0

    def _read_spec(self) -> dict[str, Any]:
        try:
            spec = json.loads(Path(sys.argv[0]).with_name("spec.json").read_text(encoding="utf-8"))
            version, command = spec.get("version", 1), spec["command"]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunnerError(BAD_SPEC, f"spec.json cannot be used: {error!r}.") from None
        if version != 1 or not isinstance(command, str):
            raise RunnerError(BAD_SPEC, f"spec.json is of version {version!r}, or its command is no text.")
        return dict(spec)

    def _is_first_host(self) -> tuple[bool, str]:
        """Tell whether this instance owns the MLflow run, and say which one it is."""
        try:
            resources = json.loads((self._base / "input/config/resourceconfig.json").read_text())
            hosts, here = sorted(resources["hosts"]), resources["current_host"]
        except (OSError, ValueError, KeyError, TypeError):
            return True, "the only host"
        return here == hosts[0], f"host {here} of {len(hosts)}"

    def _prepare(self, spec: dict[str, Any], first: bool, host: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """Unpack, resolve, install and download; return the command, its environment, and the true tracking one."""
        shutil.rmtree(str(self._scratch), ignore_errors=True)  # the container may have been started before
        project = self._scratch / "project"
        archive = self._base / "input/data/project/project.tar.gz"
        members = unpack(archive, spec.get("sha256", ""), project)
        self.output.note(f"Unpacked the project ({members} files and folders) on {host}.")

        environment = dict(os.environ)
        environment.update({name: str(value) for name, value in (spec.get("environment") or {}).items()})
        environment.update(read_secrets(spec.get("secret_environment") or {}, self.output))
        environment.setdefault("PYTHONUNBUFFERED", "1")
        for variable, key in (("MLFLOW_RUN_ID", "run_id"), ("MLFLOW_EXPERIMENT_ID", "experiment_id")):
            if spec.get(key):
                environment[variable] = spec[key]
        if (self._base / "checkpoints").is_dir():
            environment["MLFLOW_PROJECTS_CHECKPOINT_DIR"] = str(self._base / "checkpoints")
        if spec.get("install"):
            self.output.note("Installing: " + " ".join(spec["install"]))
            environment.update(
                install(spec["install"], project, self._scratch / "environment", environment, self._processes)
            )
        command = spec["command"]
        for number, wanted in enumerate(spec.get("inputs") or []):
            for secret in [*secrets_in(wanted["uri"]), urllib.parse.urlsplit(wanted["uri"]).query]:  # often signed
                self.output.hide(secret)
            self.output.note("Downloading " + wanted["uri"])
            folder = self._scratch / "inputs" / str(number)
            path = download(wanted["uri"], folder, environment, self._processes)
            command = command.replace(wanted["token"], shlex.quote(path))
        return command, environment if first else self._aside(environment), environment

    def _aside(self, environment: dict[str, str]) -> dict[str, str]:
        """Return an environment in which MLflow logs into a database that nobody keeps."""
        mine = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI"}
        aside = {name: value for name, value in environment.items() if name not in mine}
        aside["MLFLOW_TRACKING_URI"] = f"sqlite:///{self._scratch / 'not_the_first_host.db'}"
        return aside

    def _start(self, command: str, environment: dict[str, str]) -> int:
        shell = shutil.which("bash", path=environment.get("PATH")) or "/bin/sh"
        self.output.note(f"Running: {command[:_SHOWN]}{' ...' if len(command) > _SHOWN else ''}")
        argv = [shell, "-c", command]
        if len(command.encode()) > _MAX_ARGUMENT:  # parameters of any size: the shell reads them from a file
            script = self._scratch / "command.sh"
            script.write_text(command, encoding="utf-8")
            argv = [shell, str(script)]
        try:
            return self._processes.run(argv, self._scratch / "project", environment)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise RunnerError(NOT_STARTED, f"The command cannot be started: {reason}.") from None

    def _close_run(self, spec: dict[str, Any], environment: dict[str, str]) -> None:
        """Correct the run's status, if a server can be asked; the worker does the same later, more slowly."""
        run_id, uri = environment.get("MLFLOW_RUN_ID"), environment.get("MLFLOW_TRACKING_URI", "")
        if not run_id or not uri.startswith(("http://", "https://")):
            return
        try:
            status = Tracking(environment).close_stopped(run_id, bool(spec.get("restarts")))
        except Exception as error:  # whatever it is, the command's own end must be told
            self.output.note(f"The MLflow run's status cannot be set: {one_line(error)}")
        else:
            if status:
                self.output.note(f"The job was stopped; the MLflow run is set to {status}.")

    def _failed(self, status: int, sentence: str, lines: Iterable[str]) -> int:
        self._processes.interruptible = False
        sentence = self.output.mask(sentence)
        self.output.note(sentence)
        with contextlib.suppress(OSError):
            self._failure.parent.mkdir(parents=True, exist_ok=True)
            self._failure.write_bytes(failure_text(sentence, lines))
        return status


def main() -> NoReturn:
    """Run the job below the folder that SageMaker makes for it."""
    status = Job(Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")).run()
    os._exit(status)  # at a plain end, a closed standard output would change the status
