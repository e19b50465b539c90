"""The parent run, which stands for a whole DAG run: opened first, closed last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowFailException

from mlflow_projects.operators.base import (
    DEFAULT_CONN_ID,
    MLflowRunOperator,
    as_run_id,
    bundle_checkout,
    experiment_id_for,
    identify,
    own_tags,
)
from mlflow_projects.operators.enclosing import RunGroup, enclosing_parent, parent_on
from mlflow_projects.operators.templates import text_or_none
from mlflow_projects.project.command import is_recordable
from mlflow_projects.project.work_tree import head_commit
from mlflow_projects.tracking.client import quoted
from mlflow_projects.tracking.closing import close_open_descendants, end_run, withdraw
from mlflow_projects.tracking.record import MAX_PARAM, RunRecord, SourceTags, TaskIdentity, find_parent, indexed_name
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, MAP_INDEX, REASON, ROLE, TASK_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.tracking.client import Run, RunStatus, TrackingClient

_UNSUCCESSFUL = frozenset({"failed", "upstream_failed"})


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
    :param mlflow_conn_id: Airflow connection to the tracking server
    """

    template_fields: Sequence[str] = ("experiment_name", "run_name", "parent_run_id", "tags")
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
        task = identify(context)
        with self.tracking() as client:
            parent = parent_on(client, self, context, levels_up=1)
            experiment_id = experiment_id_for(client, self.experiment_name, parent)
            run = find_parent(client, experiment_id, task)
            params = _recordable(context["params"])
            if run is None:
                record = RunRecord(
                    client=client,
                    experiment_id=experiment_id,
                    name=text_or_none(self.run_name) or self._default_name(task),
                    task=task,
                    source=_dag_source(context),
                    role="parent",
                    parent_run_id=as_run_id(self.parent_run_id) or as_run_id(parent),
                    parameters=params,
                    more_tags=own_tags(self.tags),
                )
                run = record.open()
            else:
                self.log.info("This DAG run has a parent run already; it is reopened.")
                client.update_run(run.run_id, "RUNNING")
            if missing := {key: value for key, value in params.items() if key not in run.params}:
                client.log_batch(run.run_id, params=missing)
            self.publish(context, client, run)
            return self.xcom_of(run, "RUNNING")

    def _default_name(self, task: TaskIdentity) -> str:
        name = str(self.task_group.label) if isinstance(self.task_group, RunGroup) else task.dag_id
        return indexed_name(name, task.map_index)


class MLflowEndRunOperator(MLflowRunOperator):
    """Close a parent run, and before it whatever is still open below it.

    FAILED if a last task of the enclosing task group (without one: of the DAG) failed or could not run
    because of a failure upstream, else FINISHED: the rule by which Airflow judges a DAG run.

    :param run_id: the run: an id, or the start task's XCom; default: the parent of the enclosing
        ``mlflow_run`` (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server
    """

    template_fields: Sequence[str] = ("run_id",)

    def __init__(self, *, run_id: Any = None, mlflow_conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self.run_id = run_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Read the task states and close the run accordingly."""
        run_id = as_run_id(self.run_id) or as_run_id(enclosing_parent(self, context))
        if run_id is None:
            raise AirflowFailException(
                "MLflowEndRunOperator has no run to close; pass the start task's output as run_id."
            )
        culprits = self._unsuccessful_leaves(context)
        ti: Any = context["ti"]
        if not culprits and ti.get_dagrun_state(ti.dag_id, ti.run_id) == "failed":
            culprits = ["the DAG run, which a person marked"]
        status: RunStatus = "FAILED" if culprits else "FINISHED"
        with self.tracking() as client:
            run = client.get_run(run_id)
            for straggler in close_open_descendants(
                client, run, f"still open when {self.task_id} ran", self.stop_job
            ):
                self.log.warning("Run %s (%s) was still open; now KILLED.", straggler.run_id, straggler.name)
            self._withdraw_failed(context, client, run)
            self._close(client, run, status, culprits)
            self.publish(context, client, run)
        return self.xcom_of(run, status)

    def _close(self, client: TrackingClient, run: Run, status: RunStatus, culprits: list[str]) -> None:
        reason = f"not successful: {', '.join(culprits)}" if culprits else ""
        is_told = reason or run.tags.get(REASON)  # a reopened run must lose its old reason
        end_run(client, run.run_id, status, reason if is_told else None)
        self.log.info("Parent run %s is %s. %s", run.run_id, status, reason)

    def _withdraw_failed(self, context: Context, client: TrackingClient, parent: Run) -> None:
        """Withdraw the success of steps that failed in Airflow: their worker died before it could report."""
        ti: Any = context["ti"]
        states: Iterable[Mapping[str, Any]] = ti.get_task_breadcrumbs(ti.dag_id, ti.run_id)
        failed = {(state["task_id"], str(state["map_index"])) for state in states if state["state"] == "failed"}
        if not failed:
            return
        query = f"tags.`{DAG_RUN_ID}` = {quoted(ti.run_id)} and tags.`{DAG_ID}` = {quoted(ti.dag_id)}"
        latest: dict[tuple[str, str], Run] = {}
        for run in client.search_runs([parent.experiment_id], f"{query} and tags.`{ROLE}` = 'step'"):
            key = (run.tags.get(TASK_ID, ""), run.tags.get(MAP_INDEX, ""))
            if key in failed and (key not in latest or (run.start_time or 0) > (latest[key].start_time or 0)):
                latest[key] = run
        for run in latest.values():
            if run.status == "FINISHED":
                self.log.warning("Run %s (%s) had FINISHED but its task failed; now KILLED.", run.run_id, run.name)
                withdraw(client, run, "its worker was lost before it could report the success to Airflow")

    def _unsuccessful_leaves(self, context: Context) -> list[str]:
        ti: Any = context["ti"]
        group: Any = self.task_group
        work = {task.task_id: task for task in group.iter_tasks() if not (task.is_setup or task.is_teardown)}
        leaves = {name for name, task in work.items() if not (task.downstream_task_ids & work.keys())}
        states: Iterable[Mapping[str, Any]] = ti.get_task_breadcrumbs(ti.dag_id, ti.run_id)
        in_mapped_group = self.get_closest_mapped_task_group() is not None
        return sorted(
            state["task_id"] if state["map_index"] < 0 else f"{state['task_id']}[{state['map_index']}]"
            for state in states
            if state["task_id"] in leaves
            and state["state"] in _UNSUCCESSFUL
            and (not in_mapped_group or state["map_index"] == ti.map_index)
        )


def _dag_source(context: Context) -> SourceTags:
    file = Path(context["dag"].fileloc)
    commit, repo_url, changed = head_commit(file.parent, bundle_checkout(context)) or (None, None, False)
    return SourceTags(name=str(file), kind="JOB", commit=commit, repo_url=repo_url, changed=changed)


def _recordable(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the DAG run's params as text, for the parent run."""
    return {
        key: (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))[:MAX_PARAM]
        for key, value in dict(params).items()
        if value is not None and is_recordable(key)
    }
