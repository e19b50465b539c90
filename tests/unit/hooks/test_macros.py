"""What a notice says of MLflow, when MLflow cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import DAG

from mlflow_projects import MLflowTaskOperator
from mlflow_projects.hooks.macros import mlflow_reason, mlflow_run_url, mlflow_tree
from mlflow_projects.tracking.client import TrackingClient, now
from tests.support.tracked import CONNECTION, TaskInstance, connected


def failed(conn_id: str) -> TaskInstance:
    with DAG("dag", schedule=None):
        return TaskInstance(
            "step", task=MLflowTaskOperator(task_id="step", python_callable=print, mlflow_conn_id=conn_id)
        )


def test_a_notice_about_a_connection_that_is_not_there_is_sent() -> None:
    ti = failed("not_there")
    assert (mlflow_run_url(ti), mlflow_reason(ti)) == ("", "")
    assert mlflow_tree({"dag_id": "dag", "dag_run_id": "1"}, "not_there") == ""


def test_a_notice_is_sent_whatever_goes_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(method: str, _: object) -> None:
        if method != "close":
            raise RuntimeError(method)

    client: TrackingClient = connected(monkeypatch)
    monkeypatch.setattr(client, "before", odd)
    assert mlflow_run_url(failed(CONNECTION)) == ""


def test_a_function_that_logs_to_a_run_of_others_has_the_page_of_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    client = connected(monkeypatch)
    run = client.create_run("0", "parent", now(), {})

    class Told(TaskInstance):
        def xcom_pull(self, task_ids: str, key: str = "", default: Any = None, map_indexes: Any = -1) -> Any:
            return {"run_id": run.run_id} if (task_ids, key, map_indexes) == ("step", "mlflow_run", -1) else default

    ti = Told("step", task=failed(CONNECTION).task)
    assert mlflow_run_url(ti) == client.settings.run_url("0", run.run_id) != ""
    assert mlflow_reason(ti) == "", "the reason would be that of others"
