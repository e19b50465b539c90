"""tools/mutants.py: what it changes and what it runs is there (a renamed module would silently be left out)."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT


def test_modules_and_tests_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import mutants

    named = [ROOT / "plugins" / "mlflow_projects" / file for file in mutants.MODULES]
    named += [ROOT / "tests" / "unit" / room for room in mutants.ROOMS]
    assert [str(path) for path in named if not path.exists()] == []
