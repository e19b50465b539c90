"""The parent run, which stands for a whole DAG run: opened first, closed last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from mlflow_projects.config import airflow_url
from mlflow_projects.hooks.masking import shown
from mlflow_projects.operators import earlier_tries
from mlflow_projects.operators.base import (
    DEFAULT_CONN_ID,
    MLflowRunOperator,
    as_run_id,
    dag_source,
    experiment_id_for,
    identify,
    own_tags,
)
from mlflow_projects.operators.enclosing import RunGroup, enclosing_parent, parent_on
from mlflow_projects.operators.supervision import let_supervisor_notice_the_end
from mlflow_projects.operators.task_states import task_state
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.project.command import is_recordable
from mlflow_projects.tracking.client import OPEN_STATUSES
from mlflow_projects.tracking.closing import abandon, close_abandoned, end_if_there
from mlflow_projects.tracking.ended_dag_run import why_unsuccessful, work_of
from mlflow_projects.tracking.lookup import (
    latest_tries,
    of_parent,
    open_below,
    parents_of_task,
    runs_by_id,
    runs_of_dag_run,
    task_of,
)
from mlflow_projects.tracking.record import MAX_PARAM, RunRecord, TaskIdentity, indexed_name
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, ENDED_AS, MAP_INDEX, REASON, ROLE, TASK_ID, changed

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.tracking.client import Run, RunStatus, TrackingClient


class MLflowStartRunOperator(MLflowRunOperator):
    """Open the parent run of this DAG run; reopen it if the task was cleared or tried again.

    Returns ``{"run_id", "experiment_id", "artifact_uri", "status", "run_name", "metrics", "mlflow_conn_id"}`` as
    XCom.

    :param experiment_name: made if it does not exist; default: that of an enclosing ``mlflow_run``, else
        ``MLFLOW_EXPERIMENT_ID`` or ``MLFLOW_EXPERIMENT_NAME``, else Default (templated)
    :param run_name: default: the id of the enclosing ``mlflow_run``, or else of the DAG, with the index in a mapped
        task group (templated)
    :param parent_run_id: a run to nest below: an id, or another start task's XCom; default: the parent of
        an enclosing ``mlflow_run`` (templated)
    :param tags: more tags for the run, as of a step (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server (templated)
    """

    template_fields: Sequence[str] = ("experiment_name", "run_name", "parent_run_id", "tags", "mlflow_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"tags": "json"}

    def __init__(
        self,
        *,
        experiment_name: str | None = None,
        run_name: str | None = None,
        parent_run_id: Any = None,
        tags: Mapping[str, str] | None = None,
        mlflow_conn_id: str = DEFAULT_CONN_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.parent_run_id = parent_run_id
        self.tags = tags

    def execute(self, context: Context) -> dict[str, Any]:
        """Find this DAG run's parent run, or create it."""
        let_supervisor_notice_the_end()
        task = identify(context)
        with self.tracking() as client:
            parent = parent_on(client, self, context, levels_up=1)
            experiment_id = experiment_id_for(client, self.experiment_name, parent)
            run = next(iter(parents_of_task(client, task.tags(), [experiment_id], airflow_url=airflow_url())), None)
            run = run or self._opened_before(context, client)
            params = _recordable(context["params"])
            if run is None:
                record = RunRecord(
                    client=client,
                    experiment_id=experiment_id,
                    name=shown(text_or_none(self.run_name) or self._default_name(task)),
                    task=task,
                    source=dag_source(context),
                    role="parent",
                    parent_run_id=as_run_id(parent),
                    parameters=params,
                    more_tags={key: shown(value) for key, value in own_tags(self.tags).items()},
                )
                run = record.open()
            else:
                self.log.info("This DAG run has a parent run already; it is reopened.")
                if run.tags.get(ENDED_AS):  # that end is no longer its last
                    client.log_batch(run.run_id, tags={ENDED_AS: ""})
                client.update_run(run.run_id, "RUNNING")
            if missing := {key: value for key, value in params.items() if key not in run.params}:
                client.log_batch(run.run_id, params=missing)
            earlier_tries.remember(context, run, None)
            if task.try_number > 1:
                self._close_others(client, task, run)
            self.publish(context, client, run)
            return self.xcom_of(run, "RUNNING")

    def _opened_before(self, context: Context, client: TrackingClient) -> Run | None:
        """Return the run of an earlier try that a project took its tags off, with those tags again."""
        left = earlier_tries.last(context) if context["ti"].try_number > 1 else None
        if left is None:
            return None
        for run in runs_by_id(client, [left["run_id"]]):
            client.log_batch(run.run_id, tags=left["tags"])
            return replace(run, tags={**run.tags, **left["tags"]})
        return None

    def _close_others(self, client: TrackingClient, task: TaskIdentity, run: Run) -> None:
        """Close what an earlier try of this task opened, whose answer was lost or late."""
        for other in parents_of_task(client, task.tags(), airflow_url=airflow_url()):
            if other.run_id != run.run_id and other.status in OPEN_STATUSES:
                self.log.warning("Run %s of an earlier try is KILLED; this try has %s.", other.run_id, run.run_id)
                close_abandoned(client, other.run_id, f"try {task.try_number} has run {run.run_id}", self.stop_job)

    def _default_name(self, task: TaskIdentity) -> str:
        name = str(self.task_group.label) if isinstance(self.task_group, RunGroup) else task.dag_id
        return indexed_name(name, task.map_index)


class MLflowEndRunOperator(MLflowRunOperator):
    """Close a parent run, and before it whatever is still open below it, unless Airflow still works on it.

    FAILED if a last task of the enclosing task group (without one: of the DAG) failed or could not run
    because of a failure upstream, else FINISHED: the rule by which Airflow judges a DAG run.

    :param run_id: the run: an id, or the start task's XCom; default: the parent of the enclosing
        ``mlflow_run`` (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server (templated)
    """

    template_fields: Sequence[str] = ("run_id", "mlflow_conn_id")

    def __init__(self, *, run_id: Any = None, mlflow_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.run_id = run_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the task states and close the run accordingly."""
        let_supervisor_notice_the_end()
        reason = self._why_unsuccessful(context)
        status: RunStatus = "FAILED" if reason else "FINISHED"
        with self.tracking() as client:
            own = self._runs_of_group(context, client)
            run = self._run_to_close(context, client, own)
            self._close_stragglers(context, client, run, own)
            is_told = reason or run.tags.get(REASON)  # a reopened run must lose its old reason
            tags = self._changed_tags(context, run)
            if end_if_there(client, run, status, reason if is_told else None, tags=tags):
                self.log.info("Parent run %s is %s. %s", run.run_id, status, reason)
            else:
                self.log.warning("Parent run %s was deleted in MLflow; it stays as it is.", run.run_id)
            self.publish(context, client, run)
        return self.xcom_of(run, status)

    def _runs_of_group(self, context: Context, client: TrackingClient) -> list[Run]:
        """Return the runs that tasks of this task's group opened, in a mapped one those of the same index."""
        ti: Any = context["ti"]
        group: Any = self.task_group
        names = {task.task_id for task in group.iter_tasks()}
        index = ti.map_index if self.get_closest_mapped_task_group() is not None else None
        found = runs_of_dag_run(client, ti.dag_id, ti.run_id, map_index=index, airflow_url=airflow_url())
        return [run for run in found if run.tags.get(TASK_ID) in names]

    def _run_to_close(self, context: Context, client: TrackingClient, own: Sequence[Run]) -> Run:
        """Return the parent run: by its id, or by its tags where the start task's XCom is lost."""
        if run_id := as_run_id(self.run_id) or as_run_id(enclosing_parent(self, context, client)):
            return next((run for run in own if run.run_id == run_id), None) or client.get_run(run_id)
        parents = [run for run in own if run.tags.get(ROLE) == "parent"]
        if not parents:
            raise AirflowFailException(
                "MLflowEndRunOperator has no run to close; pass the start task's output as run_id."
            )
        return parents[0]

    def _changed_tags(self, context: Context, run: Run) -> dict[str, str]:
        """Return the tags by which the parent run of this group is known, as far as a project changed them."""
        group: Any = self.task_group
        if not isinstance(group, RunGroup):
            return {}
        ti: Any = context["ti"]
        index = ti.map_index if self.get_closest_mapped_task_group() is not None else -1
        own = {DAG_ID: ti.dag_id, DAG_RUN_ID: ti.run_id, TASK_ID: group.start_run.task_id, MAP_INDEX: str(index)}
        return changed(run.tags, {**own, ROLE: "parent"})

    def _close_stragglers(self, context: Context, client: TrackingClient, parent: Run, own: Sequence[Run]) -> None:
        if not isinstance(self.task_group, RunGroup):  # beside this pair of start and end there may be others
            own = of_parent(own, parent)
        others = [run for run in own if run.run_id != parent.run_id]
        # A last task need not wait for all before it (trigger_rule="one_failed"): what still works ends by itself.
        alive = [run for run in latest_tries(others) if run.status in OPEN_STATUSES and _is_at_work(context, run)]
        spared = {run.run_id for run in [*alive, *open_below(client, alive)]}
        for run in [*open_below(client, [parent, *others]), *reversed(others)]:
            if run.status in OPEN_STATUSES and run.run_id not in spared:
                self.stop_job(run)
                if abandon(client, run, f"still open when {self.task_id} ran"):
                    self.log.warning("Run %s (%s) was still open; now it is closed.", run.run_id, run.name)

    def _why_unsuccessful(self, context: Context) -> str:
        ti: Any = context["ti"]
        group: Any = self.task_group
        work, last = work_of(group.iter_tasks())
        in_mapped_group = self.get_closest_mapped_task_group() is not None
        states = [
            (state["task_id"], -1 if in_mapped_group else state["map_index"], state["state"])
            for state in ti.get_task_breadcrumbs(ti.dag_id, ti.run_id)
            if state["task_id"] in work and (not in_mapped_group or state["map_index"] == ti.map_index)
        ]
        if reason := why_unsuccessful(states, last):
            return reason
        is_failed = ti.get_dagrun_state(ti.dag_id, ti.run_id) == "failed"
        return "a person, or dagrun_timeout, failed the DAG run before its end" if is_failed else ""


def _is_at_work(context: Context, run: Run) -> bool:
    """Ask Airflow whether the task of a run still has something to do."""
    ti: Any = context["ti"]
    task_id, index = task_of(run)
    state = task_state(ti, ti.dag_id, ti.run_id, task_id, int(index) if index.isdecimal() else -1)
    return state in ("running", "deferred")


def _recordable(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the DAG run's params as text, for the parent run."""
    return {
        key: shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))[
            :MAX_PARAM
        ]
        for key, value in dict(params).items()
        if value is not None and is_recordable(key)
    }
