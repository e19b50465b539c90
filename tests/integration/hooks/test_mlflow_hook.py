"""The hook's own look at the tracking server, behind the button "Test" of a connection."""

from __future__ import annotations

import json

import pytest
from airflow.sdk.exceptions import AirflowNotFoundException

from mlflow_projects import MLflowHook


@pytest.mark.usefixtures("airflow_db")
def test_the_hook_reads_the_connection_and_tests_it(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    assert MLflowHook().test_connection()[0] is True
    monkeypatch.setenv(
        "AIRFLOW_CONN_MLFLOW_DEFAULT",
        json.dumps({"conn_type": "mlflow", "host": "http://127.0.0.1:9", "extra": {"max_retries": 0}}),
    )
    ok, message = MLflowHook().test_connection()
    assert (ok, "Connection refused" in message) == (False, True)
    with pytest.raises(AirflowNotFoundException):
        MLflowHook("no_such_connection").settings  # noqa: B018
