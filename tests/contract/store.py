"""A tracking store as the cases see it: our client, and what a project or a person does beside it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from mlflow_projects.tracking.client import LoggedDataset, Run, TrackingClient, now
from mlflow_projects.tracking.record import RunRecord, SourceTags, TaskIdentity
from mlflow_projects.tracking.registry import ModelVersion
from tests.support.memory_tracking import MemoryClient


class Writer(Protocol):
    """The part of MLflow's own client that the cases use."""

    def log_metric(
        self, run_id: str, key: str, value: float, *, step: int = 0, timestamp: int | None = None
    ) -> None: ...
    def log_text(self, run_id: str, text: str, path: str) -> None: ...
    def log_dataset(self, run_id: str, dataset: LoggedDataset) -> None: ...
    def log_model(self, run: Run, name: str = "model", status: str = "READY") -> str: ...
    def delete_run(self, run_id: str) -> None: ...
    def delete_experiment(self, experiment_id: str) -> None: ...


@dataclass
class Store:
    """A store with an experiment of its own.

    :param name: of a registered model that is the test's own
    """

    client: TrackingClient
    writer: Writer
    experiment: str
    name: str = field(default_factory=lambda: f"Model {uuid.uuid4().hex[:8]}")

    def record(self, attempt: str = "a1", **changes: Any) -> RunRecord:
        task = TaskIdentity("dag", "run", "task", 1, f"{attempt}-{uuid.uuid4().hex}", url="http://airflow/task")
        return replace(RunRecord(self.client, self.experiment, "step", task, SourceTags(name="src")), **changes)

    def run(self, model: str | None = "model", **metrics: float) -> Run:
        run = self.client.create_run(self.experiment, "step", now(), {})
        self.client.log_batch(run.run_id, metrics=metrics)
        if model:
            self.writer.log_model(run, model)
        return self.client.get_run(run.run_id)

    def versions(self) -> list[ModelVersion]:
        """Return the versions of the test's own model, the newest first."""
        return self.client.search_versions(f"name = '{self.name}'")


def memory_store(**arguments: Any) -> Store:
    client = MemoryClient(**arguments)
    return Store(client, client, client.create_experiment(f"of this test {uuid.uuid4().hex}"))


class MlflowWriter:
    """MLflow's own client."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.mlflow = MlflowClient(uri)
        self.log_metric = self.mlflow.log_metric
        self.log_text = self.mlflow.log_text
        self.delete_run = self.mlflow.delete_run
        self.delete_experiment = self.mlflow.delete_experiment

    def log_dataset(self, run_id: str, dataset: LoggedDataset) -> None:
        from mlflow.entities import Dataset, DatasetInput

        logged = Dataset(dataset.name, dataset.digest, "local", dataset.source, dataset.schema or None)
        self.mlflow.log_inputs(run_id, [DatasetInput(logged)])

    def log_model(self, run: Run, name: str = "model", status: str = "READY") -> str:
        from mlflow.entities import LoggedModelOutput

        model = self.mlflow.create_logged_model(run.experiment_id, name=name, source_run_id=run.run_id)
        self.mlflow.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=0)])  # as log_model does
        self.mlflow.finalize_logged_model(model.model_id, status)
        return str(model.model_id)
