"""The life of an attempt: resolve, check, open the run, submit, watch, close.

One attempt is one try of an Airflow task and one MLflow run. Whatever ends the attempt, the run is
closed with what really happened; the exit status of the command decides, not what the project wrote.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlflow_projects.attempt.causes import cause_of_error
from mlflow_projects.attempt.checkpoint import (
    DEFAULT_DAYS,
    VARIABLE,
    Checkpoint,
    CheckpointSettings,
    kept_checkpoint,
)
from mlflow_projects.attempt.outcome import disk_in_words, outcome_of, tail_of
from mlflow_projects.attempt.output_log import kept_output
from mlflow_projects.attempt.reuse import Reuse
from mlflow_projects.attempt.step import Result, Step, run_variables
from mlflow_projects.attempt.stopping import AttemptKilledError, Stoppable
from mlflow_projects.backends.contract import DurableLaunch, Handle, Host, Job, JobStatus, OpenRun, Running
from mlflow_projects.backends.registry import backend_class, backend_of, check_config_keys, is_durable
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import check_parameters
from mlflow_projects.project.fetch import FetchedProject, fetch
from mlflow_projects.public_uri import public_text, public_uri
from mlflow_projects.tracking.answers import json_texts
from mlflow_projects.tracking.client import Run, TrackingClient
from mlflow_projects.tracking.record import MAX_PARAM, MAX_RUN_NAME, Outcome, RunRecord, SourceTags, TaskIdentity
from mlflow_projects.tracking.reuse_key import completion_tags
from mlflow_projects.tracking.tags import JOB, PARAMETERS, REASON

_TAIL_LINES = 20
_CANCEL_SECONDS = 60.0
_KILLED_SECONDS = 4.0  # Airflow gives a task that it stops 5 s
_FIRST_NOT_ITS_OWN = 126  # the shell's: could not start it, or a signal ended it


@dataclass
class Attempt(Stoppable):
    """One try of a step.

    :param log: takes the lines of the command's output, and ours
    :param redact: replaces known secrets in a text
    :param on_open: called once the MLflow run is open, with the handle of the durable job, if there will be one
    :param checkpoints: where a step keeps what its next attempt needs; None: nowhere
    :param reuse: how an earlier result may be taken over; None: the step always runs
    """

    step: Step
    task: TaskIdentity
    client: TrackingClient
    cache: Cache
    log: Callable[[str], None]
    redact: Callable[[str], str]
    on_open: Callable[[Run, Handle | None], None]
    aws_conn_id: str | None = None
    poll_interval: float = 10.0
    checkpoints: CheckpointSettings | None = None
    reuse: Reuse | None = None
    _running: Running | None = None
    _checkpoint: Checkpoint | None = None

    def run(self) -> Result:
        """Live the whole life; the run is FINISHED at the end.

        :raises ProjectError: the step is defined wrongly; another try cannot help
        :raises StepFailedError: the command failed
        :raises AttemptKilledError: :meth:`kill` was called
        :raises TrackingError: the record cannot be written
        """
        with self._started() as (record, started):
            return started if started.original else self._follow(record)

    def start(self) -> Result:
        """Live the life up to the submission of a durable job."""
        with self._started() as (_, started):
            return started

    def attach(self, run: Run, handle: Handle) -> Result:
        """Follow the job that an earlier try submitted, to the end of the same run."""
        return self._follow(self._resumed(run, handle))

    def conclude(self, run: Run, handle: Handle) -> Result:
        """Close the run of a job that somebody else watched to its end."""
        record = self._resumed(run, handle)
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with self._closing(record, tail):
            assert self._running is not None
            tail.extend(self._running.last_lines(_TAIL_LINES))
            outcome = self._judge(record, tail)
        return self._end(record, outcome)

    @contextlib.contextmanager
    def _started(self) -> Iterator[tuple[RunRecord, Result]]:
        """Resolve, check, open the run, submit; the private files are there during the block."""
        step = self.step
        refused = SourceTags(name=step.uri, entry_point=step.entry_point, backend=step.backend)
        with contextlib.ExitStack() as stack:
            try:
                with disk_in_words(self.cache.root):
                    source, job = self._checked(stack.enter_context(self.cache.workspace()))
                    launch = backend_class(step.backend)(self._host).prepare(job)
                    folder = None if is_durable(step.backend) else stack.enter_context(self._kept_checkpoint(job))
                if self.reuse:
                    with self.interruptible():
                        self.reuse.identify(launch, step.backend, job, step.git_trusted_dirs)
            except (ProjectError, StepFailedError) as error:
                self._record_unstarted(refused, self._failed(error))
                raise
            except BaseException as error:  # killed, timed out, Ctrl-C
                self._record_unstarted(refused, self._killed_by(error))
                raise
            tags = {**launch.tags, **(self.reuse.tags() if self.reuse else {})}
            waits = bool(self.reuse and self.reuse.wait)
            record = self._record(source, job.parameters.as_record(), tags)
            original = self._earlier(record)
            handle = launch.handle if isinstance(launch, DurableLaunch) else None
            if isinstance(launch, DurableLaunch) and not (original or waits):  # else nothing of the job is true yet
                record.more_tags = {**_job_tags(launch), **record.more_tags}
            run = record.open()
            # To tell of the run takes requests, during which a command on this machine can already begin.
            starts_first = launch.starts_at_once and not (original or waits)
            if not starts_first:
                self.on_open(run, None if original or waits else handle)
            with self._closing(record):
                if self.reuse and waits and not original:
                    original = self.reuse.settle(record, self.interruptible)
                    if isinstance(launch, DurableLaunch) and not original:
                        launch = launch.postponed()
                        handle = launch.handle
                        self.client.log_batch(run.run_id, tags=_job_tags(launch))
                        self.on_open(run, handle)
                if self.reuse and original:
                    self.reuse.take_over(record, original)
                else:
                    try:
                        with self.interruptible():
                            self._running = launch.start(self._open_run(run, folder), self._begun)
                    finally:
                        if starts_first:
                            self.on_open(run, None)
                    if self.is_stopped:  # before the job was there
                        self._running.cancel()
            yield record, Result(run, original, None if original else handle)

    def _begun(self, running: Running) -> None:
        """From here on, :meth:`kill` stops the job: a request may be on its way."""
        self._running = running
        self.check_not_stopped()

    def _earlier(self, record: RunRecord) -> Run | None:
        """Return an earlier run whose result may be taken over."""
        if self.reuse is None:
            return None
        with self.interruptible():
            return self.reuse.find(record)

    @property
    def _host(self) -> Host:
        return Host(self.log, self.aws_conn_id, self.poll_interval)

    def _checked(self, workspace: Path) -> tuple[SourceTags, Job]:
        """Fetch the project and check everything that can be checked before anything is started."""
        step = self.step
        backend_class(step.backend)
        check_config_keys(step.backend_config)
        RunRecord.check_name(step.run_name)
        with self.interruptible():
            access = step.git_credentials, step.bundle, step.git_trusted_dirs
            fetched = fetch(step.uri, step.version, self.cache, workspace, *access)
        entry_point = fetched.project.entry_point(step.entry_point)
        job = Job(
            project=fetched.project,
            entry_point=entry_point,
            parameters=check_parameters(fetched.project, entry_point, step.parameters),
            variables=self.client.settings.environment(),
            workspace=workspace,
            cache=self.cache,
            env_manager=step.env_manager,
            config=step.backend_config,
            label=f"{self.task.dag_id}-{step.run_name}",
            attempt_id=self.task.attempt_id,
            task_key=self.task.key,
            checkpoint_days=self.checkpoints.days if self.checkpoints else DEFAULT_DAYS,
            redact=self.redact,
        )
        for name, value in job.parameters.as_record().items():
            if len(value) > MAX_PARAM:
                self.log(f"Parameter {name!r} has {len(value)} characters; MLflow records the first {MAX_PARAM}.")
        return self._source_tags(fetched), job

    @contextlib.contextmanager
    def _kept_checkpoint(self, job: Job) -> Iterator[Path | None]:
        """Yield the command's checkpoint folder; after the block, what is in it is safe."""
        if self.checkpoints is None:
            yield None
            return
        with contextlib.ExitStack() as stack:
            with self.interruptible():
                kept = kept_checkpoint(self.checkpoints, job.task_key, job.workspace, self.aws_conn_id, self.log)
                self._checkpoint = stack.enter_context(kept)
            yield self._checkpoint.folder

    def _open_run(self, run: Run, checkpoint: Path | None) -> OpenRun:
        variables = run_variables(run, self.task, system_metrics=self.step.system_metrics)
        if checkpoint:
            variables[VARIABLE] = str(checkpoint)
        return OpenRun(variables, run.artifact_uri, checkpoint)

    def kill(self) -> None:
        """Stop the attempt; called from a signal handler, so it only asks and returns.

        While the command runs, :meth:`run` notices its end. While files are fetched or an environment is
        built, the exception ends that at once. In the short moments of writing the record nothing is
        interrupted.
        """
        if self._running:
            self._killed = True
            self._running.cancel()
        else:
            super().kill()

    def expire(self) -> bool:
        """Stop the attempt because its time is over; see :meth:`Stoppable.expire`."""
        if self._running:
            self._running.cancel()
        return super().expire()

    @contextlib.contextmanager
    def _closing(self, record: RunRecord, tail: Sequence[str] = ()) -> Iterator[None]:
        """Close the record if the block fails, whatever the reason is."""
        try:
            yield
        except (ProjectError, StepFailedError) as error:
            # A job whose creation was never answered may be there; with a ProjectError, it is not ours.
            if isinstance(error, StepFailedError) and self._running:
                self._running.cancel()
            record.close(self._failed(error))
            raise
        except BaseException as error:  # also Airflow's time-out and Ctrl-C: the record comes first
            if self._running:
                self._running.cancel()
            with contextlib.suppress(TrackingError, ProjectError):
                record.close(self._killed_by(error, tail_of(tail, self._shown)))
            raise
        finally:
            if self._running:
                self._running.finish_cancel(_KILLED_SECONDS if self._killed else _CANCEL_SECONDS)

    def _follow(self, record: RunRecord) -> Result:
        """Stream the output to the job's end, then close the record."""
        assert self._running is not None
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with kept_output(record, self.task, self._wants_output, self._shown, self.log) as keep:
            with self._closing(record, tail):
                for line in self._running.lines():
                    self.log(line)
                    tail.append(line)
                    keep(line)
                outcome = self._judge(record, tail)
            return self._end(record, outcome)

    def _wants_output(self) -> bool:
        return self.step.log_output and not self.is_stopped

    def _judge(self, record: RunRecord, tail: Sequence[str]) -> Outcome:
        """Ask for the job's verdict, when it is over."""
        assert self._running is not None
        status = self._running.status()
        if status.state == "running":
            self._running.cancel()
        stopped = self.why_stopped if self.is_stopped else ""
        problem = partial(self._store_problem, record, status, tail)
        return outcome_of(
            self.step,
            status,
            tail,
            self._shown,
            stopped=stopped,
            cause_when_stopped=self.cause,
            store_problem=problem,
        )

    def _store_problem(self, record: RunRecord, status: JobStatus, tail: Sequence[str]) -> str:
        """Look where the command's artifacts go; not for a job elsewhere (other keys) or a command that never ran."""
        assert record.run is not None
        if is_durable(self.step.backend) or status.exit_code is None or status.exit_code >= _FIRST_NOT_ITS_OWN:
            return ""
        from mlflow_projects.tracking.artifact_store import explain_failure

        return explain_failure(self.client, record.run, "\n".join(tail))

    def _end(self, record: RunRecord, outcome: Outcome) -> Result:
        run = record.close(outcome)
        if run.status != outcome.status:
            raise AttemptKilledError(f"given up before its command ended: {run.tags[REASON]}")
        if self.is_stopped and outcome.status == "KILLED":
            raise AttemptKilledError(outcome.reason, self.cause)
        if outcome.status != "FINISHED":
            raise StepFailedError(
                outcome.reason,
                exit_code=outcome.exit_code,
                status=outcome.status,
                cause=outcome.cause or "unknown",
                is_final=outcome.exit_code in self.step.fail_on_exit_code,
            )
        self._clear_checkpoint()
        return Result(run, skipped=outcome.reason)

    def _clear_checkpoint(self) -> None:
        """Remove what only another attempt would have needed."""
        assert self._running is not None
        try:
            if self._checkpoint:
                self._checkpoint.clear()
            self._running.clear_checkpoint()
        except (StepFailedError, OSError) as error:
            self.log(f"The checkpoint stays, until it is old: {error}")

    def _resumed(self, run: Run, handle: Handle) -> RunRecord:
        """Take up the record of a job that was submitted before, by another process."""
        self._running = backend_of(handle, self._host).attach(handle)
        parameters = json_texts(run.tags.get(PARAMETERS))
        if parameters is None:  # the tag is cut where it is too long
            passed = {key: str(value) for key, value in self.step.parameters.items()}
            parameters = dict(self._running.parameters()) or passed
        record = self._record(SourceTags(name=self.step.uri), parameters, {})
        record.run = run
        return record

    def _record(
        self, source: SourceTags, parameters: Mapping[str, str], tags: Mapping[str, str] | None = None
    ) -> RunRecord:
        return RunRecord(
            client=self.client,
            experiment_id=self.step.experiment_id,
            name=self._shown(self.step.run_name),
            task=self.task,
            source=source,
            parent_run_id=self.step.parent_run_id,
            supersedes=self.step.supersedes,
            parameters={key: self._shown(value) for key, value in parameters.items()},
            more_tags={key: self._shown(value) for key, value in {**(tags or {}), **self.step.tags}.items()},
            success_tags=lambda run: completion_tags(self.client, run),
            log=self.log,
        )

    def _record_unstarted(self, source: SourceTags, outcome: Outcome) -> None:
        """Leave a closed run that says why nothing was started; the tree shows the attempt all the same."""
        record = self._record(replace(source, name=self._shown(public_uri(source.name))), {})
        record.name = record.name[:MAX_RUN_NAME]
        try:
            self.on_open(record.open(), None)
            record.close(outcome)
        except (TrackingError, ProjectError) as error:
            self.log(f"The end of this attempt could not be recorded in MLflow: {error}")

    def _source_tags(self, fetched: FetchedProject) -> SourceTags:
        source = replace(fetched.source, name=self._shown(fetched.source.name))
        return SourceTags(**vars(source), entry_point=self.step.entry_point, backend=self.step.backend)

    def _shown(self, text: str) -> str:
        """Return a text as everybody may see it."""
        return public_text(self.redact(text))

    def _failed(self, error: ProjectError | StepFailedError) -> Outcome:
        return Outcome("FAILED", self._shown(str(error)), cause=cause_of_error(error))

    def _killed_by(self, error: BaseException, tail: str = "") -> Outcome:
        reason = self._shown(f"stopped: {type(error).__name__} {error}".strip())
        cause = self.cause if self.is_stopped else cause_of_error(error)
        return Outcome("KILLED", reason, tail, cause="unknown" if cause == "user_error" else cause)


def _job_tags(launch: DurableLaunch) -> dict[str, str]:
    return {JOB: json.dumps(launch.handle.as_json()), **launch.job_tags}
