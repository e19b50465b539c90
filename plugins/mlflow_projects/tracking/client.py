"""The few tracking calls that an attempt needs, and who makes them.

With an ``http(s)`` tracking server the task process speaks the REST API itself and never imports
mlflow (3 s and 180 MB on the design's machine). For every other kind of URI MLflow's own client is
used, behind the same methods.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.public_uri import public_text
from mlflow_projects.tracking.registry import ModelRegistry
from mlflow_projects.tracking.server import TrackingSettings

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]
STATUSES: tuple[RunStatus, ...] = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
OPEN_STATUSES: tuple[RunStatus, ...] = ("RUNNING", "SCHEDULED")


@dataclass(frozen=True)
class Run:
    """An MLflow run as it was read.

    :param start_time: milliseconds since 1970
    :param end_time: milliseconds since 1970, None while it runs
    :param metrics: the last value of each metric
    :param model_ids: of the models that the run logged; () also where they were not asked for
    """

    run_id: str
    experiment_id: str
    name: str
    status: RunStatus
    artifact_uri: str
    start_time: int | None = None
    end_time: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    model_ids: Sequence[str] = ()


@dataclass(frozen=True)
class Artifact:
    """A file or folder of a run.

    :param path: relative to the run's artifact URI
    :param size: bytes; None for a folder
    """

    path: str
    is_dir: bool
    size: int | None = None


@dataclass(frozen=True)
class MetricPoint:
    """One logged value of a metric.

    :param timestamp: milliseconds since 1970
    """

    value: float
    step: int
    timestamp: int


@dataclass(frozen=True)
class LoggedDataset:
    """A dataset that a run logged with ``mlflow.log_input``.

    :param source: JSON, whose form depends on the kind of the source
    :param schema: JSON, "" if unknown
    """

    name: str
    digest: str
    source: str
    schema: str = ""


class TrackingClient(ModelRegistry, Protocol):
    """Calls to a tracking server and its model registry.

    Every method raises :class:`~mlflow_projects.exceptions.TrackingError` when the server refuses, and
    :class:`~mlflow_projects.exceptions.TrackingUnavailableError` when it stays away.
    """

    settings: TrackingSettings

    def experiment_id(self, name: str) -> str | None:
        """Return the id of the experiment of that name, or None.

        :raises ProjectError: it was deleted
        """

    def create_experiment(self, name: str) -> str:
        """Make an experiment and return its id; code RESOURCE_ALREADY_EXISTS if there is one."""

    def create_run(self, experiment_id: str, name: str, start_time: int, tags: Mapping[str, str]) -> Run:
        """Open a run.

        :param start_time: milliseconds since 1970
        """

    def get_run(self, run_id: str) -> Run:
        """Read a run; code RESOURCE_DOES_NOT_EXIST if there is none."""

    def search_runs(
        self, experiment_ids: Sequence[str], query: str, *, limit: int = 1000, newest_first: bool = False
    ) -> list[Run]:
        """Return the active runs that match a filter in MLflow's search language, oldest first."""

    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Log parameters, tags and metrics (as of now, step 0), any number of them."""

    def update_run(self, run_id: str, status: RunStatus, end_time: int | None = None) -> None:
        """Set a run's status.

        :param end_time: milliseconds since 1970
        """

    def list_artifacts(self, run_id: str, path: str = "") -> list[Artifact]:
        """List one folder of a run's artifacts."""

    def metric_history(self, run_id: str, key: str, *, limit: int = 1000) -> list[MetricPoint]:
        """Return a metric's first ``limit`` values in the order of their time; none if it was never logged."""

    def logged_datasets(self, run_id: str) -> list[LoggedDataset]:
        """Return the datasets that a run logged as its inputs."""

    def experiment_ids(self) -> list[str]:
        """Return the ids of all active experiments."""

    def close(self) -> None:
        """Give connections back."""

    def abort(self) -> None:
        """Let a call that another thread waits for, and all later ones, fail; as far as that can be done."""


def deleted_experiment(name: str, experiment_id: str, end: str = "") -> ProjectError:
    """Return what to say where a run would go into an experiment that a person deleted.

    :param end: how the attempt ended whose run is there already
    """
    lost = f"the end of this attempt ({end}) is not" if end else "this attempt has no run"
    return ProjectError(
        f"The experiment {name!r} was deleted, so {lost} in MLflow; restore it (mlflow experiments restore "
        f"--experiment-id {experiment_id}) or choose another experiment_name."
    )


def storable(text: str) -> str:
    """Return a text as every store of MLflow takes it, and everybody may read it there.

    PostgreSQL refuses a NUL, JSON half a character.
    """
    return public_text(text).replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode()


def now() -> int:
    """Return the current time in milliseconds since 1970, as MLflow counts it."""
    return int(time.time() * 1000)


def quoted(text: str) -> str:
    """Quote a value for MLflow's search language (which has no escape for the quote it is written in)."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def json_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON can hold them, which XComs and events of assets are: NaN and infinity become None."""
    return {key: value if math.isfinite(value) else None for key, value in metrics.items()}
