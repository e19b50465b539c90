"""A durable backend of another package, explained in docs/backends.md: jobs are processes that outlive their task."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mlflow_projects.backends.contract import (
    DurableBackend,
DurableLaunch,
    Handle,
    Job,
    JobStatus,
    Launch,
    News,
    OpenRun,
    Running,
)  # fmt: skip
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command

_SECONDS = 3600.0
_PASSED = ("PATH", "HOME", "LANG")
_SCRIPT = """
echo $$ >"$0/pid.new" && mv "$0/pid.new" "$0/pid"
nice -n "$1" bash "$0/command.sh" >"$0/output" 2>&1
echo $? >"$0/code.new" && mv "$0/code.new" "$0/code"
"""


@dataclass(frozen=True)
class ToyHandle(Handle):
    """What identifies a job: its folder. Everything else is found there."""

    folder: str
    submitted: float


class ToyBackend(DurableBackend):
    """Runs a command in a session of its own; ``backend_config``: ``toy_folder``, where jobs live."""

    config_keys: ClassVar = ("toy_folder", "toy_nice")
    link_names: ClassVar = ("Toy job",)
    handle_type: ClassVar = ToyHandle

    def prepare(self, job: Job) -> Launch:
        folder, nice = Path(str(job.config.get("toy_folder") or "")), str(job.config.get("toy_nice", 0))
        if not folder.is_absolute():
            raise ProjectError("backend_config: the toy backend needs 'toy_folder', an absolute path.")
        if not nice.isdigit() or int(nice) > 19:
            raise ProjectError(f"backend_config: 'toy_nice' must be a number from 0 to 19, not {nice!r}.")
        handle = ToyHandle("toy", str(folder / job.attempt_id), round(time.time(), 3))
        return ToyLaunch(job, handle, int(nice))

    def attach(self, handle: ToyHandle) -> ToyJob:
        return ToyJob(Path(handle.folder), self.host.poll_interval)

    def exists(self, handle: ToyHandle) -> bool:
        return (Path(handle.folder) / "pid").exists()

    def stop(self, handle: ToyHandle) -> None:
        self.attach(handle).cancel()

    def deadline(self, handle: ToyHandle) -> float:
        return handle.submitted + _SECONDS

    def links(self, handle: ToyHandle) -> Mapping[str, str]:
        return {"Toy job": Path(handle.folder).as_uri()}

    def poll_many(self, handles: Sequence[ToyHandle]) -> Sequence[News]:
        return [News(ended=self.attach(handle).status().state != "running") for handle in handles]


@dataclass
class ToyLaunch(DurableLaunch):
    job: Job
    handle: ToyHandle
    nice: int

    def __post_init__(self) -> None:
        self.tags = {"mlflow.project.env": "local"}
        self.job_tags = {"toy.folder": self.handle.folder}

    def identity(self) -> Mapping[str, Any]:
        return {"nice": self.nice}

    def postponed(self) -> ToyLaunch:
        return replace(self, handle=replace(self.handle, submitted=round(time.time(), 3)))

    def start(self, run: OpenRun, begun: Callable[[Running], None]) -> Running:
        job, folder = self.job, Path(self.handle.folder)
        command = build_command(job.project, job.entry_point, job.parameters, lambda uri, folder: uri)
        folder.mkdir(parents=True)
        (folder / "command.sh").write_text(command)
        running = ToyJob(folder, 0.2)
        begun(running)  # before there is a process: a task that is stopped now starts none
        own = {name: os.environ[name] for name in _PASSED if name in os.environ}
        subprocess.Popen(
            ["bash", "-c", _SCRIPT, str(folder), str(self.nice)], cwd=job.project.root, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, env={**own, **job.variables, **run.variables}, start_new_session=True,
        )  # fmt: skip
        while not (folder / "pid").exists():
            time.sleep(0.01)
        return running


@dataclass
class ToyJob(Running):
    folder: Path
    poll_interval: float

    def lines(self) -> Iterator[str]:
        position, ended = 0, False
        while not ended:
            ended = self.status().state != "running"  # first: what is written after this look is read in the next
            with contextlib.suppress(FileNotFoundError), (self.folder / "output").open("rb") as file:
                file.seek(position)
                for line in file:
                    if line.endswith(b"\n") or ended:
                        position += len(line)
                        yield line.decode(errors="replace").rstrip("\n")
            if not ended:
                time.sleep(self.poll_interval)

    def status(self) -> JobStatus:
        with contextlib.suppress(FileNotFoundError):
            code = int((self.folder / "code").read_text())
            return JobStatus("succeeded", 0) if code == 0 else JobStatus("failed", code, f"exit status {code}")
        return JobStatus("running") if self._is_alive() else JobStatus("stopped", None, "it was stopped")

    def cancel(self) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((self.folder / "pid").read_text()), signal.SIGKILL)

    def last_lines(self, count: int) -> list[str]:
        return (self.folder / "output").read_text(errors="replace").splitlines()[-count:]

    def _is_alive(self) -> bool:
        with contextlib.suppress(OSError):
            process = Path("/proc", (self.folder / "pid").read_text().strip(), "stat")
            return process.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
        return False
