"""The model registry over MLflow's REST API; a part of the REST client.

Reference: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.registry import LoggedModel, ModelSource, ModelVersion, is_missing
from mlflow_projects.tracking.server import TrackingSettings

_PAGE = 1000
_MOST_PAGES = 1000  # of one list: a server could name a next one for ever


class RestRegistry:
    """The calls of :class:`~mlflow_projects.tracking.registry.ModelRegistry`."""

    settings: TrackingSettings

    def _call(self, method: str, path: str, request: Mapping[str, Any], *, repeat: bool = True) -> dict[str, Any]:
        raise NotImplementedError

    def _list(
        self,
        method: str,
        path: str,
        asked: Mapping[str, Any],
        key: str,
        limit: int = sys.maxsize,
        *,
        page: int = 1000,
    ) -> list[Any]:
        """Return what the pages of a list hold.

        :param key: of a page's items
        :param limit: read no further page once there are so many
        :param page: how many the server gives at once
        """
        request = dict(asked)
        found: list[Any] = []
        for _ in range(_MOST_PAGES):
            request["max_results"] = min(page, limit - len(found))
            answer = self._call(method, path, request)
            found += answer.get(key, [])
            if not answer.get("next_page_token") or len(found) >= limit:
                return found
            request["page_token"] = answer["next_page_token"]
        raise TrackingError(f"The MLflow tracking server at {self.settings.uri} gives {path} no end.")

    def ensure_model(self, name: str) -> None:
        try:
            self._call("POST", "registered-models/create", {"name": name})
        except TrackingError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise

    def model_version(self, name: str, version: int) -> ModelVersion | None:
        return self._version("model-versions/get", {"name": name, "version": str(version)})

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        return self._version("registered-models/alias", {"name": name, "alias": alias})

    def search_versions(self, query: str, limit: int = 1000) -> list[ModelVersion]:
        request = {"filter": query, "order_by": "version_number DESC"}
        found = self._list("GET", "model-versions/search", request, "model_versions", limit, page=_PAGE)
        return [_model_version(content) for content in found]

    def create_version(
        self, name: str, source: ModelSource, run_id: str, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        request: dict[str, Any] = {
            "name": name,
            "source": source.names[-1],
            "run_id": run_id,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "description": description,
        }
        if source.model_id:
            request["model_id"] = source.model_id
        # Whether an unanswered request made a version is unknown: the caller looks before asking again.
        return _model_version(self._call("POST", "model-versions/create", request, repeat=False)["model_version"])

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        request = {"name": name, "version": str(version), "key": key, "value": value}
        self._call("POST", "model-versions/set-tag", request)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def logged_model(self, model_id: str) -> LoggedModel:
        return _logged_model(self._call("GET", f"logged-models/{quote(model_id, safe='')}", {})["model"]["info"])

    def logged_models(self, experiment_id: str, query: str) -> list[LoggedModel]:
        request = {"experiment_ids": [experiment_id], "filter": query}
        models = self._list("POST", "logged-models/search", request, "models", page=100)
        infos = (content["info"] for content in models)
        return [_logged_model(info) for info in infos if info.get("status") != "LOGGED_MODEL_UPLOAD_FAILED"]

    def _version(self, path: str, request: Mapping[str, str]) -> ModelVersion | None:
        try:
            return _model_version(self._call("GET", path, request)["model_version"])
        except TrackingError as error:
            if is_missing(error):
                return None
            raise


def _model_version(content: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=content["name"],
        version=int(content["version"]),
        source=content.get("source", ""),
        run_id=content.get("run_id", ""),
        status=content.get("status", "READY"),
        status_message=content.get("status_message", ""),
        aliases=tuple(content.get("aliases", ())),
        tags={pair["key"]: pair.get("value", "") for pair in content.get("tags", [])},
    )


def _logged_model(info: Mapping[str, Any]) -> LoggedModel:
    return LoggedModel(
        model_id=info["model_id"],
        name=info["name"],
        run_id=info.get("source_run_id", ""),
        artifact_uri=info.get("artifact_uri", ""),
        created=int(info.get("creation_timestamp_ms", 0)),
    )
