"""The tabs "MLflow" on the pages of a DAG and of a DAG run in Airflow's UI.

This module is all that the plugin loads in every Airflow process; the web app itself is built in the API
server only (:mod:`mlflow_projects.ui.app`).
"""

from __future__ import annotations

from typing import Any

URL_PREFIX = "/mlflow_projects"
RUN_TAB = "mlflow-run"
DAG_TAB = "mlflow"

# Airflow fills in {DAG_ID} and {RUN_ID}, URL-encoded. Without a leading slash an address also works where Airflow
# lives under a sub-path. A run id may hold what a path may not, so it goes into the query.
EXTERNAL_VIEWS: list[dict[str, Any]] = [
    {
        "name": "MLflow",
        "href": f"{URL_PREFIX.lstrip('/')}/dags/{{DAG_ID}}/run?run_id={{RUN_ID}}",
        "destination": "dag_run",
        "url_route": RUN_TAB,
    },
    {
        "name": "MLflow",
        "href": f"{URL_PREFIX.lstrip('/')}/dags/{{DAG_ID}}/compare",
        "destination": "dag",
        "url_route": DAG_TAB,
    },
]


def fastapi_app() -> dict[str, Any]:
    """Return what Airflow's API server mounts."""
    from mlflow_projects.ui.app import build_app

    return {"app": build_app(), "url_prefix": URL_PREFIX, "name": "MLflow Projects"}
