"""The model registry through MLflow's own client; a part of the native client."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.mlflow_errors import translated
from mlflow_projects.tracking.registry import LoggedModel, ModelSource, ModelVersion, RegisteredModel, is_missing

_MODEL_VERSIONS_TAG = "mlflow.modelVersions"


class NativeRegistry:
    """The calls of :class:`~mlflow_projects.tracking.registry.ModelRegistry`."""

    _client: Any  # mlflow.MlflowClient

    def ensure_model(self, name: str) -> None:
        try:
            with translated():
                self._client.create_registered_model(name)
        except TrackingError as error:
            if error.code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):  # the latter: Unity Catalog
                raise

    def search_models(self, query: str = "") -> list[RegisteredModel]:
        found: list[RegisteredModel] = []
        token = None
        while True:
            with translated():
                page = self._client.search_registered_models(query or None, 1000, page_token=token)
            found += [_registered_model(model) for model in page]
            token = page.token
            if not token:
                return found

    def model_version(self, name: str, version: int) -> ModelVersion | None:
        with _none_if_missing() as found:
            found.append(self._client.get_model_version(name, str(version)))
        return _model_version(found[0]) if found else None

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        with _none_if_missing() as found:
            found.append(self._client.get_model_version_by_alias(name, alias))
        return _model_version(found[0]) if found else None

    def search_versions(self, query: str, limit: int = 1000) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token = None
        while len(found) < limit:
            with translated():
                page = self._client.search_model_versions(
                    query, min(1000, limit - len(found)), order_by=["version_number DESC"], page_token=token
                )
            found += [_model_version(version) for version in page]
            token = page.token
            if not token:
                break
        return found

    def create_version(
        self, name: str, source: ModelSource, run_id: str, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        # MLflow looks up ``models:/<id>`` in whatever store is the process's global one, so the folder is given.
        with translated():
            version = self._client.create_model_version(
                name,
                source.artifact_uri,
                run_id,
                dict(tags),
                description=description,
                model_id=source.model_id or None,
            )
            if source.model_id:
                self._link(source.model_id, version)
        return _model_version(version)

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        with translated():
            self._client.set_model_version_tag(name, str(version), key, value)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        with translated():
            self._client.set_registered_model_alias(name, alias, str(version))

    def logged_model(self, model_id: str) -> LoggedModel:
        with translated():
            return _logged_model(self._client.get_logged_model(model_id))

    def logged_models(self, experiment_id: str, query: str) -> list[LoggedModel]:
        found: list[LoggedModel] = []
        token = None
        while True:
            with translated():
                page = self._client.search_logged_models([experiment_id], query, page_token=token)
            found += [_logged_model(model) for model in page if str(model.status) != "FAILED"]
            token = page.token
            if not token:
                return found

    def _link(self, model_id: str, version: Any) -> None:
        """Note the version on the logged model, as a tracking server and ``mlflow.register_model`` do."""
        try:
            known = json.loads(self._client.get_logged_model(model_id).tags.get(_MODEL_VERSIONS_TAG) or "[]")
        except (ValueError, RecursionError):
            known = None
        if not isinstance(known, list):  # somebody else's; the version itself is what counts
            return
        known.append({"name": version.name, "version": version.version})
        self._client.set_logged_model_tags(model_id, {_MODEL_VERSIONS_TAG: json.dumps(known)})


@contextmanager
def _none_if_missing() -> Iterator[list[Any]]:
    found: list[Any] = []
    try:
        with translated():
            yield found
    except TrackingError as error:
        if not is_missing(error):
            raise


def _model_version(version: Any) -> ModelVersion:
    return ModelVersion(
        name=version.name,
        version=int(version.version),
        source=version.source or "",
        run_id=version.run_id or "",
        status=str(version.status),
        status_message=version.status_message or "",
        aliases=tuple(version.aliases or ()),
        tags=dict(version.tags),
    )


def _registered_model(model: Any) -> RegisteredModel:
    return RegisteredModel(
        name=model.name,
        aliases={alias: int(version) for alias, version in (model.aliases or {}).items()},
        latest=tuple(_model_version(version) for version in model.latest_versions or ()),
        created=int(model.creation_timestamp or 0),
    )


def _logged_model(model: Any) -> LoggedModel:
    return LoggedModel(
        model_id=model.model_id,
        name=model.name,
        run_id=model.source_run_id or "",
        artifact_uri=model.artifact_location,
        created=int(model.creation_timestamp),
    )
