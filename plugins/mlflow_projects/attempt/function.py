"""The life of an attempt that calls a Python function, in this very process.

The run is opened before the call and closed after it, truthfully, whatever ends the call: it returns, raises, is
stopped by Airflow, or runs out of time.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from mlflow_projects.attempt.active_run import active_run, send_what_waits
from mlflow_projects.attempt.causes import cause_of_error
from mlflow_projects.attempt.outcome import tail_of
from mlflow_projects.attempt.step import run_variables
from mlflow_projects.attempt.stopping import AttemptKilledError, Stoppable
from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.public_uri import public_text
from mlflow_projects.tracking.client import Run, TrackingClient
from mlflow_projects.tracking.record import Outcome, RunRecord, TaskIdentity
from mlflow_projects.tracking.tags import REASON

_TAIL_LINES = 20
_PLUMBING = {"mlflow_projects", "airflow", "asyncio"}  # not by folder: a DAG may be in /opt/airflow/dags
_SAID = 1000  # characters of an error's own words
Value = TypeVar("Value")


@dataclass
class FunctionAttempt(Stoppable):
    """One try of a task that calls a function.

    :param log: takes lines of ours
    :param redact: replaces known secrets in a text
    :param system_metrics: whether MLflow measures the machine meanwhile
    :param skips: exceptions by which a function says that there is nothing to do
    :ivar run: open; the function logs to it
    :ivar record: of the run, to be closed with the function's end; None: the run is somebody else's
    """

    client: TrackingClient
    task: TaskIdentity
    log: Callable[[str], None]
    redact: Callable[[str], str]
    skips: Collection[type[BaseException]] = ()
    system_metrics: bool = False
    run: Run | None = field(default=None, init=False)
    record: RunRecord | None = field(default=None, init=False)
    finished: Run | None = field(default=None, init=False)

    def call(self, open_run: Callable[[], Run], function: Callable[[], Value]) -> Value:
        """Call the function; return what it returns.

        :param open_run: sets ``run``, and ``record``; a stop meanwhile interrupts nothing, and counts after it
        :raises AttemptKilledError: it was stopped
        :raises BaseException: what the function raises
        """
        try:
            run = open_run()
            with active_run(run.run_id, self._variables(run)), self.interruptible():
                try:
                    value = function()
                finally:
                    if not self.is_stopped:  # then there is no time
                        send_what_waits()
            self.check_not_stopped()  # the function may have swallowed the exception
        except tuple(self.skips) as error:
            if not self.is_stopped:
                self._close(Outcome("FINISHED", self._shown(f"skipped: {_words(error)}".rstrip(": "))))
                raise
            with contextlib.suppress(TrackingError, ProjectError):
                self._close(self._failure(error))
            self.check_not_stopped()  # the function made a skip of the stop
        except BaseException as error:
            with contextlib.suppress(TrackingError, ProjectError):  # what the function says comes first
                self._close(self._failure(error))
            raise
        self._close(Outcome("FINISHED"))
        if self.finished and self.finished.status != "FINISHED":
            raise AttemptKilledError(f"given up before its function ended: {self.finished.tags[REASON]}")
        return value

    def close_as_stopped(self) -> None:
        """Write that the attempt was stopped, while the function does not end; called from another thread."""
        self._killed = True  # its handler may never get its turn
        with contextlib.suppress(TrackingError, ProjectError):
            self._close(Outcome("KILLED", f"{self.why_stopped}; the function did not end in time", cause=self.cause))

    def _variables(self, run: Run) -> Mapping[str, str]:
        own = run_variables(run, self.task, system_metrics=self.system_metrics)
        return {**self.client.settings.environment(), **own}

    def _failure(self, error: BaseException) -> Outcome:
        if self.is_stopped:
            return Outcome("KILLED", self.why_stopped, cause=self.cause)
        said = self._shown(f"{type(error).__name__}: {_words(error)}".strip(": ")[:_SAID])
        if not isinstance(error, Exception | SystemExit):  # Ctrl-C, or Airflow's time-out
            return Outcome("KILLED", f"stopped: {said}", cause=cause_of_error(error))
        lines = "".join(traceback.format_exception(type(error), error, _own(error.__traceback__))).splitlines()
        return Outcome("FAILED", said, tail_of(lines[-_TAIL_LINES:], self._shown), cause=cause_of_error(error))

    def _close(self, outcome: Outcome) -> None:
        if self.record and self.record.run:
            self.finished = self.record.close(outcome)
        elif self.run:
            self._leave_open(self.run)

    def _leave_open(self, before: Run) -> None:
        """Take back what MLflow wrote of the run's status when it became active, or was left."""
        now = self.client.get_run(before.run_id)
        if now.status != before.status and now.tags.get(REASON) == before.tags.get(REASON):
            self.client.update_run(before.run_id, before.status, before.end_time)

    def _shown(self, text: str) -> str:
        return public_text(self.redact(text))


def _words(error: BaseException) -> str:
    """Return what an error says, "" if it cannot say it: its class has an error of its own."""
    try:
        return str(error)
    except Exception:
        return ""


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Leave out how the function came to be called."""
    while trace and trace.tb_next and _package(trace) in _PLUMBING:
        trace = trace.tb_next
    return trace


def _package(trace: TracebackType) -> str:
    return str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
