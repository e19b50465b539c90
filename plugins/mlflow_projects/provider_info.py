"""What Airflow's providers manager reads: what there is, the connection type with its form, and our configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mlflow_projects.config import OPTIONS
from mlflow_projects.hooks.connection_form import BEHAVIOUR, FIELDS

_MLFLOW = "MLflow"

PROVIDER_INFO: dict[str, Any] = {
    "package-name": "mlflow-projects-on-airflow",
    "name": "MLflow Projects",
    "description": "Run MLflow Projects as Airflow tasks: one attempt, one MLflow run.",
    "integrations": [
        {"integration-name": _MLFLOW, "external-doc-url": "https://mlflow.org/", "tags": ["machine-learning"]},
    ],
    "operators": [
        {
            "integration-name": _MLFLOW,
            "python-modules": [
                "mlflow_projects.operators.function",
                "mlflow_projects.operators.grid",
                "mlflow_projects.operators.models",
                "mlflow_projects.operators.project",
                "mlflow_projects.operators.runs",
            ],
        }
    ],
    "sensors": [{"integration-name": _MLFLOW, "python-modules": ["mlflow_projects.sensors.model_version"]}],
    "hooks": [{"integration-name": _MLFLOW, "python-modules": ["mlflow_projects.hooks.mlflow_hook"]}],
    "triggers": [
        {
            "integration-name": _MLFLOW,
            "python-modules": [
                "mlflow_projects.triggers.job",
                "mlflow_projects.triggers.model_events",
                "mlflow_projects.triggers.model_version",
            ],
        }
    ],
    "connection-types": [
        {
            "connection-type": "mlflow",
            "hook-class-name": "mlflow_projects.hooks.mlflow_hook.MLflowHook",
            "hook-name": "MLflow",
            "ui-field-behaviour": BEHAVIOUR,
            "conn-fields": FIELDS,
        }
    ],
    "task-decorators": [
        {"name": "mlflow", "class-name": "mlflow_projects.decorators.mlflow_task.mlflow_task"},
    ],
    "asset-uris": [
        {
            "schemes": ["mlflow"],
            "handler": "mlflow_projects.hooks.asset_uris.normalized",
            "to_openlineage_converter": "mlflow_projects.hooks.asset_uris.to_openlineage",
        }
    ],
    "extra-links": [
        "mlflow_projects.links.model.MLflowModelLink",
        "mlflow_projects.links.run.MLflowRunLink",
    ],
    "config": {
        "mlflow_projects": {
            "description": "How MLflow Projects run as Airflow tasks.",
            "options": {name: asdict(option) for name, option in OPTIONS.items()},
        }
    },
}
