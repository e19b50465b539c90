"""Call a Python function as an Airflow task that is one MLflow run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from mlflow_projects.attempt.function import FunctionAttempt
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.hooks.masking import masked, shown
from mlflow_projects.operators import earlier_tries
from mlflow_projects.operators.base import (
    DEFAULT_CONN_ID,
    as_run_id,
    dag_source,
    existing_run,
    experiment_id_for,
    identify,
    own_tags,
)
from mlflow_projects.operators.enclosing import parent_on
from mlflow_projects.operators.step import MLflowStepOperator
from mlflow_projects.operators.supervision import stop_is_written
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.project.command import is_recordable
from mlflow_projects.tracking.closing import keep_end
from mlflow_projects.tracking.record import RunRecord

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.tracking.client import Run, TrackingClient

RUN_KEY = "mlflow_run"
_SKIPS = (AirflowSkipException, DownstreamTasksSkipped)


class MLflowTaskOperator(MLflowStepOperator, PythonOperator):
    """Call a Python function; each try of the task is one MLflow run.

    In the function ``mlflow.log_metric(…)`` and the like reach the run, with the connection's login; the function
    runs in the task's own process, as with Airflow's ``PythonOperator``, whose arguments and templates these are too.
    The run ends as the function does: FINISHED, FAILED if it raises, KILLED if Airflow stops it.

    What the function returns is the XCom; under the key ``mlflow_run`` is the dict that
    :class:`MLflowProjectOperator` returns. Numbers, texts and booleans among the
    function's arguments are the run's parameters, unless the function logs a parameter of that name itself.

    :param Callable python_callable: the function
    :param Collection op_args: its positional arguments (templated)
    :param Mapping op_kwargs: its keyword arguments (templated)
    :param log_to: ``own`` for a run of its own; ``parent`` for the parent run of the enclosing ``mlflow_run``; or a
        run's id, or the XCom of a task that has a run (of a function's task the one of the key ``mlflow_run``). A run
        that is not its own is left open, and gets no arguments as parameters: several tasks, and tries, may write
        into it (templated)
    :param experiment_name: as of a project's step (templated)
    :param run_name: default: the task's id without its group, with the index of a mapped task (templated)
    :param parent_run_id: the run to nest below; default: the parent of the enclosing ``mlflow_run`` (templated)
    :param tags: more tags for a run of its own (templated)
    :param system_metrics: whether MLflow measures the machine while the function works, as of a project's step
    :param mlflow_conn_id: Airflow connection to the tracking server (templated)
    :raises AirflowFailException: an argument is wrong; no retry
    :raises AirflowException: it was stopped, or MLflow stayed away
    """

    run_key = RUN_KEY
    template_fields: Sequence[str] = (
        *PythonOperator.template_fields,
        "log_to",
        "experiment_name",
        "run_name",
        "parent_run_id",
        "tags",
        "mlflow_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {**PythonOperator.template_fields_renderers, "tags": "json"}

    def __init__(
        self,
        *,
        log_to: Any = "own",
        experiment_name: str | None = None,
        run_name: str | None = None,
        parent_run_id: Any = None,
        tags: Mapping[str, str] | None = None,
        system_metrics: bool = False,
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.log_to = log_to
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.parent_run_id = parent_run_id
        self.tags = tags
        self.system_metrics = system_metrics
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> Any:
        """Open the run, call the function, close the run."""
        with self.tracking() as client:
            attempt = FunctionAttempt(client, identify(context), self.say, masked, _SKIPS, self.system_metrics)

            def work() -> Any:
                with stop_is_written(attempt.close_as_stopped):
                    return attempt.call(
                        lambda: self._open(context, client, attempt), lambda: PythonOperator.execute(self, context)
                    )

            told: dict[str, Any] = {}
            try:
                value = self.watched(context, attempt, work)
                if attempt.finished:
                    self.finished(context, attempt.finished)
                    told = self.hand_on(context, client, attempt.finished, self.xcom_of(attempt.finished, "FINISHED"))
                return value
            finally:
                if ended := attempt.finished or attempt.run:
                    context["ti"].xcom_push(key=self.run_key, value=told or self.xcom_of(ended, ended.status))

    def _open(self, context: Context, client: TrackingClient, attempt: FunctionAttempt) -> Run:
        """Open the run of an attempt, and show the way to it."""
        previous = earlier_tries.last(context) if context["ti"].try_number > 1 else None
        parent = parent_on(client, self, context)
        if self.log_to == "own":
            attempt.record = RunRecord(
                client=client,
                experiment_id=experiment_id_for(client, self.experiment_name, parent),
                name=shown(text_or_none(self.run_name) or self.default_run_name(context)),
                task=attempt.task,
                source=dag_source(context),
                parent_run_id=as_run_id(parent),
                supersedes=self.close_previous_try(context, client, previous),
                parameters=self._plain_arguments(context),
                more_tags={key: shown(value) for key, value in own_tags(self.mapping("tags")).items()},
                log=self.say,
            )
            attempt.run = run = attempt.record.open()
            earlier_tries.remember(context, run, None)
        else:
            attempt.run = run = self._run_of_others(client, parent)
        self.publish(context, client, run)
        return run

    def _run_of_others(self, client: TrackingClient, parent: Mapping[str, Any] | None) -> Run:
        """Return the run that ``log_to`` names.

        :raises ProjectError: there is none
        """
        run_id = as_run_id(parent if self.log_to == "parent" else self.log_to)
        if run_id is None:
            where = "there is no mlflow_run around it" if self.log_to == "parent" else "it rendered to nothing"
            raise ProjectError(
                f"Task {self.task_id!r}: log_to names no run ({where}); give 'own', 'parent' inside of an "
                "mlflow_run, or a run's id (that of a function's task is its output['mlflow_run'])."
            )
        return keep_end(client, existing_run(client, run_id))

    def _plain_arguments(self, context: Context) -> dict[str, str]:
        """Return the function's arguments as far as they are numbers, texts and booleans, by name."""
        signature = inspect.signature(self.python_callable)
        # What a function does not ask for is not given to it.
        bound = signature.bind_partial(*self.op_args, **self.determine_kwargs(self.op_kwargs))
        bound.apply_defaults()
        found: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                found.update(value)
            elif kind is not inspect.Parameter.VAR_POSITIONAL:
                found[name] = value
        return {
            name: shown(str(value))
            for name, value in found.items()
            if isinstance(value, str | int | float) and name not in context and is_recordable(name)
        }
