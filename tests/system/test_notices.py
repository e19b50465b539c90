"""Notices reach a real mail server and a real address, from the docs' example on a real Airflow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from mlflow_projects.hooks.macros import mlflow_tree
from tests.conftest import ROOT
from tests.support.airflow import Deployment, running_airflow
from tests.support.sinks import mail_server, message_server
from tests.support.waiting import wait

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
EXAMPLE = (ROOT / "docs" / "examples" / "notices.py").read_text()


class Told(NamedTuple):
    deployment: Deployment
    mails: list[EmailMessage]
    messages: list[tuple[str, Any]]

    def mail(self, subject: str) -> str:
        """Wait for the mail of this subject; return its text."""
        mail = wait(lambda: next((mail for mail in self.mails if mail["Subject"] == subject), None), subject)
        assert (mail["To"], mail["From"]) == ("team@example.org", "airflow@example.org")
        (part,) = (part for part in mail.walk() if part.get_content_type() == "text/html")
        return str(part.get_content())

    def start(self, **conf: str) -> str:
        with self.deployment.client() as airflow:
            body = {"logical_date": None, "conf": conf}
            wait(lambda: airflow.get("/api/v2/dags/notices").status_code == 200, "the DAG")
            return str(airflow.post("/api/v2/dags/notices/dagRuns", json=body).json()["dag_run_id"])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Run Airflow with the docs' example, whose every DAG run is late."""
    folder = tmp_path_factory.mktemp("examples")
    example = EXAMPLE.replace("timedelta(hours=2)", "timedelta(0)").replace('"@daily"', "None")
    (folder / "notices.py").write_text(example)
    with mail_server() as (mail, mails), message_server() as (chat, messages):
        more = {
            "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(mail),
            "AIRFLOW_CONN_CHAT": json.dumps(chat),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),  # also where another copy is installed
        }
        home = tmp_path_factory.mktemp("airflow") / "home"
        with running_airflow(home, [folder / "notices.py"], [], more) as deployment:
            yield Told(deployment, mails, messages)


def test_a_failure_and_a_late_dag_run_are_told_with_reason_and_address(told: Told) -> None:
    from mlflow import MlflowClient

    told.start(data="/no/such/<file>")
    failed = told.mail("orders.count failed")
    client = MlflowClient(told.deployment.mlflow_url)
    experiment = client.get_experiment_by_name("orders").experiment_id
    (run,) = client.search_runs([experiment], "tags.`airflow.task_id` = 'orders.count'")
    url = f"{told.deployment.mlflow_url}/#/experiments/{experiment}/runs/{run.info.run_id}"
    reason = run.data.tags["mlflow_projects.reason"]
    assert "/no/such/<file>" in reason
    assert f'<a href="{url}">' in failed
    assert f"<p>{reason.replace('<', '&lt;').replace('>', '&gt;').replace(chr(39), '&#39;')}</p>" in failed
    assert "orders RUNNING" in failed
    assert "  count FAILED" in failed
    (message,) = wait(lambda: told.messages, "the message")
    assert message == ("/messages", {"text": f"orders.count: {reason} {url}"})
    assert "<pre>" in told.mail("notices is late")


def test_a_deadline_s_callback_may_ask_for_the_tree_too(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = told.start(data=__file__)
    with told.deployment.client() as airflow:
        url = f"/api/v2/dags/notices/dagRuns/{run_id}"
        wait(lambda: airflow.get(url).json()["state"] == "success", "the DAG run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", told.deployment.mlflow_url)
    tree = mlflow_tree({"dag_id": "notices", "dag_run_id": run_id})
    assert tree.splitlines() == ["orders FINISHED", "  count FINISHED"]
    assert mlflow_tree(SimpleNamespace(dag_id="notices", run_id=run_id)) == tree
