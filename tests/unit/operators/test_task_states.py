"""What Airflow says of a task, and whether that means that a success was not taken."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from mlflow_projects.operators.task_states import CLEARED, own_state, refused_success, task_state
from tests.support.tracked import TaskInstance


def test_a_task_is_asked_for_by_its_index() -> None:
    ti = TaskInstance("own", states={("a", -1): "success", ("m", 0): "failed", ("m", 2): "running", ("c", -1): None})
    assert task_state(ti, "dag", "manual__1", "a") == "success"
    assert task_state(ti, "dag", "manual__1", "m", 0) == "failed"
    assert task_state(ti, "dag", "manual__1", "m", 2) == "running"
    assert task_state(ti, "dag", "manual__1", "c") == CLEARED == ""
    for unknown in (
        ("dag", "manual__1", "x"),
        ("dag", "manual__1", "m"),
        ("dag", "r2", "a"),
        ("other", "manual__1", "a"),
    ):
        assert task_state(ti, *unknown) is None


@pytest.mark.parametrize(("index", "state"), [(None, "success"), (-1, "success"), (0, "failed"), (3, None)])
def test_a_task_asks_for_itself(index: int | None, state: str | None) -> None:
    assert own_state(TaskInstance("t", map_index=index, states={("t", -1): "success", ("t", 0): "failed"})) == state


def test_an_airflow_that_does_not_answer_says_nothing() -> None:
    class Silent(TaskInstance):
        def get_task_states(self, *_: Any, **__: Any) -> Any:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR))

    assert own_state(Silent("t")) is None


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ("running", "success", False),
        ("running", "running", False),
        ("running", None, False),
        ("running", "failed", True),
        ("running", "skipped", True),
        ("running", "upstream_failed", True),
        ("running", "restarting", True),
        # Cleared after the success was taken …
        ("running", CLEARED, False),
        ("running", "scheduled", False),
        ("running", "queued", False),
        # … and before it.
        ("restarting", CLEARED, True),
        ("restarting", "queued", True),
        (None, "queued", True),
        ("failed", "failed", True),
        ("failed", "success", False),
    ],
)
def test_a_success_is_refused_if_airflow_had_decided_otherwise(
    before: str | None, after: str | None, refused: bool
) -> None:
    assert refused_success(before, after) is refused
