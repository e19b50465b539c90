"""An attempt's MLflow run: opened once, closed truthfully, found again.

Seven kinds make a record complete: code version, start and end time, source, tags, parameters, metrics
and artifacts. The project itself logs metrics and artifacts; the rest is written here.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mlflow_projects.exceptions import Cause, ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.public_uri import public_text
from mlflow_projects.tracking.answers import whole_characters
from mlflow_projects.tracking.client import (
    Run,
    RunStatus,
    TrackingClient,
    deleted_experiment,
    now,
    quoted,
)
from mlflow_projects.tracking.closing import end_in_words, end_run, is_gone, put_right
from mlflow_projects.tracking.tags import (
    ATTEMPT_ID,
    CAUSE,
    DAG_ID,
    DAG_RUN_ID,
    ENDED_AS,
    EXIT_CODE,
    INNER,
    LOGICAL_DATE,
    MAP_INDEX,
    OUTPUT_TAIL,
    PARAMETERS,
    PARENT_RUN_ID,
    REASON,
    ROLE,
    SUPERSEDES,
    TASK_ID,
    TASK_URL,
    TRY_NUMBER,
    changed,
    dag_run_tag,
)  # fmt: skip

_MAX_TAG = 8000
MAX_PARAM = 6000
# Columns of MLflow's database.
MAX_RUN_NAME = MAX_TAG_NAME = 250
MAX_EXPERIMENT_NAME = 256
_CREATE_TRIES = 3


def indexed_name(name: str, index: int | None) -> str:
    """Return the name of a mapped task's run, such as ``train[2]``; without an index, the name itself."""
    return name[:MAX_RUN_NAME] if index is None or index < 0 else f"{name[: MAX_RUN_NAME - 10]}[{index}]"


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

    def inner_tags(self) -> dict[str, str]:
        """Return the tags of a run that the task's project opens by itself, so that it is found, and closed."""
        return {**_present(self._of_try()), ROLE: INNER}

    def identity_tags(self) -> dict[str, str]:
        """Return the tags that tell the run of this try from all others."""
        return {**self._of_try(), ATTEMPT_ID: self.attempt_id}

    def _of_try(self) -> dict[str, str]:
        return {
            DAG_ID: self.dag_id,
            DAG_RUN_ID: self.run_id,
            TASK_ID: self.task_id,
            MAP_INDEX: str(self.map_index),
            TRY_NUMBER: str(self.try_number),
            TASK_URL: self.url,
            dag_run_tag(self.dag_id, self.run_id): "1",
        }

    def tags(self) -> dict[str, str]:
        """Return the tags that lead from the run back to the task instance."""
        return {
            **self.identity_tags(),
            LOGICAL_DATE: self.logical_date,
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
    changed: bool | None = False
    sha256: str | None = None

    def tags(self) -> dict[str, str]:
        """Return MLflow's own source and project tags."""
        return {
            "mlflow.source.name": self.name,
            "mlflow.source.type": self.kind,
            "mlflow.source.git.commit": self.commit or "",
            "mlflow.source.git.branch": self.branch or "",
            "mlflow.source.git.repoURL": self.repo_url or "",
            "mlflow.source.git.dirty": {True: "true", False: "", None: "unknown"}[self.changed],
            "mlflow.project.entryPoint": self.entry_point,
            "mlflow.project.backend": self.backend,
            "mlflow_projects.source.sha256": self.sha256 or "",
        }


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    :param reason: one sentence, "" for success; of a FINISHED one, why there was nothing to do
    :param output_tail: the last lines of the command's output
    :param exit_code: of the command, None if it never ran
    :param metrics: what the attempt cost
    :param facts: tags that became known only when the command ran
    :param cause: why it failed, as far as another try depends on it
    """

    status: RunStatus
    reason: str = ""
    output_tail: str = ""
    exit_code: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    cause: Cause | None = None

    def tags(self) -> dict[str, str]:
        """Return the tags that explain the outcome."""
        if self.status == "FINISHED":
            return {**self.facts, REASON: self.reason}
        return {
            **self.facts,
            REASON: self.reason,
            OUTPUT_TAIL: self.output_tail,
            EXIT_CODE: "" if self.exit_code is None else str(self.exit_code),
            CAUSE: self.cause or "",
        }


@dataclass
class RunRecord:
    """The MLflow run of one attempt.

    :param parent_run_id: the run to nest below, if any
    :param supersedes: the run of the try before this one, if any
    :param parameters: what the DAG passes, as text
    :param more_tags: the user's own; they win over MLflow's
    :param log: takes what a person should know
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
    log: Callable[[str], None] = logging.getLogger(__name__).warning
    run: Run | None = None

    @staticmethod
    def check_name(name: str) -> None:
        """Refuse a run's name that MLflow's database does not take.

        :raises ProjectError: it is too long
        """
        if len(name) > MAX_RUN_NAME:
            raise ProjectError(f"'run_name' has {len(name)} characters; MLflow takes {MAX_RUN_NAME}.")

    def open(self) -> Run:
        """Create the run, exactly once even if an answer of the server is lost on the way.

        :raises ProjectError: its experiment was deleted, or never was; its name is too long
        """
        self.check_name(self.name)
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
            except TrackingError as error:
                if "must be in the 'active' state" in str(error):
                    raise deleted_experiment(self.experiment_id, self.experiment_id) from error
                if error.code == "RESOURCE_DOES_NOT_EXIST":
                    raise ProjectError(
                        f"There is no experiment with the id {self.experiment_id!r}, so this attempt has no run in "
                        "MLflow; correct MLFLOW_EXPERIMENT_ID, or give experiment_name."
                    ) from error
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

        :raises ProjectError: its experiment was deleted meanwhile
        """
        assert self.run is not None, "open() comes first"
        logged = self.client.get_run(self.run.run_id)
        # A project may have changed what tells its run from others: that is put right.
        ours = changed(logged.tags, self._own_tags())
        if ours:
            self.log(f"The project had changed tags of its run, which are put right: {', '.join(sorted(ours))}.")
        if logged.status == "KILLED" and REASON in logged.tags:
            put_right(self.client, logged, ours)
            return logged
        missing = {key: value[:MAX_PARAM] for key, value in self.parameters.items() if key not in logged.params}
        moment = now()
        tags = {**ours, **_present(outcome.tags())}
        if outcome.status == "FINISHED" and not outcome.reason and self.success_tags:
            tags |= self.success_tags(logged)
        if tags or missing or outcome.metrics:  # not worth a request of its own
            tags[ENDED_AS] = end_in_words(outcome.status, moment)
        try:
            end_run(
                self.client,
                logged.run_id,
                outcome.status,
                end_time=moment,
                tags=tags,
                params=missing,
                metrics=outcome.metrics,
            )
        except TrackingError as error:
            if not is_gone(error):
                raise
            if logged.experiment_id not in self.client.experiment_ids():
                raise deleted_experiment(logged.experiment_id, logged.experiment_id, outcome.status) from error
            self.log(f"Run {logged.run_id} was deleted in MLflow; it stays as it is.")
        params = {**logged.params, **missing}
        return replace(logged, status=outcome.status, end_time=moment, params=params)

    def _tags(self) -> dict[str, str]:
        tags = {
            "mlflow.user": user_name(),
            SUPERSEDES: self.supersedes or "",
            PARAMETERS: json.dumps(dict(self.parameters), ensure_ascii=False) if self.parameters else "",
            **self.source.tags(),
            **self.task.tags(),
            **self._own_tags(),
            **self.more_tags,
        }
        return _present(tags)

    def _own_tags(self) -> dict[str, str]:
        """Return the tags by which runs are found and judged."""
        return _present({ROLE: self.role, PARENT_RUN_ID: self.parent_run_id or "", **self.task.identity_tags()})


def resolve_experiment(client: TrackingClient, name: str) -> str:
    """Return the id of the experiment of that name; make it if need be, also when twenty tasks ask at once.

    :raises ProjectError: MLflow's database does not take the name, or the experiment was deleted
    """
    if len(name) > MAX_EXPERIMENT_NAME:
        raise ProjectError(f"'experiment_name' has {len(name)} characters; MLflow takes {MAX_EXPERIMENT_NAME}.")
    if "\0" in name or whole_characters(name) != name:
        raise ProjectError(f"'experiment_name' is {name!r}, with a character that MLflow cannot store.")
    for _ in range(2):
        if found := client.experiment_id(name):
            return found
        try:
            return client.create_experiment(name)
        except TrackingError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise TrackingError(f"The experiment {name!r} can neither be found nor created.")


def _present(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: public_text(str(value))[:_MAX_TAG] for key, value in tags.items() if value not in ("", None)}


def user_name() -> str:
    """Return who runs this process, "" where its user has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user id without a name
        return ""
