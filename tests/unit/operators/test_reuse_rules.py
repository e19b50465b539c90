"""How a step's argument, the DAG run's wish and what Airflow knows become the rules of one attempt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.reuse_rules import is_abandoned, reuse_mode, reuse_of
from mlflow_projects.tracking.client import Run
from tests.support.attempts import Life

TAGS = {"airflow.dag_id": "d", "airflow.run_id": "r", "airflow.task_id": "t"}


def rules(life: Life, argument: Any, context: dict[str, Any]) -> Any:
    return reuse_of(argument, context, life.attempt())  # type: ignore[arg-type]


def test_an_attempt_gets_rules_that_ask_airflow_through_its_own_task(tmp_path: Path) -> None:
    life, states = Life(tmp_path), {"r": {"t": "failed"}}
    ti = SimpleNamespace(get_task_states=lambda dag_id, **_: states if dag_id == "d" else {})
    reuse = rules(life, "wait", {"ti": ti, "params": {}})
    assert (reuse.client, reuse.task, reuse.look, reuse.wait) == (life.client, life.attempt().task, True, True)
    assert reuse.task_is_gone(Run("id", "0", "t", "RUNNING", "", tags=TAGS)) is True
    states["r"]["t"] = "running"
    assert reuse.task_is_gone(Run("id", "0", "t", "RUNNING", "", tags=TAGS)) is False
    reuse.log("a line")
    assert life.log == ["a line"]


@pytest.mark.parametrize(
    ("params", "conf", "expected"),
    [
        ({"reuse": False}, None, (False, False)),
        ({"reuse": False}, {"reuse": True}, (True, True)),  # what a person triggers with counts more
        ({}, {"reuse": "no"}, (False, False)),
        ({"other": False}, {}, (True, True)),
    ],
)
def test_the_dag_runs_wish_comes_from_its_params_and_its_conf(
    params: dict, conf: dict | None, expected: Any, tmp_path: Path
) -> None:
    context = {"ti": None, "params": params, "dag_run": SimpleNamespace(conf=conf)}
    reuse = rules(Life(tmp_path), "wait", context)
    assert (reuse.look, reuse.wait) == expected


def test_a_step_that_has_no_part_in_reuse_gets_none(tmp_path: Path) -> None:
    assert rules(Life(tmp_path), False, {"ti": None}) is None


@pytest.mark.parametrize("no", [False, None, "", "none", "false", "0", "off", "no", "NO", " Off ", 0])
def test_every_spelling_of_no_turns_it_off_or_forces_the_step(no: Any) -> None:
    assert reuse_mode(no, {}) is None
    assert reuse_mode("wait", {"reuse": no}) == ((True, True) if no in (None, "") else (False, False))


@pytest.mark.parametrize("yes", [True, "true", "1", "on", "yes", "YES", " On ", 1])
def test_every_spelling_of_yes_takes_results_but_does_not_wait(yes: Any) -> None:
    assert reuse_mode(yes, {}) == (True, False)
    assert reuse_mode(yes, {"reuse": yes}) == (True, False)


def test_wait_may_be_written_in_any_case() -> None:
    assert reuse_mode(" Wait", {}) == (True, True)
    with pytest.raises(ProjectError) as caught:
        reuse_mode("Maybe", {})
    assert str(caught.value) == "reuse must be True, False or 'wait', not 'Maybe'."


def test_a_run_that_does_not_name_its_task_counts_as_worked_on() -> None:
    asked: list[Any] = []

    def get_task_states(*arguments: Any, **named: Any) -> dict[str, dict[str, str]]:
        asked.append((arguments, named))
        return {"r": {"t": "failed"}}

    ti = SimpleNamespace(get_task_states=get_task_states)
    for name in TAGS:
        tags = {key: value for key, value in TAGS.items() if key != name}
        assert is_abandoned(Run("id", "0", "t", "RUNNING", "", tags=tags), ti) is False
    assert asked == []
    assert is_abandoned(Run("id", "0", "t", "RUNNING", "", tags=TAGS), ti) is True
    assert asked == [(("d",), {"map_index": None, "task_ids": ["t"], "run_ids": ["r"]})]


@pytest.mark.parametrize(
    ("state", "local", "remote"),
    [
        ("running", False, False),
        ("restarting", False, False),
        ("queued", True, False),
        ("skipped", True, True),
        ("upstream_failed", True, True),
        ("removed", True, True),
    ],
)
def test_a_job_elsewhere_goes_on_without_its_worker(state: str, local: bool, remote: bool) -> None:
    ti = SimpleNamespace(get_task_states=lambda *_, **__: {"r": {"t": state}})
    assert is_abandoned(Run("id", "0", "t", "RUNNING", "", tags=TAGS), ti) is local
    assert is_abandoned(Run("id", "0", "t", "RUNNING", "", tags={**TAGS, "mlflow_projects.job": "{}"}), ti) is remote
