"""Keep MLflow from calling a step FINISHED that Airflow called something else in the last moment."""

from __future__ import annotations

import sys
from typing import Any

from airflow.listeners import hookimpl


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Let a step look whether Airflow took its success; called in the task process, after the report."""
    if step := _step_of(task_instance):
        step.confirm_success(task_instance)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """Let a step withdraw a success after which its task failed; called in the task process, after the report."""
    if step := _step_of(task_instance):
        step.take_back_success(error)


def _step_of(task_instance: Any) -> Any:
    # A task process that never loaded our operator does not run one; loading it here would cost all others.
    module = sys.modules.get("mlflow_projects.operators.step")
    task = getattr(task_instance, "task", None)
    return task if module and isinstance(task, module.MLflowStepOperator) else None
