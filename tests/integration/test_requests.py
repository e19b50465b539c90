"""What a DAG run that succeeds asks Airflow's API server and the tracking server: each request takes time."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import httpx
import pytest
from airflow.sdk.api.client import Client

from tests.support.dagruns import run_dag

pytestmark = pytest.mark.usefixtures("airflow_db", "tracking_uri")

START = "PATCH task-instances/ID/run"
OF_ANY_TASK = [START, "PUT task-instances/ID/rtif", "POST RESULT", "PATCH task-instances/ID/state"]
# Besides those, which a BashOperator makes too; Airflow's supervisor adds heartbeats.
CONNECTION, LINK, OWN_STATE = "GET connections/mlflow_default", "POST LINK", "GET task-instances/states"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What this process sends to "airflow" and "mlflow", a list for each task in the order of their starts."""
    found: dict[str, list[list[str]]] = {"airflow": [], "mlflow": []}
    send = httpx.Client.send

    def counted(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        path = request.url.path.removeprefix("/api/2.0/mlflow/").removeprefix("/execution").lstrip("/")
        path = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", path)
        path = re.sub("^dag-runs/counted/[^/]+", "RUN", path)
        for xcom, name in (("return_value", "RESULT"), ("_link_MLflowRunLink", "LINK")):
            path = re.sub(f"^xcoms/counted/[^/]+/[^/]+/{xcom}(/slice)?$", name, path)
        kind = f"{request.method} {path}"
        if kind == START:
            for tasks in found.values():
                tasks.append([])
        found["airflow" if isinstance(self, Client) else "mlflow"][-1].append(kind)
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", counted)
    return found


def test_a_dag_run_that_succeeds_asks_no_more_than_it_must(sent: dict[str, list[list[str]]]) -> None:
    assert run_dag("counted").state == "success"
    bash, start, step, end = (Counter(task) for task in sent["airflow"])
    assert bash == Counter(OF_ANY_TASK)
    of_parent = "GET RESULT"
    # Where the next try, and whoever closes the run, finds it whatever a project does to its tags.
    kept = "PUT store/ti/ID/mlflow_run"
    assert start - bash == Counter([CONNECTION, kept, LINK])
    # With a look before the report of the success and after it.
    assert step - bash == Counter([CONNECTION, of_parent, kept, LINK, OWN_STATE, OWN_STATE])
    assert end - bash == Counter([CONNECTION, of_parent, "GET task-instances/breadcrumbs", "GET RUN/state", LINK])
    assert sent["mlflow"][0] == []
    assert sent["mlflow"][1] == [
        "GET experiments/get-by-name",
        "POST experiments/create",  # only once in a server's life
        "POST runs/search",
        "POST runs/create",
    ]
    assert sent["mlflow"][2] == ["POST runs/create", "GET runs/get", "POST runs/log-batch", "POST runs/update"]
    assert sent["mlflow"][3] == [
        "POST experiments/search",
        "POST runs/search",
        "POST runs/search",
        "POST runs/update",
    ]
