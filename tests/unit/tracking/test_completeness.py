"""Which of the seven kinds a run lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mlflow_projects.tracking import KINDS, missing_kinds
from mlflow_projects.tracking.client import Artifact, Run

COMPLETE = Run(
    run_id="r",
    experiment_id="1",
    name="step",
    status="FINISHED",
    artifact_uri="file:///a",
    start_time=1,
    end_time=2,
    tags={
        "mlflow.source.name": "src",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": "abc",
        "team": "blue",
    },
    params={"alpha": "1"},
    metrics={"loss": 0.0},
)
FILES = [Artifact("file.txt", is_dir=False, size=1)]


def without_tag(name: str) -> Callable[[Run], Run]:
    return lambda run: replace(run, tags={key: value for key, value in run.tags.items() if key != name})


def test_a_complete_run_lacks_nothing() -> None:
    assert missing_kinds(COMPLETE, FILES) == []


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (without_tag("mlflow.source.git.commit"), ["code version"]),
        (lambda run: replace(run, end_time=None), ["times", "metrics"]),
        (lambda run: replace(run, start_time=3), ["times", "metrics"]),
        (without_tag("mlflow.source.name"), ["source"]),
        (without_tag("mlflow.source.type"), ["source"]),
        (without_tag("team"), ["tags"]),
        (lambda run: replace(run, params={}), ["params"]),
        (lambda run: replace(run, metrics={}), ["metrics"]),
    ],
)
def test_what_is_missing_is_named(change: Callable[[Run], Run], missing: list[str]) -> None:
    assert missing_kinds(change(COMPLETE), FILES) == missing


def test_a_bare_run_lacks_all_kinds_in_order() -> None:
    bare = Run("r", "1", "", "RUNNING", "")
    assert missing_kinds(bare, []) == list(KINDS)
    assert len(KINDS) == 7


def test_a_project_outside_of_git_has_a_version_by_its_content() -> None:
    run = without_tag("mlflow.source.git.commit")(COMPLETE)
    assert missing_kinds(replace(run, tags={**run.tags, "mlflow_projects.source.sha256": "123"}), FILES) == []
