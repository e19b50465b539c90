"""The model registry: what it holds, and the few calls that we need of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mlflow_projects.exceptions import TrackingError

READY = "READY"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model as it was read.

    :param source: where the model's files are, or ``models:/<id>`` of a logged model
    :param run_id: the run that made the model, "" if unknown
    :param status: ``READY``, ``PENDING_REGISTRATION`` or ``FAILED_REGISTRATION``
    """

    name: str
    version: int
    source: str
    run_id: str = ""
    status: str = READY
    status_message: str = ""
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """What MLflow loads this version by."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model as it was read.

    :param aliases: the version that each alias names
    :param latest: the newest version of each stage, so the newest of all is among them
    :param created: milliseconds since 1970
    """

    name: str
    aliases: Mapping[str, int] = field(default_factory=dict)
    latest: tuple[ModelVersion, ...] = ()
    created: int = 0


@dataclass(frozen=True)
class LoggedModel:
    """A model that a run logged (MLflow 3 keeps it beside the run, not among its artifacts).

    :param created: milliseconds since 1970
    """

    model_id: str
    name: str
    run_id: str
    artifact_uri: str
    created: int = 0


@dataclass(frozen=True)
class ModelSource:
    """Where the files of a model to be registered are.

    :param model_id: of the logged model, "" for a folder among a run's artifacts
    """

    artifact_uri: str
    model_id: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which a version may keep this source."""
        return (self.artifact_uri, f"models:/{self.model_id}") if self.model_id else (self.artifact_uri,)


class ModelRegistry(Protocol):
    """Calls to a model registry; the part of a tracking client that concerns models."""

    def ensure_model(self, name: str) -> None:
        """Make the registered model unless there is one."""

    def search_models(self, query: str = "") -> list[RegisteredModel]:
        """Return the registered models that match a filter in MLflow's search language."""

    def model_version(self, name: str, version: int) -> ModelVersion | None:
        """Return a version by its number, or None."""

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version that holds an alias, or None."""

    def search_versions(self, query: str, limit: int = 1000) -> list[ModelVersion]:
        """Return the versions that match a filter in MLflow's search language, the highest number first."""

    def create_version(
        self, name: str, source: ModelSource, run_id: str, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        """Register a model of a run; not repeated when the answer is lost."""

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        """Tag a version."""

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Move an alias to a version."""

    def logged_model(self, model_id: str) -> LoggedModel:
        """Return a logged model; code RESOURCE_DOES_NOT_EXIST if there is none."""

    def logged_models(self, experiment_id: str, query: str) -> list[LoggedModel]:
        """Return the logged models of an experiment that match a filter, failed uploads left out."""


def is_missing(error: TrackingError) -> bool:
    """Tell whether the registry says that there is no such model, version or alias.

    A missing alias has the code of a bad parameter (``mlflow.store.model_registry.sqlalchemy_store``).
    """
    return error.code == "RESOURCE_DOES_NOT_EXIST" or (
        error.code == "INVALID_PARAMETER_VALUE" and "not found" in str(error)
    )
