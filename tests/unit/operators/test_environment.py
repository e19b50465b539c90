"""Variables with which another operator's command reaches MLflow: what they hold, and what nobody may see of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk.execution_time.task_runner import _serialize_rendered_fields

from mlflow_projects import mlflow_environment, mlflow_run
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.environment import mlflow_variable
from mlflow_projects.plugin import MLflowProjectsPlugin
from mlflow_projects.tracking.client import now
from tests.support.tracked import CONNECTION, TaskInstance, connected

PASSWORD, TOKEN = "planted-Pass-19", "planted-Token-77"


def rendered(monkeypatch: pytest.MonkeyPatch, connection: dict[str, str], *, login: bool) -> BashOperator:
    """Return an operator whose templates were rendered as Airflow does before a task."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", **connection}))
    env = mlflow_environment("own", login=login)
    server = {name: value for name, value in env.items() if name.startswith("MLFLOW_TRACKING")}
    with DAG("dag", schedule=None):
        step = BashOperator(task_id="step", bash_command="true", env=server)
    ours = {macro.__name__: macro for macro in MLflowProjectsPlugin.macros}
    macros: Any = type("Macros", (), {"mlflow_projects": type("Ours", (), ours)})
    step.render_template_fields({"ti": TaskInstance("step"), "task": step, "macros": macros})  # type: ignore[typeddict-item]
    return step


@pytest.mark.parametrize("login", [True, False])
@pytest.mark.parametrize("secret", [{"login": "me", "password": PASSWORD}, {"password": TOKEN}])
def test_the_login_is_in_the_command_alone(
    monkeypatch: pytest.MonkeyPatch, login: bool, secret: dict[str, str]
) -> None:
    step = rendered(monkeypatch, {"host": "http://mlflow.test", **secret}, login=login)
    assert step.env is not None
    assert (secret["password"] in step.env.values()) is login
    assert step.env["MLFLOW_TRACKING_URI"] == "http://mlflow.test"
    assert secret["password"] not in str(_serialize_rendered_fields(step)), "what Airflow's page shows"


def test_without_the_login_an_address_that_holds_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    database = {"host": f"postgresql://me:{PASSWORD}@db.test/mlflow"}
    with pytest.raises(Exception, match=r"mlflow_environment\(login=False\) would give the password") as refused:
        rendered(monkeypatch, database, login=False)
    assert PASSWORD not in str(refused.value)
    step = rendered(monkeypatch, database, login=True)
    assert step.env is not None
    assert PASSWORD in step.env["MLFLOW_TRACKING_URI"]
    assert PASSWORD not in str(_serialize_rendered_fields(step))


@pytest.mark.parametrize("log_to", ["own", "parent"])
def test_a_parent_on_another_server_is_refused(monkeypatch: pytest.MonkeyPatch, log_to: str) -> None:
    """Its experiment's id may be that of another experiment there."""
    client = connected(monkeypatch)
    with DAG("dag", schedule=None), mlflow_run("g", mlflow_conn_id="other"):
        step = BashOperator(task_id="step", bash_command="true")
    parent = {"run_id": "not here", "experiment_id": "0", "mlflow_conn_id": "other"}
    ti = TaskInstance("g.step", returned={("g.start_run", -1): parent})
    with pytest.raises(
        ProjectError, match=f"uses the connection '{CONNECTION}', but the parent run of its mlflow_run"
    ):
        mlflow_variable("MLFLOW_EXPERIMENT_ID", step, ti, log_to, CONNECTION)
    parent["run_id"] = client.create_run("0", "parent", now(), {}).run_id  # two connections to one server
    assert mlflow_variable("MLFLOW_EXPERIMENT_ID", step, ti, log_to, CONNECTION) == "0"


def test_the_output_of_a_task_is_no_text_to_log_to() -> None:
    with (
        DAG("dag", schedule=None),
        pytest.raises(ProjectError, match="log_to is 'parent', 'own' or a run's id as text"),
    ):
        mlflow_environment(BashOperator(task_id="first", bash_command="true").output)  # type: ignore[arg-type]
