"""The life of an attempt: resolve, check, open the run, submit, watch, close.

One attempt is one try of an Airflow task and one MLflow run. Whatever ends the attempt, the run is
closed with what really happened; the exit status of the command decides, not what the project wrote.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlflow_projects.backends.base import Backend, Handle, Job, backend_named
from mlflow_projects.backends.environments import choose_env_manager
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.fetch import FetchedProject, Source, fetch
from mlflow_projects.project.repository import GitCredentials
from mlflow_projects.tracking.client import Run, TrackingClient
from mlflow_projects.tracking.record import MAX_PARAM, Outcome, RunRecord, SourceTags, TaskIdentity

_TAIL_LINES = 20
_TAIL_CHARACTERS = 4000


class AttemptKilledError(Exception):
    """Airflow asked the task to stop."""


@dataclass(frozen=True)
class Step:
    """What to run, all templates rendered.

    :param parent_run_id: the MLflow run to nest below, if any
    :param supersedes: the MLflow run of the try before this one, if any
    :param experiment_id: where the attempt's run goes
    """

    uri: str
    entry_point: str
    version: str | None
    parameters: Mapping[str, Any]
    backend: str
    backend_config: Mapping[str, Any]
    env_manager: str | None
    run_name: str
    experiment_id: str
    parent_run_id: str | None
    supersedes: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    git_credentials: GitCredentials | None = None


@dataclass
class Attempt:
    """One try of a step.

    :param log: takes the lines of the command's output, and ours
    :param redact: replaces known secrets in a text
    :param on_open: called once the MLflow run is open
    """

    step: Step
    task: TaskIdentity
    client: TrackingClient
    cache: Cache
    log: Callable[[str], None]
    redact: Callable[[str], str]
    on_open: Callable[[Run], None]
    _killed: bool = False
    _may_raise: bool = False
    _backend: Backend | None = None
    _handle: Handle | None = None

    def run(self) -> Run:
        """Live the whole life and return the run as it was at the end, FINISHED.

        :raises ProjectError: the step is defined wrongly; another try cannot help
        :raises StepFailedError: the command failed
        :raises AttemptKilledError: :meth:`kill` was called
        :raises TrackingError: the record cannot be written
        """
        refused = SourceTags(name=self.step.uri, entry_point=self.step.entry_point, backend=self.step.backend)
        with contextlib.ExitStack() as stack:
            try:
                self._backend = backend_named(self.step.backend, self.log)
                source, job = self._prepare(self._backend, stack.enter_context(self.cache.workspace()))
            except ProjectError as error:
                self._record_unstarted(refused, Outcome("FAILED", self.redact(str(error))))
                raise
            except BaseException as error:  # killed, timed out, Ctrl-C
                self._record_unstarted(refused, Outcome("KILLED", self._reason(error)))
                raise
            record = self._record(source, job.parameters.as_record())
            run = record.open()
            self.on_open(run)
            return self._finish(record, replace(job, environment=self._environment(run)))

    def _prepare(self, backend: Backend, workspace: Path) -> tuple[SourceTags, Job]:
        """Fetch the project and check everything that can be checked before anything is started."""
        step = self.step
        with self._interruptible():
            fetched = fetch(step.uri, step.version, self.cache, workspace, step.git_credentials)
        entry_point = fetched.project.entry_point(step.entry_point)
        job = Job(
            project=fetched.project,
            entry_point=entry_point,
            parameters=check_parameters(fetched.project, entry_point, step.parameters),
            environment={},
            workspace=workspace,
            cache=self.cache,
            env_manager=step.env_manager,
            config=step.backend_config,
        )
        backend.check(job)
        for name, value in job.parameters.as_record().items():
            if len(value) > MAX_PARAM:
                self.log(f"Parameter {name!r} has {len(value)} characters; MLflow records the first {MAX_PARAM}.")
        return self._source_tags(fetched), job

    def kill(self) -> None:
        """Stop the attempt; called from a signal handler, so it only asks and returns.

        While the command runs, :meth:`run` notices its end. While files are fetched or an environment is
        built, the exception ends that at once. In the short moments of writing the record nothing is
        interrupted, because half a request would leave a run that nobody knows of.
        """
        self._killed = True
        if self._backend and self._handle:
            self._backend.cancel(self._handle)
        elif self._may_raise:
            raise AttemptKilledError("stopped by Airflow")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        if self._killed:
            raise AttemptKilledError("stopped by Airflow")
        self._may_raise = True
        try:
            yield
        finally:
            self._may_raise = False

    def _finish(self, record: RunRecord, job: Job) -> Run:
        """Run the command and close the record, whatever happens in between."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            outcome = self._work(job, tail)
        except ProjectError as error:
            record.close(Outcome("FAILED", str(error)))
            raise
        except StepFailedError as error:
            record.close(Outcome("FAILED", str(error)))
            raise
        except BaseException as error:  # also Airflow's time-out and Ctrl-C: the record comes first
            with contextlib.suppress(TrackingError):
                record.close(Outcome("KILLED", self._reason(error), self._text(tail)))
            raise
        run = record.close(outcome)
        if outcome.status == "KILLED":
            raise AttemptKilledError(outcome.reason)
        if outcome.status == "FAILED":
            raise StepFailedError(outcome.reason)
        return run

    def _work(self, job: Job, tail: deque[str]) -> Outcome:
        assert self._backend is not None
        with self._interruptible():
            self._handle = self._backend.submit(job)
        if self._killed:  # between the start and the assignment
            self._backend.cancel(self._handle)
        for line in self._backend.logs(self._handle):
            self.log(line)
            tail.append(line)
        status = self._backend.poll(self._handle)
        if self._killed:
            return Outcome("KILLED", "stopped by Airflow", self._text(tail), status.exit_code)
        if status.state == "succeeded":
            return Outcome("FINISHED")
        reason = f"Entry point {job.entry_point.name!r} of {self.step.uri} failed: {status.reason}."
        return Outcome("FAILED", self.redact(reason), self._text(tail), status.exit_code)

    def _record(self, source: SourceTags, parameters: Mapping[str, str]) -> RunRecord:
        return RunRecord(
            client=self.client,
            experiment_id=self.step.experiment_id,
            name=self.step.run_name,
            task=self.task,
            source=source,
            parent_run_id=self.step.parent_run_id,
            supersedes=self.step.supersedes,
            parameters={key: self.redact(value) for key, value in parameters.items()},
            more_tags=self.step.tags,
        )

    def _record_unstarted(self, source: SourceTags, outcome: Outcome) -> None:
        """Leave a closed run that says why nothing was started; the tree shows the attempt all the same."""
        record = self._record(replace(source, name=self.redact(source.name)), {})
        try:
            self.on_open(record.open())
            record.close(outcome)
        except TrackingError as error:
            self.log(f"The end of this attempt could not be recorded in MLflow: {error}")

    def _source_tags(self, fetched: FetchedProject) -> SourceTags:
        source: Source = fetched.source
        return SourceTags(
            name=self.redact(source.name),
            entry_point=self.step.entry_point,
            backend=self.step.backend,
            environment=choose_env_manager(fetched.project, self.step.env_manager),
            commit=source.commit,
            branch=source.branch,
            repo_url=source.repo_url,
            changed=source.changed,
            sha256=source.sha256,
        )

    def _environment(self, run: Run) -> dict[str, str]:
        return {
            **self.client.settings.environment(),
            "MLFLOW_RUN_ID": run.run_id,
            "MLFLOW_EXPERIMENT_ID": run.experiment_id,
        }

    def _reason(self, error: BaseException) -> str:
        return self.redact(f"stopped: {type(error).__name__} {error}".strip())

    def _text(self, tail: deque[str]) -> str:
        return self.redact("\n".join(tail))[-_TAIL_CHARACTERS:]
