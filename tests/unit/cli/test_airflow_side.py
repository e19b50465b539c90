"""What the sub-commands ask Airflow outside of any task."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_projects.cli.airflow_side import database_is_made


@pytest.mark.parametrize("options", ["", "?timeout=60"])
def test_a_database_of_sqlite_is_there_once_its_file_is(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "airflow.db"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{file}{options}")
    assert not database_is_made()
    file.touch()
    assert database_is_made()
