"""MLflow Projects as Apache Airflow tasks: one attempt of a task is one MLflow run.

The public names are loaded on first use, so that importing this package (which the Airflow
scheduler, triggerer and API server all do) costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_projects.decorators.mlflow_task import mlflow_task
    from mlflow_projects.hooks.mlflow_hook import MLflowHook
    from mlflow_projects.operators.conditions import skip_unless
    from mlflow_projects.operators.environment import mlflow_environment
    from mlflow_projects.operators.function import MLflowTaskOperator
    from mlflow_projects.operators.grid import ParameterGridOperator
    from mlflow_projects.operators.models import (
        MLflowBestRunOperator,
        MLflowPromoteModelOperator,
        MLflowRegisterModelOperator,
    )
    from mlflow_projects.operators.project import MLflowProjectOperator
    from mlflow_projects.operators.references import artifact
    from mlflow_projects.operators.retry_policy import MLflowRetryPolicy
    from mlflow_projects.operators.run_group import mlflow_run
    from mlflow_projects.operators.runs import MLflowEndRunOperator, MLflowStartRunOperator
    from mlflow_projects.sensors.model_version import MLflowModelVersionSensor
    from mlflow_projects.triggers.model_events import MLflowModelTrigger

__version__ = "0.1.0"

__all__ = [
    "MLflowBestRunOperator",
    "MLflowEndRunOperator",
    "MLflowHook",
    "MLflowModelTrigger",
    "MLflowModelVersionSensor",
    "MLflowProjectOperator",
    "MLflowPromoteModelOperator",
    "MLflowRegisterModelOperator",
    "MLflowRetryPolicy",
    "MLflowStartRunOperator",
    "MLflowTaskOperator",
    "ParameterGridOperator",
    "artifact",
    "mlflow_environment",
    "mlflow_run",
    "mlflow_task",
    "skip_unless",
]

_HOMES = {
    "MLflowBestRunOperator": "mlflow_projects.operators.models",
    "MLflowEndRunOperator": "mlflow_projects.operators.runs",
    "MLflowHook": "mlflow_projects.hooks.mlflow_hook",
    "MLflowModelTrigger": "mlflow_projects.triggers.model_events",
    "MLflowModelVersionSensor": "mlflow_projects.sensors.model_version",
    "MLflowProjectOperator": "mlflow_projects.operators.project",
    "MLflowPromoteModelOperator": "mlflow_projects.operators.models",
    "MLflowRegisterModelOperator": "mlflow_projects.operators.models",
    "MLflowRetryPolicy": "mlflow_projects.operators.retry_policy",
    "MLflowStartRunOperator": "mlflow_projects.operators.runs",
    "MLflowTaskOperator": "mlflow_projects.operators.function",
    "ParameterGridOperator": "mlflow_projects.operators.grid",
    "artifact": "mlflow_projects.operators.references",
    "mlflow_environment": "mlflow_projects.operators.environment",
    "mlflow_run": "mlflow_projects.operators.run_group",
    "mlflow_task": "mlflow_projects.decorators.mlflow_task",
    "skip_unless": "mlflow_projects.operators.conditions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def get_provider_info() -> dict[str, Any]:
    """Describe this package to Airflow's providers manager (connection type and its form)."""
    from mlflow_projects.provider_info import PROVIDER_INFO

    return PROVIDER_INFO
