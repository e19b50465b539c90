"""Comparing metrics, and the names of a model's source; what needs a store is in tests/contract/registry.py."""

from __future__ import annotations

import pytest

from mlflow_projects.tracking.registration import is_better
from mlflow_projects.tracking.registry import ModelSource


@pytest.mark.parametrize(
    ("value", "than", "direction", "better"),
    [
        (1.0, 2.0, "min", True),
        (2.0, 1.0, "min", False),
        (1.0, 1.0, "min", False),
        (1.0, 2.0, "max", False),
        (2.0, 1.0, "max", True),
        (2.0, 2.0, "max", False),
        (None, 1.0, "min", False),
        (None, 1.0, "max", False),
        (1.0, None, "max", True),
        (1.0, None, "min", True),
        (None, None, "min", False),
    ],
)
def test_better_means_strictly_better(value: float | None, than: float | None, direction: str, better: bool) -> None:
    assert is_better(value, than, direction) is better


def test_a_source_has_both_names() -> None:
    assert ModelSource("s3://b/a").names == ("s3://b/a",)
    assert ModelSource("s3://b/a", "m-1").names == ("s3://b/a", "models:/m-1")
