"""What sweeps need beside the steps: the grid of parameters, and tasks that a param switches on."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from mlflow_projects import ParameterGridOperator, skip_unless


def test_the_grid_has_each_combination_and_the_first_axis_changes_slowest() -> None:
    grid = ParameterGridOperator(task_id="grid", axes={"a": "[1, 2.5]", "b": ["x", "y"]}, common={"c": 0})
    assert grid.execute({}) == [{"c": 0, "a": a, "b": b} for a in (1, 2.5) for b in "xy"]


@pytest.mark.parametrize("given", ["[]", "0.5", "no JSON", None, {"a": 1}])
def test_an_axis_that_is_no_list_or_empty_is_refused(given: Any) -> None:
    with pytest.raises(AirflowFailException, match="'grid': the axis 'alpha' must be a list with at least one value"):
        ParameterGridOperator(task_id="grid", axes={"alpha": given}).execute({})


def test_a_task_is_skipped_unless_the_param_is_on() -> None:
    check: Any = skip_unless("approval")
    check({"params": {"approval": True}})
    with pytest.raises(AirflowSkipException, match="'approval' is off"):
        check({"params": {"approval": False}})


def test_a_task_is_skipped_unless_the_param_has_the_value() -> None:
    check: Any = skip_unless("approve", "ask")
    check({"params": {"approve": "ask"}})
    with pytest.raises(AirflowSkipException, match="'approve' is 'auto', not 'ask'"):
        check({"params": {"approve": "auto"}})


def test_a_param_that_is_not_there_is_one_sentence() -> None:
    check: Any = skip_unless("aprove", "ask")
    with pytest.raises(AirflowFailException, match="no param 'aprove'; there are: 'approve', 'limit'"):
        check({"params": {"approve": "ask", "limit": 1}})
