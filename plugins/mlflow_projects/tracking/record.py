"""An attempt's MLflow run: opened once, closed truthfully, found again.

Seven kinds make a record complete: code version, start and end time, source, tags, parameters, metrics
and artifacts. The project itself logs metrics and artifacts; the rest is written here.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import OPEN_STATUSES, Run, RunStatus, TrackingClient, quoted

# MLflow's own tags (mlflow.utils.mlflow_tags); an unset one is left out.
PARENT_RUN_ID = "mlflow.parentRunId"
# Ours: which Airflow task instance a run belongs to …
DAG_ID = "airflow.dag_id"
DAG_RUN_ID = "airflow.run_id"
TASK_ID = "airflow.task_id"
MAP_INDEX = "airflow.map_index"
TRY_NUMBER = "airflow.try_number"
LOGICAL_DATE = "airflow.logical_date"
TASK_URL = "airflow.task_url"
# … and what else there is to know about the attempt.
ATTEMPT_ID = "mlflow_projects.attempt_id"
ROLE = "mlflow_projects.role"
PARAMETERS = "mlflow_projects.parameters"
REASON = "mlflow_projects.reason"
OUTPUT_TAIL = "mlflow_projects.output_tail"
EXIT_CODE = "mlflow_projects.exit_code"
SUPERSEDES = "mlflow_projects.supersedes"
# The handle (JSON) of the job outside, if there is one, so that whoever closes the run can stop it …
JOB = "mlflow_projects.job"
# … and the tries that watched it in turn, if a worker was lost meanwhile.
TRIES = "mlflow_projects.tries"
# The run whose result this one is, if nothing was started.
REUSED_FROM = "mlflow_projects.reused_from"

# A filter in MLflow's search language: runs that have not ended.
NOT_CLOSED = " and ".join(f"attributes.status != '{status}'" for status in ("FINISHED", "FAILED", "KILLED"))

StopJob = Callable[[Run], None]

_MAX_TAG = 8000
MAX_PARAM = 6000
_CREATE_TRIES = 3


@dataclass(frozen=True)
class TaskIdentity:
    """The Airflow task instance behind a run.

    :param attempt_id: unique for each try (Airflow gives each try a new task instance id)
    :param map_index: -1 for a task that is not mapped
    :param logical_date: ISO 8601, "" where the DAG run has none
    :param url: the task instance's page
    """

    dag_id: str
    run_id: str
    task_id: str
    try_number: int
    attempt_id: str
    map_index: int = -1
    logical_date: str = ""
    url: str = ""

    @property
    def key(self) -> str:
        """Return a name for the task instance, the same for all its tries; unique, and safe as a file name."""
        names = [self.dag_id, self.run_id, self.task_id, str(self.map_index)]
        shown = re.sub(r"[^a-zA-Z0-9]+", "-", f"{self.dag_id}-{self.task_id}")[:80].strip("-")
        return f"{shown}-{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]}"

    def tags(self) -> dict[str, str]:
        """Return the tags that lead from the run back to the task instance."""
        return {
            DAG_ID: self.dag_id,
            DAG_RUN_ID: self.run_id,
            TASK_ID: self.task_id,
            MAP_INDEX: str(self.map_index),
            TRY_NUMBER: str(self.try_number),
            LOGICAL_DATE: self.logical_date,
            TASK_URL: self.url,
            ATTEMPT_ID: self.attempt_id,
            "mlflow.note.content": (
                f"[Airflow task {self.task_id}, DAG run {self.run_id}, try {self.try_number}]({self.url})"
                if self.url
                else ""
            ),
        }


@dataclass(frozen=True)
class SourceTags:
    """What a run says of its code.

    :param name: URI of the project, or the DAG file's path
    :param kind: MLflow's source type: PROJECT, or JOB for the parent run
    :param backend: where the command runs
    """

    name: str
    kind: str = "PROJECT"
    entry_point: str = ""
    backend: str = ""
    commit: str | None = None
    branch: str | None = None
    repo_url: str | None = None
    changed: bool = False
    sha256: str | None = None

    def tags(self) -> dict[str, str]:
        """Return MLflow's own source and project tags."""
        return {
            "mlflow.source.name": self.name,
            "mlflow.source.type": self.kind,
            "mlflow.source.git.commit": self.commit or "",
            "mlflow.source.git.branch": self.branch or "",
            "mlflow.source.git.repoURL": self.repo_url or "",
            "mlflow.source.git.dirty": "true" if self.changed else "",
            "mlflow.project.entryPoint": self.entry_point,
            "mlflow.project.backend": self.backend,
            "mlflow_projects.source.sha256": self.sha256 or "",
        }


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    :param reason: one sentence, "" for success
    :param output_tail: the last lines of the command's output
    :param exit_code: of the command, None if it never ran
    :param metrics: what the attempt cost
    :param facts: tags that became known only when the command ran
    """

    status: RunStatus
    reason: str = ""
    output_tail: str = ""
    exit_code: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    def tags(self) -> dict[str, str]:
        """Return the tags that explain the outcome."""
        if self.status == "FINISHED":
            return dict(self.facts)
        return {
            **self.facts,
            REASON: self.reason,
            OUTPUT_TAIL: self.output_tail,
            EXIT_CODE: "" if self.exit_code is None else str(self.exit_code),
        }


@dataclass
class RunRecord:
    """The MLflow run of one attempt.

    :param parent_run_id: the run to nest below, if any
    :param supersedes: the run of the try before this one, if any
    :param parameters: what the DAG passes, as text
    :param more_tags: the user's own; they win over ours
    :param success_tags: called with the run when it is about to be FINISHED; returns more tags
    """

    client: TrackingClient
    experiment_id: str
    name: str
    task: TaskIdentity
    source: SourceTags
    role: str = "step"
    parent_run_id: str | None = None
    supersedes: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    more_tags: Mapping[str, str] = field(default_factory=dict)
    success_tags: Callable[[Run], Mapping[str, str]] | None = None
    run: Run | None = None

    def open(self) -> Run:
        """Create the run, exactly once even if an answer of the server is lost on the way."""
        for attempt in range(1, _CREATE_TRIES + 1):
            try:
                self.run = self.client.create_run(self.experiment_id, self.name, now(), self._tags())
                return self.run
            except TrackingUnavailableError:
                # The look-up waits for the server to come back, with the client's own retries.
                if found := self.find():
                    self.run = found
                    return found
                if attempt == _CREATE_TRIES:
                    raise
        raise AssertionError("unreachable")

    def find(self) -> Run | None:
        """Return this attempt's run if the server has it."""
        query = f"tags.`{ATTEMPT_ID}` = {quoted(self.task.attempt_id)}"
        found = self.client.search_runs([self.experiment_id], query, limit=1)
        return found[0] if found else None

    def close(self, outcome: Outcome) -> Run:
        """Write the outcome and return the run, with the status that it then has.

        A run that somebody gave up meanwhile (a worker without a network is lost for Airflow, its command goes
        on) stays as it is: a later try may have taken its place already.

        Parameters are logged now, not at the start: MLflow never lets a parameter change, so a project
        that logs ``0.00001`` where the DAG passed ``"1e-05"`` would crash. What the project logged stays;
        what the DAG passed is in the tag ``mlflow_projects.parameters`` from the start.
        """
        assert self.run is not None, "open() comes first"
        logged = self.client.get_run(self.run.run_id)
        if logged.status not in OPEN_STATUSES and REASON in logged.tags:
            return logged
        missing = {key: value[:MAX_PARAM] for key, value in self.parameters.items() if key not in logged.params}
        tags = _present(outcome.tags())
        if outcome.status == "FINISHED" and self.success_tags:
            tags |= self.success_tags(logged)
        if missing or tags or outcome.metrics:
            self.client.log_batch(logged.run_id, params=missing, tags=tags, metrics=outcome.metrics)
        moment = now()
        self.client.update_run(logged.run_id, outcome.status, moment)
        return replace(logged, status=outcome.status, end_time=moment)

    def _tags(self) -> dict[str, str]:
        tags = {
            "mlflow.user": _user(),
            ROLE: self.role,
            PARENT_RUN_ID: self.parent_run_id or "",
            SUPERSEDES: self.supersedes or "",
            PARAMETERS: json.dumps(dict(self.parameters), ensure_ascii=False) if self.parameters else "",
            **self.source.tags(),
            **self.task.tags(),
            **self.more_tags,
        }
        return _present(tags)


def resolve_experiment(client: TrackingClient, name: str) -> str:
    """Return the id of the experiment of that name; make it if need be, also when twenty tasks ask at once."""
    for _ in range(2):
        if found := client.experiment_id(name):
            return found
        try:
            return client.create_experiment(name)
        except TrackingError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise TrackingError(f"The experiment {name!r} can neither be found nor created.")


def find_parent(client: TrackingClient, experiment_id: str, task: TaskIdentity) -> Run | None:
    """Return the parent run that a start task of this DAG run opened before, if any."""
    query = " and ".join(
        f"tags.`{key}` = {quoted(value)}"
        for key, value in (
            (DAG_ID, task.dag_id),
            (DAG_RUN_ID, task.run_id),
            (TASK_ID, task.task_id),
            (MAP_INDEX, str(task.map_index)),
            (ROLE, "parent"),
        )
    )
    found = client.search_runs([experiment_id], query, limit=1, newest_first=True)
    return found[0] if found else None


def close_abandoned(
    client: TrackingClient, run_id: str, reason: str, stop: StopJob, *, also_finished: bool = False
) -> bool:
    """Set a run that nobody works on any more to KILLED, and before it what is open below it.

    A run that is closed, or does not exist, stays as it is.

    :param stop: called with each run before it is closed, to stop its job outside
    :param also_finished: withdraw success too
    :return: True if the run was changed
    """
    try:
        run = client.get_run(run_id)
    except TrackingError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    if run.status == "FINISHED" and also_finished:
        withdraw(client, run, reason)
        return True
    if run.status not in OPEN_STATUSES:
        return False
    close_open_descendants(client, run, reason, stop)
    stop(run)
    client.log_batch(run_id, tags={REASON: reason})
    client.update_run(run_id, "KILLED", now())
    return True


def withdraw(client: TrackingClient, run: Run, reason: str) -> None:
    """Set a FINISHED run whose success Airflow never took, because it had decided otherwise, to KILLED."""
    client.log_batch(run.run_id, tags={REASON: reason})
    client.update_run(run.run_id, "KILLED", run.end_time or now())


def close_open_descendants(client: TrackingClient, root: Run, reason: str, stop: StopJob) -> list[Run]:
    """Set every run below ``root`` that is still open to KILLED, the lowest first; return those.

    Only the run's own experiment is searched, which is where its children are unless a step was given
    another ``experiment_name``.

    :param stop: called with each run before it is closed, to stop its job outside
    """
    known = {run.run_id: run for run in client.search_runs([root.experiment_id], NOT_CLOSED)}
    below = [(depth, run) for run in list(known.values()) if (depth := _depth(client, known, run, root))]
    for _, run in sorted(below, key=lambda pair: -pair[0]):
        stop(run)
        client.log_batch(run.run_id, tags={REASON: reason})
        client.update_run(run.run_id, "KILLED", now())
    return [run for _, run in below]


def _depth(client: TrackingClient, known: dict[str, Run], run: Run, root: Run) -> int:
    """Return how far a run is below another, 0 if it is not."""
    depth, seen = 0, {run.run_id}
    while parent := run.tags.get(PARENT_RUN_ID):
        depth += 1
        if parent == root.run_id:
            return depth
        if parent in seen:
            return 0
        seen.add(parent)
        if parent not in known:
            try:
                known[parent] = client.get_run(parent)
            except TrackingError as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return 0
        run = known[parent]
    return 0


def now() -> int:
    """Return the current time in milliseconds since 1970, as MLflow counts it."""
    return int(time.time() * 1000)


def _present(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(value)[:_MAX_TAG] for key, value in tags.items() if value not in ("", None)}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        return ""
