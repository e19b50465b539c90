"""Metrics and parameters of a step, as arguments of later tasks."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from mlflow_projects import MLflowProjectOperator, MLflowTaskOperator
from mlflow_projects.plugin import MLflowProjectsPlugin
from tests.support.tracked import TaskInstance, context_of

RUN = {
    "run_id": "r1", "artifact_uri": "s3://b/a", "metrics": {"accuracy": 0.75, "loss": 2.0},
    "params": {"rate": "0.1"}, "models": {},
}  # fmt: skip


@pytest.fixture
def dag() -> DAG:
    return DAG("dag", schedule=None)


def step_of(dag: DAG, kind: str) -> Any:
    with dag:
        if kind == "project":
            return MLflowProjectOperator(task_id="train", uri="/project")
        return MLflowTaskOperator(task_id="train", python_callable=lambda: None)


class Pulls(TaskInstance):
    """Has what the step left under the key of its run."""

    key = "return_value"

    def xcom_pull(self, task_ids: Any, key: str = "return_value", **_: Any) -> Any:
        return RUN if key == self.key else "what it returned"


@pytest.mark.parametrize(("kind", "key"), [("project", "return_value"), ("function", "mlflow_run")])
def test_a_later_task_gets_the_value_and_waits_for_the_step(dag: DAG, kind: str, key: str) -> None:
    step = step_of(dag, kind)
    seen = []
    with dag:

        @task.branch
        def decide(accuracy: float, rate: str) -> str:
            return "good" if accuracy > 0.5 else "bad"

        decide(step.metric("accuracy"), rate=step.param("rate"))
    later = dag.get_task("decide")
    assert later.upstream_task_ids == {"train"}
    ti = Pulls("decide")
    ti.key = key
    context: Any = context_of(dag, ti)
    seen = [step.metric("accuracy").resolve(context), step.param("rate").resolve(context)]
    assert seen == [0.75, "0.1"]


def rendered(dag: DAG, text: str, key: str) -> str:
    """Return what a template of another operator gives, as Airflow renders it."""
    ti = Pulls("later")
    ti.key = key
    ours = {macro.__name__: macro for macro in MLflowProjectsPlugin.macros}
    macros = type("Macros", (), {"mlflow_projects": type("Ours", (), ours)})
    with dag:
        later = BashOperator(task_id="later", bash_command=text)
    later.render_template_fields({**context_of(dag, ti), "macros": macros})  # type: ignore[typeddict-item]
    return str(later.bash_command)


@pytest.mark.parametrize(("kind", "key"), [("project", "return_value"), ("function", "mlflow_run")])
def test_a_template_has_the_value(dag: DAG, kind: str, key: str) -> None:
    step = step_of(dag, kind)
    assert rendered(dag, f"at {step.metric('loss')}, {step.param('rate')}", key) == "at 2.0, 0.1"


def test_in_a_template_too_a_name_that_is_not_there_names_those_that_are(dag: DAG) -> None:
    step = step_of(dag, "project")
    with pytest.raises(AirflowFailException) as refused:
        rendered(dag, f"{step.metric('acuracy')}", "return_value")
    assert str(refused.value) == "Task 'train' logged no metric 'acuracy'; its run has: 'accuracy', 'loss'."


def test_a_name_that_is_not_there_names_those_that_are(dag: DAG) -> None:
    step = step_of(dag, "project")
    context: Any = context_of(dag, Pulls("later"))
    with pytest.raises(AirflowFailException) as refused:
        step.metric("acuracy").resolve(context)
    assert str(refused.value) == "Task 'train' logged no metric 'acuracy'; its run has: 'accuracy', 'loss'."
    with pytest.raises(AirflowFailException, match=r"logged no param 'x'; its run has: 'rate'\."):
        step.param("x").resolve(context)


def test_of_a_mapped_step_it_is_a_list(dag: DAG) -> None:
    step = step_of(dag, "project")
    reference = step.metric("loss")
    assert [reference.of(run) for run in (RUN, {**RUN, "metrics": {"loss": 1.0}})] == [2.0, 1.0]
