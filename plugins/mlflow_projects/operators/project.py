"""Run an MLflow Project as an Airflow task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from mlflow_projects.operators.attempt import Attempt, AttemptKilledError, Step
from mlflow_projects.operators.base import (
    MLflowRunOperator,
    as_run_id,
    cache_from_config,
    experiment_id_for,
    identify,
)
from mlflow_projects.operators.run_group import enclosing_parent
from mlflow_projects.operators.supervision import stop_without_supervisor
from mlflow_projects.tracking.record import close_abandoned, withdraw

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.project.repository import GitCredentials
    from mlflow_projects.tracking.client import Run, TrackingClient


_STATE_KEY = "mlflow_run"


class MLflowProjectOperator(MLflowRunOperator):
    """Run one entry point of an MLflow Project as one MLflow run.

    The arguments are those of ``mlflow.projects.run``. Each try of the task is a run of its own; the
    command's exit status decides how both end.

    Returns ``{"run_id", "experiment_id", "artifact_uri", "status", "run_name", "metrics", "mlflow_conn_id"}`` as
    XCom, where ``metrics`` holds the last value of each metric.

    :param uri: folder, ``file://``, git URL or ``.zip``, each with an optional ``#sub/directory`` (templated)
    :param entry_point: an entry point of the MLproject, or a ``.py`` or ``.sh`` file of it (templated)
    :param version: git branch, tag or commit; default: the repository's default branch (templated)
    :param parameters: values by parameter name; those that the MLproject does not declare are passed as
        ``--name value`` (templated)
    :param experiment_name: made if it does not exist; default: that of the parent run, else
        ``MLFLOW_EXPERIMENT_ID`` or ``MLFLOW_EXPERIMENT_NAME``, else Default (templated)
    :param run_name: default: the task's id without its group, with the index of a mapped task (templated)
    :param env_manager: ``local`` (the worker's Python), ``uv``, ``virtualenv`` or ``conda``; default: ``uv``
        if the project has a ``python_env``, ``conda`` if it has a ``conda_env``, else ``local`` (templated)
    :param backend: where the command runs: ``local`` (templated)
    :param backend_config: settings of the backend; for ``local``: ``grace_seconds`` between SIGTERM and
        SIGKILL, 3 by default (templated)
    :param parent_run_id: the run to nest below: an id, or a start task's XCom; default: the parent of the
        enclosing ``mlflow_run`` (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server; the default one may be missing, then
        ``MLFLOW_TRACKING_URI`` counts
    :param git_conn_id: Airflow connection with user and token (or, in its extra, ``private_key`` or
        ``key_file``) for a private repository
    :param aws_conn_id: Airflow connection for backends on AWS
    :param tags: more tags for the run; they win over ours (templated)
    :param reuse: not available yet; must be False
    :param deferrable: for backends that run elsewhere; the local one always holds its worker slot
    :param poll_interval: seconds between two looks at a job that runs elsewhere
    :raises AirflowFailException: the project or a parameter is wrong; no retry
    :raises AirflowException: the command failed, was stopped, or MLflow stayed away
    """

    template_fields: Sequence[str] = (
        "uri",
        "entry_point",
        "version",
        "parameters",
        "experiment_name",
        "run_name",
        "env_manager",
        "backend",
        "backend_config",
        "parent_run_id",
        "tags",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "parameters": "json",
        "backend_config": "json",
        "tags": "json",
    }

    def __init__(
        self,
        *,
        uri: str,
        entry_point: str = "main",
        version: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        experiment_name: str | None = None,
        run_name: str | None = None,
        env_manager: str | None = None,
        backend: str = "local",
        backend_config: Mapping[str, Any] | None = None,
        parent_run_id: Any = None,
        git_conn_id: str | None = None,
        aws_conn_id: str | None = "aws_default",
        tags: Mapping[str, str] | None = None,
        reuse: bool = False,
        deferrable: bool | None = None,
        poll_interval: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if reuse:
            raise ValueError(f"Task {self.task_id!r}: reuse=True is not available in this version; remove it.")
        self.uri = uri
        self.entry_point = entry_point
        self.version = version
        self.parameters = parameters
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.env_manager = env_manager
        self.backend = backend
        self.backend_config = backend_config
        self.parent_run_id = parent_run_id
        self.git_conn_id = git_conn_id
        self.aws_conn_id = aws_conn_id
        self.tags = tags
        self.reuse = reuse
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.doc_md = self.doc_md or self._describe()
        self._attempt: Attempt | None = None
        self._finished: Run | None = None

    def artifact(self, path: str = "") -> ArtifactReference:
        """Return where this step's artifacts are, as a value for a later step's ``parameters``.

        The later step is put downstream of this one. Inside an f-string it is a template.

        :param path: below the run's artifact URI
        """
        return ArtifactReference(self, path)

    def execute(self, context: Context) -> dict[str, Any]:
        """Live the attempt's life; see :mod:`mlflow_projects.operators.attempt`."""
        from airflow.sdk._shared.secrets_masker import redact

        def log(line: str) -> None:
            # Airflow's supervisor masks what a worker logs, but nobody does under `airflow dags test`.
            self.log.info("%s", redact(line))

        with self.tracking() as client:
            parent = None if self.parent_run_id else enclosing_parent(self, context)
            step = Step(
                uri=str(self.uri),
                entry_point=self.entry_point,
                version=None if self.version in (None, "", "None") else str(self.version),
                parameters=self._mapping("parameters"),
                backend=self.backend,
                backend_config=self._mapping("backend_config"),
                env_manager=None if self.env_manager in (None, "", "None") else str(self.env_manager),
                run_name=self.run_name or self._default_run_name(context),
                experiment_id=experiment_id_for(client, self.experiment_name, parent),
                parent_run_id=as_run_id(self.parent_run_id) or as_run_id(parent),
                supersedes=self._close_previous_try(context, client),
                tags=self._mapping("tags"),
                git_credentials=self._git_credentials(),
            )
            self._attempt = Attempt(
                step=step,
                task=identify(context),
                client=client,
                cache=cache_from_config(),
                log=log,
                redact=lambda text: str(redact(text)),
                on_open=lambda run: self._opened(context, client, run),
            )
            try:
                with stop_without_supervisor():
                    run = self._attempt.run()
            except AttemptKilledError as error:
                raise AirflowException(f"The attempt was {error}.") from None
            finally:
                self._attempt = None
        self._finished = run
        return self.xcom_of(run, "FINISHED")

    def on_kill(self) -> None:
        """Stop the command; harmless when the attempt is over (Airflow calls this after a time-out too)."""
        if self._attempt:
            self._attempt.kill()

    def _close_previous_try(self, context: Context, client: TrackingClient) -> str | None:
        """Return the run of the try before this one; close it if its worker died before it could.

        The id comes from Airflow's task state store: XComs are wiped before every try.
        """
        previous = context["task_state_store"].get(_STATE_KEY)
        if not isinstance(previous, Mapping):
            return None
        run_id = str(previous["run_id"])
        reason = f"its worker was lost; superseded by try {context['ti'].try_number}"
        # A Clear raises max_tries and may follow a success, which stays; a retry cannot follow one.
        is_retry = previous.get("max_tries") == context["ti"].max_tries
        if close_abandoned(client, run_id, reason, also_finished=is_retry):
            self.log.warning("Run %s of an earlier try did not end well; now KILLED.", run_id)
        return run_id

    def confirm_success(self, ti: Any) -> None:
        """Withdraw the run's success if Airflow did not take it.

        A person may have marked or cleared the task, or the DAG run may have timed out, between the last
        heartbeat and the end of the command. Called in the task process after it reported its success.
        """
        index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
        states = ti.get_task_states(ti.dag_id, map_index=index, task_ids=[ti.task_id], run_ids=[ti.run_id])
        of_run = list(states.get(ti.run_id, {"": "success"}).values())  # a deleted DAG run has no states
        if self._finished is None or not of_run or of_run[0] in ("success", "running"):
            return
        reason = f"Airflow had set the task to {of_run[0] or 'run again'} before its success was reported"
        self.log.warning("Run %s is withdrawn, now KILLED: %s.", self._finished.run_id, reason)
        with self.tracking() as client:
            withdraw(client, self._finished, reason)

    def _opened(self, context: Context, client: TrackingClient, run: Run) -> None:
        context["task_state_store"].set(_STATE_KEY, _state_of(run, context["ti"]))
        self.publish(context, client, run)

    def _mapping(self, name: str) -> Mapping[str, Any]:
        value = getattr(self, name)
        if value in (None, "", "None"):
            return {}
        if not isinstance(value, Mapping):
            raise AirflowFailException(
                f"Task {self.task_id!r}: {name} rendered to {type(value).__name__}, not to a mapping; for a template "
                "of the whole mapping, give the DAG render_template_as_native_obj=True."
            )
        return value

    def _default_run_name(self, context: Context) -> str:
        index = context["ti"].map_index
        label = str(self.label)
        return label if index is None or index < 0 else f"{label}[{index}]"

    def _git_credentials(self) -> GitCredentials | None:
        if not self.git_conn_id:
            return None
        from mlflow_projects.hooks.git_credentials import git_credentials

        try:
            return git_credentials(self.git_conn_id)
        except AirflowNotFoundException:
            raise AirflowFailException(
                f"There is no Airflow connection {self.git_conn_id!r}; add it, or correct git_conn_id."
            ) from None

    def _describe(self) -> str:
        rows = [("project", self.uri), ("entry point", self.entry_point), ("backend", self.backend)]
        parameters = self.parameters if isinstance(self.parameters, Mapping) else {}  # else a template
        rows += [(f"parameter `{key}`", value) for key, value in parameters.items()]
        body = "".join(f"| {name} | `{_one_cell(value)}` |\n" for name, value in rows)
        return f"Runs an MLflow Project; each try is one MLflow run.\n\n| | |\n|---|---|\n{body}"


class ArtifactReference(ResolveMixin):
    """The URI of a step's artifact, known when that step has run."""

    def __init__(self, operator: MLflowProjectOperator, path: str) -> None:
        self.operator = operator
        self.path = path.strip("/")

    def iter_references(self) -> Iterable[tuple[Any, str]]:
        """Tell Airflow which task this depends on."""
        yield self.operator, "return_value"

    def resolve(self, context: Mapping[str, Any]) -> str:
        """Return the URI.

        :raises AirflowFailException: the step left no run, because it was skipped, for example
        """
        result = context["ti"].xcom_pull(task_ids=self.operator.task_id)
        if not isinstance(result, Mapping) or not result.get("artifact_uri"):
            raise AirflowFailException(
                f"Task {self.operator.task_id!r} left no MLflow run, so {self.path!r} of it cannot be used; "
                "it was skipped or never ran."
            )
        return f"{result['artifact_uri'].rstrip('/')}/{self.path}".rstrip("/")

    def __str__(self) -> str:
        pulled = f"ti.xcom_pull(task_ids='{self.operator.task_id}')['artifact_uri']"
        return f"{{{{ {pulled} }}}}/{self.path}".rstrip("/")


def _state_of(run: Run, ti: Any) -> dict[str, Any]:
    return {"run_id": run.run_id, "try_number": ti.try_number, "max_tries": ti.max_tries}


def _one_cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("`", "'")
