"""``mlflow_run``: a task group whose steps become the children of one MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.enclosing import RunGroup
from mlflow_projects.operators.runs import MLflowEndRunOperator, MLflowStartRunOperator

START_TASK = "start_run"
END_TASK = "end_run"
# Of default_args these are meant for the steps: a step's time-out, say, must not end the closing.
_OF_STEPS_ONLY: Mapping[str, Any] = {
    "trigger_rule": "all_success",
    "execution_timeout": None,
    "pool": None,
    "pool_slots": 1,
    "do_xcom_push": True,
}


class mlflow_run(RunGroup):
    """Open a parent run before the tasks inside and close it, truthfully, after them.

    The start is a setup task and the end its teardown, so the end also runs after failures, a clear of any
    step runs both again, and the end's own success never turns a failed DAG run green. Groups may be
    nested: the inner parent run becomes a child of the outer one.

    ``default_args`` of the group and of the DAG count for the start and the end task as for the steps
    (``mlflow_conn_id`` and ``experiment_name`` among them), but for ``trigger_rule``, ``execution_timeout`` and
    ``pool``.

    :param group_id: also the parent run's name; in a mapped task group with its index, such as ``pipeline[2]``
    :param experiment_name: for the parent and, unless they name their own, its steps (templated)
    :param run_name: another name for the parent run (templated)
    :param tags: more tags for the parent run (templated)
    :param mlflow_conn_id: Airflow connection to the tracking server, for the steps too unless they name their own
    :param start_end_args: Airflow's own arguments for the start and the end task alone, over ``default_args``:
        ``{"queue": "default"}`` keeps them off the workers that the steps need
    """

    def __init__(
        self,
        group_id: str,
        *,
        experiment_name: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        mlflow_conn_id: str | None = None,
        start_end_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if mlflow_conn_id:
            kwargs["default_args"] = {**(kwargs.get("default_args") or {}), "mlflow_conn_id": mlflow_conn_id}
        super().__init__(group_id=group_id, **kwargs)
        self._of_both: dict[str, Any] = {**_OF_STEPS_ONLY, **(start_end_args or {})}
        given = {"experiment_name": experiment_name, "run_name": run_name, "tags": tags}
        # An argument that is passed as None would hide what default_args say.
        self._start_arguments: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    def __enter__(self) -> mlflow_run:
        super().__enter__()
        self.start_run = MLflowStartRunOperator(task_id=START_TASK, **self._start_arguments, **self._of_both)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._surround()
        finally:  # or later tasks would be put into this group
            super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def _surround(self) -> None:
        """Put the start before the first tasks and the end after the last.

        :raises ProjectError: Airflow lets a first task not follow a start
        """
        inside = {task.task_id: task for task in self.iter_tasks() if task is not self.start_run}
        end = MLflowEndRunOperator(task_id=END_TASK, run_id=self.start_run.output, **self._of_both)
        first = [task for task in inside.values() if not task.upstream_task_ids & inside.keys()]
        last = [task for task in inside.values() if not task.downstream_task_ids & inside.keys()]
        for task in first:
            if not task.is_teardown and task.trigger_rule != "all_success":  # Airflow's own error names none
                raise ProjectError(
                    f"Task {task.task_id!r} has the trigger_rule {task.trigger_rule.value!r}, but Airflow lets "
                    "only 'all_success' follow the start of an mlflow_run; give the task that one (it counts over "
                    "default_args), or put a task before it."
                )
        self.start_run.set_downstream(first)
        end.set_upstream(last)
        end.as_teardown(setups=self.start_run)
