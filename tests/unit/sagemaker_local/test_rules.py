"""The stand-in refuses by rules of its own what a client's check refuses, and what it lets through."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from sagemaker_local.rules import refusals
from tests.unit.backends.sagemaker.test_validation import BAD, good


def test_a_good_request_is_taken() -> None:
    assert refusals("CreateTrainingJob", good()) == []
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
    }
    assert refusals("CreateTrainingJob", {**good(), **spot}) == []
    now = datetime.datetime.now(datetime.timezone.utc).timestamp()
    assert refusals("ListTrainingJobs", {"CreationTimeAfter": now, "MaxResults": 100, "SortBy": "Name"}) == []


@pytest.mark.parametrize(("spoil", "line"), BAD, ids=[line.partition(":")[0] for _, line in BAD])
def test_what_a_client_here_refuses_is_refused(spoil: Callable[[dict[str, Any]], None], line: str) -> None:
    request = good()
    spoil(request)
    found = refusals("CreateTrainingJob", request)
    assert found
    wanted = line.partition(":")[0].partition(" ")[0].replace("[", ".").replace("]", "")
    above = wanted.rpartition(".")[0] or "request"
    assert any(
        f"'{wanted}'" in text or f"'{above}'" in text or text.startswith(wanted.split(".")[0]) for text in found
    )


def test_values_are_never_shown() -> None:
    request = {
        **good(),
        "Environment": {"A": "hunter2" * 100},
        "HyperParameters": {"B": ["hunter2"], "C": "hunter2\n"},
    }
    found = refusals("CreateTrainingJob", request)
    assert len(found) == 3
    assert "hunter2" not in "".join(found)
