"""Run the sample projects of the hands-on and the introduction alone, and read their runs back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

SAMPLES = ROOT / "sample_projects"


@contextlib.contextmanager
def project_environment(project: str) -> Iterator[dict[str, str]]:
    """Yield the variables that activate a sample project's environment: the one that the DAGs' steps use too."""
    from mlflow_projects import config
    from mlflow_projects.backends.local.environments import EnvironmentBuilder
    from mlflow_projects.project.spec import load_project

    builder = EnvironmentBuilder(config.cache(), os.environ, print)
    with builder.activation(load_project(SAMPLES / project), "uv") as activation:
        yield {**os.environ, **activation.variables}


def run_alone(tracking_uri: str, project: str, entry_point: str, experiment: str, **parameters: object) -> Any:
    """Run a sample project as a person does, without Airflow: ``mlflow run``; return its run."""
    from mlflow import MlflowClient

    given = [part for name, value in parameters.items() for part in ("-P", f"{name}={value}")]
    command = [
        sys.executable, "-m", "mlflow", "run", str(SAMPLES / project), "--entry-point", entry_point,
        "--experiment-name", experiment, "--env-manager", "local", *given,
    ]  # fmt: skip
    with project_environment(project) as environment:
        environment["MLFLOW_TRACKING_URI"] = tracking_uri
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(tracking_uri)
    found = client.get_experiment_by_name(experiment)
    (run,) = [
        run
        for run in client.search_runs([found.experiment_id])
        if "mlflow.parentRunId" not in run.data.tags and run.data.tags["mlflow.project.entryPoint"] == entry_point
    ]
    return run


def children(tracking_uri: str, run_id: str) -> dict[str, Any]:
    """Return the runs right below a run, by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found)
    return by_name


def histories(tracking_uri: str, run: Any) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of each metric of a run, in order."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    return {
        name: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def artifacts(tracking_uri: str, run: Any, folder: Path) -> dict[str, bytes]:
    """Return the content of a run's files by path."""
    from mlflow import MlflowClient

    root = Path(MlflowClient(tracking_uri).download_artifacts(run.info.run_id, "", str(folder)))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def kinds_missing(tracking_uri: str, run: Any) -> list[str]:
    """Return which of the seven kinds of record a run lacks."""
    from mlflow_projects.tracking.completeness import kinds_missing_from
    from mlflow_projects.tracking.connect import connect
    from mlflow_projects.tracking.server import TrackingSettings

    return kinds_missing_from(connect(TrackingSettings(tracking_uri)), run.info.run_id)
