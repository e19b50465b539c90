"""What operators do with the model registry: register once, compare, move an alias, look for a version."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.public_uri import public_uri
from mlflow_projects.tracking.client import Run, TrackingClient, json_metrics, quoted
from mlflow_projects.tracking.registry import READY, ModelSource, ModelVersion

_CREATE_TRIES = 3


@dataclass(frozen=True)
class WantedVersion:
    """Which version of a model is waited for.

    :param alias: the version must hold this alias
    :param version: the version's number
    :param newer_than: the version's number must be greater than this one
    :param other_than: the version's number must not be this one
    """

    name: str
    alias: str | None = None
    version: int | None = None
    newer_than: int | None = None
    other_than: int | None = None

    def find(self, client: TrackingClient) -> ModelVersion | None:
        """Return the version if it is there and READY; without alias and number the newest counts."""
        found = self._candidate(client)
        if found is None or found.status != READY:
            return None
        if self.version is not None and found.version != self.version:
            return None
        if self.other_than is not None and found.version == self.other_than:
            return None
        return None if self.newer_than is not None and found.version <= self.newer_than else found

    def _candidate(self, client: TrackingClient) -> ModelVersion | None:
        if self.alias:
            return client.version_by_alias(self.name, self.alias)
        if self.version is not None:
            return client.model_version(self.name, self.version)
        versions = client.search_versions(f"name = {quoted(self.name)}", limit=100)
        return next((version for version in versions if version.status == READY), None)

    def __str__(self) -> str:
        parts = [f"a version of model {self.name!r}"]
        parts += [f"with alias {self.alias!r}"] if self.alias else []
        parts += [f"with number {self.version}"] if self.version is not None else []
        parts += [f"newer than {self.newer_than}"] if self.newer_than is not None else []
        parts += [f"other than {self.other_than}"] if self.other_than is not None else []
        return " ".join(parts)


def register(
    client: TrackingClient,
    name: str,
    run: Run,
    model: str,
    *,
    tags: Mapping[str, str] | None = None,
    description: str = "",
    sleep: Callable[[float], None] = time.sleep,
    patience: float = 300.0,
) -> ModelVersion:
    """Register a model of a run and wait until the version is READY; a version of it is found again.

    :param model: name of a logged model of the run, or path of a folder among its artifacts
    :param tags: for the version, also for one that is found again
    :param description: for a new version
    :param patience: seconds to wait for READY
    :raises ProjectError: the run has no such model, or a name is one that MLflow does not take
    :raises TrackingError: the registry could not copy the model, or not in time
    """
    source = find_source(client, run, model)
    with_tags = {key: str(value) for key, value in (tags or {}).items()}
    try:
        version = _find_or_create(client, name, run, source, with_tags, description)
        for key, value in with_tags.items():
            if version.tags.get(key) != value:
                client.set_version_tag(name, version.version, key, value)
    except TrackingError as error:
        raise refined(error) from error
    return _ready(client, version, sleep, patience)


def addresses_of_models(client: TrackingClient, run: Run) -> dict[str, str]:
    """Return the address (``models:/m-…``) of each model that a run logged, by its name; the newest of a name counts.

    :param run: as :meth:`TrackingClient.get_run` returns it
    """
    models = [client.logged_model(model_id) for model_id in dict.fromkeys(run.model_ids)]
    return {model.name: f"models:/{model.model_id}" for model in sorted(models, key=lambda found: found.created)}


def versions_of(client: TrackingClient, run_id: str) -> list[ModelVersion]:
    """Return the versions of registered models that a run made, by name and number."""
    found = client.search_versions(f"run_id = {quoted(run_id)}", limit=100)
    return sorted(found, key=lambda version: (version.name, version.version))


def find_source(client: TrackingClient, run: Run, model: str) -> ModelSource:
    """Return where a run's model is: the newest logged model of that name, else a folder with an MLmodel file.

    :raises ProjectError: there is none
    """
    # Databricks cannot filter by run (a remark in MLflow's own register_model), so that is done here.
    logged = client.logged_models(run.experiment_id, f"name = {quoted(model)}")
    if own := [found for found in logged if found.run_id == run.run_id]:
        newest = max(own, key=lambda found: found.created)
        return ModelSource(newest.artifact_uri, newest.model_id)
    path = model.strip("/")
    if any(file.path == f"{path}/MLmodel" for file in client.list_artifacts(run.run_id, path)):
        return ModelSource(f"{run.artifact_uri.rstrip('/')}/{path}")
    raise ProjectError(
        f"Run {run.run_id} ({run.name}) has no model {model!r}; log one under that name, or give the right name as "
        "`model`."
    )


def move_alias(client: TrackingClient, name: str, alias: str, version: int) -> None:
    """Move an alias to a version.

    :raises ProjectError: MLflow does not take the alias
    """
    try:
        client.set_alias(name, alias, version)
    except TrackingError as error:
        raise refined(error) from error


def refined(error: TrackingError) -> Exception:
    """Return the error that says whether another try can help: with a name that MLflow refuses it cannot."""
    return ProjectError(str(error)) if error.code == "INVALID_PARAMETER_VALUE" else error


def number(metrics: Mapping[str, float], metric: str | None) -> float | None:
    """Return a metric's value if it can be compared: not missing, not NaN, not infinite.

    MLflow's databases keep an infinite value as the largest float (``mlflow.store.tracking.sqlalchemy_store``).
    """
    value = metrics.get(metric) if metric else None
    if value is None or not math.isfinite(value) or abs(value) >= sys.float_info.max:
        return None
    return value


def is_better(value: float | None, than: float | None, direction: str) -> bool:
    """Tell whether a value beats another one strictly; no number never wins, and loses against any number."""
    if value is None or than is None:
        return value is not None
    return value < than if direction == "min" else value > than


def _find_or_create(
    client: TrackingClient, name: str, run: Run, source: ModelSource, tags: Mapping[str, str], description: str
) -> ModelVersion:
    for attempt in range(1, _CREATE_TRIES + 1):
        # After a lost answer too, the look-up tells whether the version was made.
        if found := _find(client, name, run, source):
            return found
        try:
            client.ensure_model(name)
            return client.create_version(name, source, run.run_id, tags, description)
        except TrackingUnavailableError:
            if attempt == _CREATE_TRIES:
                raise
    raise AssertionError("unreachable")


def _find(client: TrackingClient, name: str, run: Run, source: ModelSource) -> ModelVersion | None:
    versions = client.search_versions(f"name = {quoted(name)} and run_id = {quoted(run.run_id)}")
    usable = [found for found in versions if found.source in source.names and found.status != "FAILED_REGISTRATION"]
    return usable[0] if usable else None


def _ready(
    client: TrackingClient, version: ModelVersion, sleep: Callable[[float], None], patience: float
) -> ModelVersion:
    deadline, pause = time.monotonic() + patience, 0.5
    while version.status != READY:
        if version.status == "FAILED_REGISTRATION":
            raise TrackingError(
                f"MLflow could not register {version.uri}: {version.status_message or 'no reason given'}."
            )
        if time.monotonic() > deadline:
            raise TrackingError(f"{version.uri} is still {version.status} after {patience:g} s.")
        sleep(pause)
        pause = min(pause * 2, 10.0)
        version = client.model_version(version.name, version.version) or version
    return version


def version_dict(version: ModelVersion, metrics: Mapping[str, float], mlflow_conn_id: str) -> dict[str, Any]:
    """Return the XCom of a task that stands for a model version."""
    return {
        "name": version.name,
        "version": version.version,
        "run_id": version.run_id,
        "source": public_uri(version.source),
        "uri": version.uri,
        "metrics": json_metrics(metrics),
        "mlflow_conn_id": mlflow_conn_id,
    }


def metrics_of(client: TrackingClient, version: ModelVersion) -> Mapping[str, float]:
    """Return the metrics of the run that made a version; none if it is unknown or gone."""
    if not version.run_id:
        return {}
    try:
        return client.get_run(version.run_id).metrics
    except TrackingError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
