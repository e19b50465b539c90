"""The same calls through MLflow's own client, for every tracking URI that is not http(s)."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.file_lock import file_lock
from mlflow_projects.tracking.client import (
    Artifact,
    LoggedDataset,
    MetricPoint,
    Run,
    RunStatus,
    deleted_experiment,
    storable,
)
from mlflow_projects.tracking.database import ensure_store, impatient, is_database
from mlflow_projects.tracking.mlflow_errors import translated
from mlflow_projects.tracking.registry_native import NativeRegistry
from mlflow_projects.tracking.server import TrackingSettings, sqlite_file

_BATCH = 100


class NativeClient(NativeRegistry):
    """A tracking store that MLflow's client reaches: a database, Databricks, SageMaker, …

    :raises ProjectError: MLflow cannot use such a URI (or, for a file store, no longer wants to: it says how)
    """

    def __init__(self, settings: TrackingSettings) -> None:
        self.settings = settings
        ensure_store(settings)
        uri = settings.uri
        if settings.access != "make" and is_database(uri):
            uri = impatient(uri, settings.timeout)
            _ensure_tables(uri)
        from mlflow import MlflowClient

        try:
            with self._first_use() if settings.access == "make" else translated():
                self._client = MlflowClient(tracking_uri=uri)
        except TrackingError as error:
            if error.code != "INVALID_PARAMETER_VALUE":
                raise
            raise ProjectError(f"The tracking URI {settings.address} cannot be used: {str(error).strip()}") from error

    def experiment_id(self, name: str) -> str | None:
        with translated():
            experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise deleted_experiment(name, experiment.experiment_id)
        return str(experiment.experiment_id)

    def create_experiment(self, name: str) -> str:
        with translated():
            return str(self._client.create_experiment(name, artifact_location=self._artifact_location(name)))

    def create_run(self, experiment_id: str, name: str, start_time: int, tags: Mapping[str, str]) -> Run:
        with translated():
            kept = {key: storable(value) for key, value in tags.items()}
            return _run(self._client.create_run(experiment_id, start_time, kept, storable(name)))

    def get_run(self, run_id: str) -> Run:
        with translated():
            return _run(self._client.get_run(run_id))

    def search_runs(
        self, experiment_ids: Sequence[str], query: str, *, limit: int = 1000, newest_first: bool = False
    ) -> list[Run]:
        direction = "DESC" if newest_first else "ASC"
        found: list[Run] = []
        token = None
        while len(found) < limit:
            with translated():
                page = self._client.search_runs(
                    list(experiment_ids),
                    query,
                    max_results=min(1000, limit - len(found)),
                    order_by=[f"attributes.start_time {direction}"],
                    page_token=token,
                )
            found += [_run(run) for run in page]
            token = page.token
            if not token:
                break
        return found

    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        every_param = [Param(key, storable(value)) for key, value in (params or {}).items()]
        every_tag = [RunTag(key, storable(value)) for key, value in (tags or {}).items()]
        with translated():
            for start in range(0, len(every_param), _BATCH):
                self._client.log_batch(run_id, params=every_param[start : start + _BATCH])
            for start in range(0, len(every_tag), _BATCH):
                self._client.log_batch(run_id, tags=every_tag[start : start + _BATCH])
            if metrics:
                moment = int(time.time() * 1000)
                self._client.log_batch(run_id, metrics=[Metric(key, x, moment, 0) for key, x in metrics.items()])

    def update_run(self, run_id: str, status: RunStatus, end_time: int | None = None) -> None:
        with translated():
            if end_time is None:
                self._client.update_run(run_id, status=status)
            else:
                self._client.set_terminated(run_id, status=status, end_time=end_time)

    def list_artifacts(self, run_id: str, path: str = "") -> list[Artifact]:
        with translated():
            files = self._client.list_artifacts(run_id, path or None)
        return [Artifact(path=f.path, is_dir=f.is_dir, size=None if f.is_dir else f.file_size) for f in files]

    def metric_history(self, run_id: str, key: str, *, limit: int = 1000) -> list[MetricPoint]:
        with translated():
            history = self._client.get_metric_history(run_id, key)
        points = [MetricPoint(float(point.value), int(point.step), int(point.timestamp)) for point in history]
        return sorted(points, key=lambda point: (point.timestamp, point.step))[:limit]

    def logged_datasets(self, run_id: str) -> list[LoggedDataset]:
        with translated():
            inputs = self._client.get_run(run_id).inputs
        found = [one.dataset for one in inputs.dataset_inputs] if inputs else []
        return [LoggedDataset(one.name, one.digest or "", one.source or "", one.schema or "") for one in found]

    def experiment_ids(self) -> list[str]:
        with translated():
            return [str(experiment.experiment_id) for experiment in self._client.search_experiments()]

    def close(self) -> None:
        """Do nothing: MLflow's client pools its connections itself."""

    def abort(self) -> None:
        """Do nothing: a driver's call cannot be ended from outside."""

    @contextmanager
    def _first_use(self) -> Iterator[None]:
        """Let one process at a time create a SQLite store; MLflow's migrations do not guard themselves."""
        database = sqlite_file(self.settings.uri)
        if database is None:
            with translated():
                yield
            return
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(database.with_name(f"{database.name}.lock")), translated():
                if not database.exists():
                    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                    # Also makes the experiment "Default", whose artifacts else land in the current folder.
                    SqlAlchemyStore(self.settings.uri, _artifact_root(database).as_uri())
                yield
        except OSError as error:
            raise TrackingError(
                f"The tracking database {database} cannot be written: {error.strerror}; check the path in "
                "the tracking URI."
            ) from error

    def _artifact_location(self, name: str) -> str | None:
        """Return where a new experiment of an embedded database keeps its artifacts: beside the database.

        MLflow's own default is ``./mlruns`` below whatever folder the process happens to be in.
        """
        database = sqlite_file(self.settings.uri)
        if database is None:
            return None
        folder = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)
        if folder != name:
            folder = f"{folder}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return (_artifact_root(database) / folder).as_uri()


def _ensure_tables(uri: str) -> None:
    """Leave a database of an older MLflow as it is.

    :raises TrackingError: a table is missing, so that MLflow's client would migrate the whole
    """
    import mlflow.store.db.utils  # noqa: F401  (declares every table)
    from mlflow.store.db.base_sql_model import Base
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.pool import NullPool

    with create_engine(uri, poolclass=NullPool).connect() as connection:
        if set(Base.metadata.tables) - set(inspect(connection).get_table_names()):
            raise TrackingError(
                "The tracking database is of another version of MLflow than the one here; nothing was written. "
                "Take a backup, then run: mlflow db upgrade <tracking URI>"
            )


def _artifact_root(database: Path) -> Path:
    return database.parent / "mlartifacts"


def _run(run: Any) -> Run:
    return Run(
        run_id=run.info.run_id,
        experiment_id=str(run.info.experiment_id),
        name=run.info.run_name or "",
        status=run.info.status,
        artifact_uri=run.info.artifact_uri or "",
        start_time=run.info.start_time,
        end_time=run.info.end_time,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        model_ids=tuple(output.model_id for output in run.outputs.model_outputs) if run.outputs else (),
    )
