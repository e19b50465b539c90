"""Which failure is tried again, when, and with what more."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.serialization.serialized_objects import DagSerialization

from mlflow_projects import MLflowProjectOperator, MLflowRetryPolicy, MLflowTaskOperator
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.failures import MLflowFailedException
from tests.support.tracked import TaskInstance

FAIL, RETRY, DEFAULT = RetryAction.FAIL, RetryAction.RETRY, RetryAction.DEFAULT


def decided(policy: MLflowRetryPolicy, error: BaseException, kills: int = 0) -> tuple[RetryAction, float | None]:
    task = SimpleNamespace(memory_kills=lambda context: kills, backend_config={})
    found = policy.evaluate(error, 1, 3, {"task": task})  # type: ignore[typeddict-item]
    return found.action, found.retry_delay and found.retry_delay.total_seconds()


def failed(cause: Any) -> MLflowFailedException:
    return MLflowFailedException("why", cause=cause)


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (failed("capacity"), (RETRY, 120)),
        (failed("interrupted"), (RETRY, 10)),
        (failed("tracking"), (RETRY, 60)),
        (failed("bad_input"), (FAIL, None)),
        (failed("killed_by_memory"), (FAIL, None)),
        (failed("user_error"), (DEFAULT, None)),
        (failed("timeout"), (DEFAULT, None)),
        (failed("unknown"), (DEFAULT, None)),
        (ValueError("of a function"), (DEFAULT, None)),
        (MemoryError(), (FAIL, None)),
        (AirflowTaskTimeout(), (DEFAULT, None)),
    ],
)
def test_without_rules_a_cause_says_what_makes_sense(error: BaseException, decision: Any) -> None:
    assert decided(MLflowRetryPolicy(), error) == decision


@pytest.mark.parametrize(
    ("rule", "decision"), [("fail", (FAIL, None)), ("retry", (RETRY, None)), (timedelta(minutes=9), (RETRY, 540))]
)
def test_a_rule_counts_over_the_default(rule: Any, decision: Any) -> None:
    policy = MLflowRetryPolicy({"user_error": rule, "capacity": rule})
    assert decided(policy, failed("user_error")) == decided(policy, failed("capacity")) == decision
    assert decided(policy, failed("interrupted")) == (RETRY, 10)


@pytest.mark.parametrize("kind", [PythonOperator, MLflowTaskOperator])
def test_what_has_no_memory_to_get_more_of_is_not_tried_again_for_it(kind: Any) -> None:
    """A policy may stand in the default_args of a whole DAG."""
    task = kind(task_id="step", python_callable=print)
    policy = MLflowRetryPolicy(escalate={"docker_memory": ["4g"]})
    found = policy.evaluate(MemoryError(), 1, 3, {"task": task, "ti": TaskInstance("step")})  # type: ignore[typeddict-item]
    assert found.action == FAIL


def test_memory_grows_with_each_kill_until_the_list_ends() -> None:
    policy = MLflowRetryPolicy(escalate={"docker_memory": ["4g", "8g"], "instance_type": ["a", "b", "c"]})
    assert [policy.more_after(kills) for kills in range(3)] == [
        {}, {"docker_memory": "4g", "instance_type": "a"}, {"docker_memory": "8g", "instance_type": "b"},
    ]  # fmt: skip
    assert [decided(policy, failed("killed_by_memory"), kills) for kills in (1, 2, 3)] == [
        (RETRY, 1), (RETRY, 1), (FAIL, None),
    ]  # fmt: skip


def test_the_decision_says_why() -> None:
    policy = MLflowRetryPolicy(escalate={"docker_memory": ["4g"]})
    task = SimpleNamespace(memory_kills=lambda context: 1, backend_config={})
    found = policy.evaluate(failed("killed_by_memory"), 1, 3, {"task": task})  # type: ignore[typeddict-item]
    assert found.reason == "killed_by_memory: again with {'docker_memory': '4g'}"
    assert policy.evaluate(failed("bad_input"), 1, 3).reason == "bad_input: no other try"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rules": {"memory": "fail"}}, "has no cause 'memory'; there are: killed_by_memory, user_error"),
        ({"rules": {"timeout": "never"}}, "the rule for 'timeout' is 'fail', 'retry' or a timedelta"),
        ({"rules": {"timeout": 3}}, "the rule for 'timeout' is 'fail', 'retry' or a timedelta"),
        ({"escalate": {"docker_memory": "4g"}}, r"escalate\['docker_memory'\] must be a list"),
        ({"escalate": {"docker_memory": []}}, r"escalate\['docker_memory'\] must be a list"),
    ],
)
def test_what_it_does_not_know_is_one_sentence(arguments: Any, sentence: str) -> None:
    with pytest.raises(ProjectError, match=sentence):
        MLflowRetryPolicy(**arguments)


def test_an_error_keeps_its_story_in_a_copy() -> None:
    error = MLflowFailedException("why", cause="capacity", status="KILLED", exit_code=3)
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error) == {"reason": "why", "cause": "capacity", "status": "KILLED", "exit_code": 3}


def test_json_and_a_serialized_dag_hold_it() -> None:
    policy = MLflowRetryPolicy(
        {"timeout": "retry", "capacity": timedelta(minutes=1)}, escalate={"docker_memory": ("4g", "8g")}
    )
    again = MLflowRetryPolicy.deserialize(json.loads(json.dumps(policy.serialize())))
    assert (again.rules, again.escalate) == (policy.rules, {"docker_memory": ["4g", "8g"]})
    with DAG("dag", schedule=None) as dag:
        MLflowProjectOperator(task_id="step", uri="/project", retry_policy=policy)
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("step")
