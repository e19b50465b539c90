"""The model registry over MLflow's REST API; a part of the REST client.

Reference: https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mlflow_projects.exceptions import AnswerTooLargeError, TrackingError
from mlflow_projects.tracking.answers import Fields, not_understood
from mlflow_projects.tracking.registry import LoggedModel, ModelSource, ModelVersion, RegisteredModel, is_missing
from mlflow_projects.tracking.server import TrackingSettings

_PAGE = 1000
# Of one list: a server could name a next page for ever.
_MOST_PAGES = 1000
_MOST_ANSWERS = 2  # so many times the largest size of one answer
_LONGEST_TOKEN = 30_000  # of a page; it may have to go into a URL


class RestRegistry:
    """The calls of :class:`~mlflow_projects.tracking.registry.ModelRegistry`."""

    settings: TrackingSettings

    def _call(self, method: str, path: str, request: Mapping[str, Any], *, repeat: bool = True) -> Fields:
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
    ) -> list[Fields]:
        """Return what the pages of a list hold.

        :param key: of a page's items
        :param limit: read no further page once there are so many
        :param page: how many the server gives at once; fewer, if that is too much for one answer
        """
        request = dict(asked)
        found: list[Fields] = []
        size, tokens = 0, set[str]()
        for _ in range(_MOST_PAGES):
            request["max_results"] = min(page, limit - len(found))
            try:
                answer = self._call(method, path, request)
            except AnswerTooLargeError:  # as of runs with thousands of long parameters
                if request["max_results"] == 1:
                    raise
                page = max(page // 10, 1)
                continue
            # An empty list may be left out; but a proxy that says something else in JSON would mean "nothing there".
            if answer.content and not answer.content.keys() & {key, "next_page_token"}:
                raise answer.error(key, None, "a list")
            found += answer.parts(key)
            size += answer.size
            token = answer.text("next_page_token", "")
            if not token or len(found) >= limit:
                return found[:limit]
            if len(token) > _LONGEST_TOKEN:
                raise not_understood(answer.server, path, "the name of its next page is too long")
            if token in tokens or size > _MOST_ANSWERS * self.settings.max_bytes:
                break
            tokens.add(token)
            request["page_token"] = token
        raise TrackingError(f"The MLflow tracking server at {self.settings.address} gives {path} no end.")

    def ensure_model(self, name: str) -> None:
        try:
            self._call("POST", "registered-models/create", {"name": name})
        except TrackingError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise

    def search_models(self, query: str = "") -> list[RegisteredModel]:
        found = self._list("GET", "registered-models/search", {"filter": query}, "registered_models", page=_PAGE)
        return [_registered_model(content) for content in found]

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
        answer = self._call("POST", "model-versions/create", request, repeat=False)
        return _model_version(answer.part("model_version"))

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        request = {"name": name, "version": str(version), "key": key, "value": value}
        self._call("POST", "model-versions/set-tag", request)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def logged_model(self, model_id: str) -> LoggedModel:
        answer = self._call("GET", f"logged-models/{quote(model_id, safe='', errors='replace')}", {})
        return _logged_model(answer.part("model").part("info"))

    def logged_models(self, experiment_id: str, query: str) -> list[LoggedModel]:
        request = {"experiment_ids": [experiment_id], "filter": query}
        models = self._list("POST", "logged-models/search", request, "models", page=100)
        infos = (content.part("info") for content in models)
        return [_logged_model(info) for info in infos if info.text("status", "") != "LOGGED_MODEL_UPLOAD_FAILED"]

    def _version(self, path: str, request: Mapping[str, str]) -> ModelVersion | None:
        try:
            return _model_version(self._call("GET", path, request).part("model_version"))
        except TrackingError as error:
            if is_missing(error):
                return None
            raise


def _model_version(content: Fields) -> ModelVersion:
    return ModelVersion(
        name=content.text("name"),
        version=content.whole("version"),
        source=content.text("source", ""),
        run_id=content.text("run_id", ""),
        status=content.text("status", "READY"),
        status_message=content.text("status_message", ""),
        aliases=content.texts("aliases"),
        tags=content.pairs("tags"),
    )


def _registered_model(content: Fields) -> RegisteredModel:
    return RegisteredModel(
        name=content.text("name"),
        aliases={part.text("alias"): part.whole("version") for part in content.parts("aliases")},
        latest=tuple(_model_version(part) for part in content.parts("latest_versions")),
        created=content.whole("creation_timestamp", 0),
    )


def _logged_model(info: Fields) -> LoggedModel:
    return LoggedModel(
        model_id=info.identifier("model_id"),
        name=info.text("name"),
        run_id=info.text("source_run_id", ""),
        artifact_uri=info.text("artifact_uri", ""),
        created=info.whole("creation_timestamp_ms", 0),
    )
