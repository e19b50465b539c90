"""Run an MLflow Project as an Airflow task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.sdk import BaseOperatorLink
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlflow_projects import config
from mlflow_projects.attempt.life import Attempt
from mlflow_projects.attempt.step import Result, Step
from mlflow_projects.backends.contract import Host
from mlflow_projects.backends.registry import backend_of, handle_from, is_durable, link_names
from mlflow_projects.hooks.git_credentials import git_credentials
from mlflow_projects.hooks.masking import mask, masked
from mlflow_projects.links.job import JobLink
from mlflow_projects.links.pushed import push_links
from mlflow_projects.links.run import MLflowRunLink
from mlflow_projects.operators import earlier_tries
from mlflow_projects.operators.base import (
    DEFAULT_CONN_ID,
    as_run_id,
    bundle_checkout,
    experiment_id_for,
    identify,
    is_deferrable,
    markdown_table,
    own_tags,
)
from mlflow_projects.operators.enclosing import parent_on
from mlflow_projects.operators.retry_policy import MLflowRetryPolicy
from mlflow_projects.operators.reuse_rules import reuse_of
from mlflow_projects.operators.step import MLflowStepOperator
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.public_uri import public_text, public_uri, secrets_in
from mlflow_projects.tracking.reuse_key import with_models

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.backends.contract import DurableBackend, Handle
    from mlflow_projects.tracking.client import Run, TrackingClient


class MLflowProjectOperator(MLflowStepOperator):
    """Run one entry point of an MLflow Project as one MLflow run.

    The arguments are those of ``mlflow.projects.run``. Each try of the task is a run of its own; the
    command's exit status decides how both end.

    Returns ``{"run_id", "experiment_id", "artifact_uri", "status", "run_name", "metrics", "params",
    "models", "mlflow_conn_id"}`` as XCom, where ``metrics`` holds the last value of each metric and ``models`` the
    address (``models:/m-…``) of each model that the command logged, by its name. For a reused result this is the
    original's run, and ``linked_run_id`` is the run of this DAG run that points to it.

    :param uri: folder, ``file://``, git URL or ``.zip``, each with an optional ``#sub/directory`` (templated)
    :param entry_point: an entry point of the MLproject, or a ``.py``, ``.sh`` or ``.R`` file of it (templated)
    :param version: git branch, tag or commit; default: the repository's default branch (templated)
    :param parameters: values by parameter name; those that the MLproject does not declare are passed as
        ``--name value`` (templated)
    :param experiment_name: made if it does not exist; default: that of the parent run, else
        ``MLFLOW_EXPERIMENT_ID`` or ``MLFLOW_EXPERIMENT_NAME``, else Default (templated)
    :param run_name: default: the task's id without its group, with the index of a mapped task (templated)
    :param env_manager: ``local`` (the worker's Python), ``uv``, ``virtualenv`` or ``conda``; default: ``uv``
        if the project has a ``python_env``, ``conda`` if it has a ``conda_env``, else ``local`` (templated)
    :param backend: where the command runs: ``local`` or ``sagemaker`` (templated)
    :param backend_config: settings of the backends; for ``local``: ``grace_seconds`` between SIGTERM and
        SIGKILL, 3 by default, and for a step in a container (one with ``docker_image`` here or ``docker_env``
        in the MLproject) ``docker_network``, ``docker_memory``, ``docker_shm_size`` and ``docker_gpus``, see
        docs/containers.md; for ``sagemaker``: docs/sagemaker.md (templated)
    :param parent_run_id: the run to nest below: an id, or a start task's XCom; default: the parent of the
        enclosing ``mlflow_run`` (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server; the default one may be missing, then
        ``MLFLOW_TRACKING_URI`` counts (templated)
    :param git_conn_id: Airflow connection with user and token (or, in its extra, ``private_key`` or
        ``key_file``) for a private repository
    :param aws_conn_id: Airflow connection for backends on AWS
    :param tags: more tags for the run; not ``airflow.*``, ``mlflow_projects.*`` or
        ``mlflow.parentRunId`` (templated)
    :param reuse: True takes over the result of a FINISHED run of the same content instead of running again;
        ``"wait"`` also waits for one that is being made now; see docs/reuse.md (templated)
    :param deferrable: whether waiting for a SageMaker job leaves the worker slot free; default: Airflow's
        ``[operators] default_deferrable``; the local backend always holds its slot
    :param poll_interval: seconds between two looks at a SageMaker job
    :param skip_on_exit_code: exit statuses of the command that mean "nothing to do": the task is skipped, its run
        FINISHED with that reason
    :param fail_on_exit_code: exit statuses after which there is no retry
    :param system_metrics: whether MLflow measures the machine while the command works (metrics ``system/…``); the
        command's environment needs ``psutil``, and for a GPU ``nvidia-ml-py``
    :param log_output: whether the command's output is stored as artifact ``airflow/attempt_<n>.log``, masked; of more
        than 10 MB the first and the last 5. The worker needs the whole of MLflow and some seconds for it; not for
        a deferred job, whose output is in CloudWatch
    :raises AirflowFailException: the project or a parameter is wrong; no retry
    :raises AirflowException: the command failed, was stopped, or MLflow stayed away
    """

    operator_extra_links: Collection[BaseOperatorLink] = (MLflowRunLink(), *map(JobLink, link_names("local")))
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
        "reuse",
        "mlflow_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "parameters": "json",
        "backend_config": "json",
        "tags": "json",
    }
    uri: str
    entry_point: str
    version: str | None
    parameters: Mapping[str, Any] | None
    experiment_name: str | None
    run_name: str | None
    env_manager: str | None
    backend: str
    backend_config: Mapping[str, Any] | None
    parent_run_id: Any
    git_conn_id: str | None
    aws_conn_id: str | None
    tags: Mapping[str, str] | None
    reuse: bool | str
    deferrable: bool | None
    poll_interval: float
    skip_on_exit_code: int | Collection[int] | None
    fail_on_exit_code: int | Collection[int] | None
    system_metrics: bool
    log_output: bool
    mlflow_conn_id: str

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
        reuse: bool | str = False,
        deferrable: bool | None = None,
        poll_interval: float = 10.0,
        skip_on_exit_code: int | Collection[int] | None = None,
        fail_on_exit_code: int | Collection[int] | None = None,
        system_metrics: bool = False,
        log_output: bool = False,
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        # Past Airflow's __setattr__, which only matters later: with it, a DAG of 50 steps takes 10 % longer to parse.
        vars(self).update(
            uri=uri,
            entry_point=entry_point,
            version=version,
            parameters=parameters,
            experiment_name=experiment_name,
            run_name=run_name,
            env_manager=env_manager,
            backend=backend,
            backend_config=backend_config,
            parent_run_id=parent_run_id,
            git_conn_id=git_conn_id,
            aws_conn_id=aws_conn_id,
            tags=tags,
            reuse=reuse,
            deferrable=deferrable,
            poll_interval=poll_interval,
            skip_on_exit_code=skip_on_exit_code,
            fail_on_exit_code=fail_on_exit_code,
            system_metrics=system_metrics,
            log_output=log_output,
            mlflow_conn_id=mlflow_conn_id,
        )
        # Only where another package brings buttons of its own; the class has ours.
        if len(names := link_names(backend)) != len(link_names("local")):
            self.operator_extra_links = (MLflowRunLink(), *map(JobLink, names))
        self.doc_md = self.doc_md or self._describe()

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render as Airflow does; what a uri holds is masked before Airflow keeps what was rendered."""
        super().render_template_fields(context, jinja_env)
        mask(*secrets_in(str(self.uri)))

    def execute(self, context: Context) -> dict[str, Any]:
        """Live the attempt's life; see :mod:`mlflow_projects.attempt.life`."""
        with self.tracking() as client:
            previous = earlier_tries.last(context) if context["ti"].try_number > 1 else None
            # Nothing was fetched yet: a second job would be paid twice.
            if left := earlier_tries.going_on(context, client, previous, self.backend, self._durable):
                run, handle = left
                self.log.info("An earlier try was lost, its job goes on: this try takes over run %s.", run.run_id)
                self._opened(context, client, run, handle)
                attempt = self._new_attempt(context, client, self._step_of(run, context))
                if is_deferrable(self.deferrable):
                    self._hand_over(context, run, handle)
                return self._told(
                    context, client, self.watched(context, attempt, lambda: attempt.attach(run, handle))
                )
            attempt = self._new_attempt(context, client, self._first_step(context, client, previous))
            attempt.reuse = reuse_of(self.reuse, context, attempt)
            if is_deferrable(self.deferrable) and is_durable(self.backend):
                result = self.watched(context, attempt, attempt.start)
                if result.handle:
                    self._hand_over(context, result.run, result.handle)
                return self._told(context, client, result)
            return self._told(context, client, self.watched(context, attempt, attempt.run))

    def resume(self, context: Context, event: Any) -> dict[str, Any]:  # noqa: ARG002
        """Close the attempt whose job a trigger watched to its end, or to its deadline."""
        state: Any = earlier_tries.last(context)  # left by this very one, before it was deferred
        run_id, handle = state["run_id"], handle_from(state["handle"])
        with self.tracking() as client:
            run = client.get_run(run_id)
            self._show_links(context, client, run, handle)
            attempt = self._new_attempt(context, client, self._step_of(run, context))
            return self._told(context, client, self.watched(context, attempt, lambda: attempt.conclude(run, handle)))

    def _told(self, context: Context, client: TrackingClient, result: Result) -> dict[str, Any]:
        """Return the XCom of an attempt that ended well.

        :raises AirflowSkipException: its command says that there was nothing to do
        """
        if result.skipped:
            raise AirflowSkipException(result.skipped)
        self.finished(context, result.run)
        if result.original:
            told = {**self.xcom_of(result.original, "FINISHED"), "linked_run_id": result.run.run_id}
        else:
            told = self.xcom_of(result.run, "FINISHED")
        maker = with_models(result.original) if result.original else result.run
        return self.hand_on(context, client, maker, told)

    def _hand_over(self, context: Context, run: Run, handle: Handle) -> NoReturn:
        from mlflow_projects.triggers.job import JobTrigger

        # Airflow's own time-out of a deferral would neither stop the job nor call us (trap: defer(timeout=)).
        deadline = self._durable(handle).deadline(handle)
        if self.execution_timeout:
            started: Any = context["ti"].start_date
            deadline = min(deadline, (started + self.execution_timeout).timestamp())
        trigger = JobTrigger(handle.as_json(), run.run_id, deadline, self.poll_interval, self.mlflow_conn_id)
        self.defer(trigger=trigger, method_name="resume")

    def _durable(self, handle: Handle) -> DurableBackend:
        return backend_of(handle, Host(self.say, self.aws_conn_id, self.poll_interval))

    def _new_attempt(self, context: Context, client: TrackingClient, step: Step) -> Attempt:
        return Attempt(
            step=step,
            task=identify(context),
            client=client,
            cache=config.cache(),
            log=self.say,
            redact=masked,
            on_open=lambda run, handle: self._opened(context, client, run, handle),
            aws_conn_id=self.aws_conn_id,
            poll_interval=self.poll_interval,
            checkpoints=config.checkpoints(),
        )

    def _first_step(self, context: Context, client: TrackingClient, previous: Mapping[str, Any] | None) -> Step:
        parent = parent_on(client, self, context)
        return Step(
            uri=str(self.uri),
            entry_point=str(self.entry_point),
            version=self._version(),
            parameters=self.mapping("parameters"),
            backend=self.backend,
            backend_config=self._backend_config(context),
            env_manager=text_or_none(self.env_manager),
            run_name=text_or_none(self.run_name) or self.default_run_name(context),
            experiment_id=experiment_id_for(client, self.experiment_name, parent),
            parent_run_id=as_run_id(parent),
            supersedes=self.close_previous_try(context, client, previous),
            tags=own_tags(self.mapping("tags")),
            git_credentials=git_credentials(self.git_conn_id) if self.git_conn_id else None,
            bundle=bundle_checkout(context),
            git_trusted_dirs=config.git_trusted_dirs(),
            system_metrics=self.system_metrics,
            log_output=self.log_output,
            **self._exit_codes(),
        )

    def _step_of(self, run: Run, context: Context) -> Step:
        """Return as much of the step as the end of its record needs."""
        return Step(
            uri=str(self.uri),
            entry_point=str(self.entry_point),
            version=None,
            parameters=self.mapping("parameters"),
            backend=self.backend,
            backend_config={},
            env_manager=None,
            run_name=text_or_none(self.run_name) or self.default_run_name(context),
            experiment_id=run.experiment_id,
            parent_run_id=None,
            **self._exit_codes(),
        )

    def _exit_codes(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in ("skip_on_exit_code", "fail_on_exit_code")}
        return {
            name: () if codes is None else (codes,) if isinstance(codes, int) else tuple(codes)
            for name, codes in given.items()
        }

    def _backend_config(self, context: Context) -> Mapping[str, Any]:
        found = {**config.backend_defaults(self.backend), **self.mapping("backend_config")}
        policy = self.retry_policy
        if isinstance(policy, MLflowRetryPolicy) and (more := policy.more_after(self.memory_kills(context))):
            self.log.info("Earlier tries had too little memory; this one has %s.", more)
            found |= more
        return found

    def _opened(self, context: Context, client: TrackingClient, run: Run, handle: Handle | None) -> None:
        earlier_tries.remember(context, run, handle)
        self._show_links(context, client, run, handle)

    def _show_links(self, context: Context, client: TrackingClient, run: Run, handle: Handle | None) -> None:
        self.publish(context, client, run)
        if handle:
            links = self._durable(handle).links(handle)
            push_links(self, context, *((JobLink(name), url) for name, url in links.items()))

    def _version(self) -> str | None:
        if isinstance(self.version, float):
            raise AirflowFailException(
                f"Task {self.task_id!r}: version is the number {self.version}, which may stand for several tags; "
                "write it as text, in quotes."
            )
        return text_or_none(self.version)

    def _describe(self) -> str:
        rows = [("project", public_uri(str(self.uri))), ("entry point", self.entry_point), ("backend", self.backend)]
        parameters = self.parameters if isinstance(self.parameters, Mapping) else {}  # else a template
        rows += [(f"parameter `{key}`", public_text(str(value))) for key, value in parameters.items()]
        return f"Runs an MLflow Project; each try is one MLflow run.\n\n{markdown_table(rows)}"
