"""One recorder for all scripts: it imports MLflow once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mlflow_projects.cli.import_script.dag_source import DagSource
from mlflow_projects.cli.import_script.flow import trace
from mlflow_projects.cli.import_script.recording import Recorder, Script

Import = Callable[..., DagSource]


@pytest.fixture(scope="session")
def recorder() -> Iterator[Recorder]:
    with Recorder() as running:
        yield running


@pytest.fixture
def imported(recorder: Recorder) -> Import:
    """Return what imports a script: (file, values of options) to the DAG's source."""

    def run(
        file: Path, *, seconds: float = 120.0, partial: bool = False, args: Sequence[str] = (), **values: str
    ) -> DagSource:
        script = Script(file, file.parent, file.parent, args, seconds)
        plan = trace(recorder, script, values, partial=partial)
        return DagSource(plan, script, file.stem, file.parent.parent / "dags" / f"{file.stem}.py")

    return run
