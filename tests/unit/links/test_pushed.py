"""Which links are left for Airflow to write at the end of a task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink

from mlflow_projects import MLflowProjectOperator
from mlflow_projects.links.pushed import push_links
from mlflow_projects.links.run import MLflowRunLink


class _TeamLink(BaseOperatorLink):
    name = "Team's page"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return "https://example.org"


class _TeamsOperator(MLflowProjectOperator):
    operator_extra_links = (*MLflowProjectOperator.operator_extra_links, _TeamLink())


class _TaskInstance(dict[str, str]):
    def xcom_push(self, key: str, value: str) -> None:
        self[key] = value


def test_a_link_that_a_team_added_is_left_to_airflow() -> None:
    operator, instance = _TeamsOperator(task_id="step", uri="."), _TaskInstance()
    context: Any = {"ti": instance}
    running = operator.prepare_for_execution()
    push_links(running, context, (MLflowRunLink(), "https://mlflow.example.org/run"))
    assert instance == {"_link_MLflowRunLink": "https://mlflow.example.org/run"}
    assert [link.name for link in running.operator_extra_links] == ["Team's page"]
    names = ["MLflow run", "SageMaker job", "CloudWatch logs", "Team's page"]
    assert [link.name for link in operator.operator_extra_links] == names
