"""tools/stack.py: which services ``make stack-up`` starts, and in what order; without an engine."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setenv("COMPOSE_PROFILES", "mysql, git")
    import stack

    return stack


def test_services_of_the_profiles_that_are_on_are_started_after_what_they_need(stack: ModuleType) -> None:
    found = stack.services([])
    assert {"mysql", "git", "worker"} <= found.keys()
    assert "sagemaker" not in found
    order = {name: number for number, wave in enumerate(stack.waves(found)) for name in wave}
    assert order.keys() == found.keys()
    assert order["mysql"] < order["mlflow"] < order["init"] < order["worker"]


def test_one_service_is_started_with_what_it_needs_and_nothing_else(stack: ModuleType) -> None:
    assert stack.services(["mlflow"]).keys() == {"postgres", "s3", "mysql", "mlflow"}
    assert stack.services(["git"]).keys() == {"git"}
    with pytest.raises(SystemExit, match=r"Not a service, or one of a profile that is off: sagemaker\."):
        stack.services(["sagemaker"])
