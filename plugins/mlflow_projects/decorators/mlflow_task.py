"""``@task.mlflow``: a Python function as a task that is one MLflow run.

The same function is importable as ``mlflow_task``: editors know it, and it works where ``plugins/`` was only copied,
so that Airflow knows no provider of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from mlflow_projects.operators.function import MLflowTaskOperator

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator


class _MLflowDecoratedOperator(DecoratedOperator, MLflowTaskOperator):
    template_fields: Sequence[str] = MLflowTaskOperator.template_fields
    template_fields_renderers = MLflowTaskOperator.template_fields_renderers
    custom_operator_name = "@task.mlflow"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        own: dict[str, Any] = {"python_callable": python_callable, "op_args": op_args, "op_kwargs": op_kwargs}
        super().__init__(kwargs_to_upstream=own, **own, **kwargs)


def mlflow_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Make a task of a function; each try of it is one MLflow run.

    Inside of the function ``mlflow.log_metric(…)`` and the like reach that run. What the function returns is the
    task's XCom; the run is under the key ``mlflow_run``.

    :param python_callable: the function
    :param multiple_outputs: as of Airflow's ``@task``
    :param kwargs: arguments of :class:`mlflow_projects.MLflowTaskOperator`, and of Airflow's own operators
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_MLflowDecoratedOperator,
        **kwargs,
    )
