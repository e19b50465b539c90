"""A tracking server in memory, for tests of what is written, found and closed.

It cannot lie: ``tests/contract`` holds the cases that this client, the REST client and MLflow's own pass alike
(here in tests/unit, there against real stores in tests/integration). What it does not know, it refuses.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.client import (
    Artifact,
    LoggedDataset,
    MetricPoint,
    Run,
    RunStatus,
    deleted_experiment,
    storable,
)
from mlflow_projects.tracking.registry import LoggedModel, ModelSource, ModelVersion, RegisteredModel
from mlflow_projects.tracking.server import TrackingSettings

_CONDITION = re.compile(
    r"""(\w+)(?:\.(?:`([^`]+)`|(\w+)))?\s*(!=|=|>=|IN|LIKE)\s*(?:'([^']*)'|"([^"]*)"|(\d+)|\(([^()]+)\))"""
)
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "IN": lambda value, listed: value in listed,
    "LIKE": lambda value, pattern: True,  # "%", see below
}


@dataclass
class _Stored:
    run: Run
    active: bool = True
    files: dict[str, int] = field(default_factory=dict)
    histories: dict[str, list[MetricPoint]] = field(default_factory=dict)
    datasets: list[LoggedDataset] = field(default_factory=list)


class MemoryClient:
    """A :class:`~mlflow_projects.tracking.client.TrackingClient` without a server.

    :param before: called with (method, arguments) before each call of the client; may raise, as a server may
    """

    def __init__(
        self, uri: str = "http://tracking.test", before: Callable[[str, tuple[Any, ...]], None] | None = None
    ):
        self.settings = TrackingSettings(uri=uri)
        self.before = before or (lambda method, arguments: None)
        self.calls: list[str] = []
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self._experiments: dict[str, tuple[str, bool]] = {"0": ("Default", True)}
        self._runs: dict[str, _Stored] = {}
        self._models: list[tuple[LoggedModel, str, str]] = []  # with experiment and status
        self._versions: dict[str, list[ModelVersion]] = {}
        self._made: dict[str, int] = {}  # when a model was made

    @property
    def runs(self) -> list[Run]:
        """Return all runs, deleted ones too, in the order in which they were made."""
        return [stored.run for stored in self._runs.values()]

    # --- what an attempt calls ---

    def experiment_id(self, name: str) -> str | None:
        self._called("experiment_id", name)
        for experiment_id, (known, active) in self._experiments.items():
            if known == name and not active:
                raise deleted_experiment(name, experiment_id)
            if known == name:
                return experiment_id
        return None

    def create_experiment(self, name: str) -> str:
        self._called("create_experiment", name)
        with self._lock:
            if any(known == name for known, _ in self._experiments.values()):
                raise TrackingError(f"Experiment {name!r} already exists.", "RESOURCE_ALREADY_EXISTS")
            experiment_id = str(next(self._ids))
            self._experiments[experiment_id] = (name, True)
            return experiment_id

    def create_run(self, experiment_id: str, name: str, start_time: int, tags: Mapping[str, str]) -> Run:
        self._called("create_run", experiment_id, name, start_time, tags)
        if experiment_id not in self._experiments:
            raise TrackingError(f"No Experiment with id={experiment_id} exists", "RESOURCE_DOES_NOT_EXIST")
        if not self._experiments[experiment_id][1]:
            raise TrackingError(
                f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted.",
                "INVALID_PARAMETER_VALUE",
            )
        run_id = f"{next(self._ids):032x}"
        name = storable(name)
        kept = {**_checked(tags), "mlflow.runName": name}
        uri = f"memory://{experiment_id}/{run_id}/artifacts"
        run = Run(run_id, experiment_id, name, "RUNNING", uri, start_time, None, kept)
        self._runs[run_id] = _Stored(run)
        return run

    def get_run(self, run_id: str) -> Run:
        self._called("get_run", run_id)
        return self._stored(run_id).run

    def search_runs(
        self, experiment_ids: Sequence[str], query: str, *, limit: int = 1000, newest_first: bool = False
    ) -> list[Run]:
        self._called("search_runs", experiment_ids, query)
        matches = _matcher(query)
        found = [
            stored.run
            for stored in self._runs.values()
            if stored.active and stored.run.experiment_id in experiment_ids and matches(_run_fields(stored.run))
        ]
        # Of runs of one millisecond, a real store gives the smaller id first in both directions.
        found.sort(key=lambda run: run.run_id)
        found.sort(key=lambda run: run.start_time or 0, reverse=newest_first)
        return found[:limit]

    def log_batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        self._called("log_batch", run_id, params, tags, metrics)
        stored = self._active(run_id)
        params = _checked(params or {})
        for key, value in params.items():
            if stored.run.params.get(key, value) != value:
                raise TrackingError(f"Changing param values is not allowed: {key!r}.", "INVALID_PARAMETER_VALUE")
        stored.run = replace(
            stored.run, params={**stored.run.params, **params}, tags={**stored.run.tags, **_checked(tags or {})}
        )
        for key, value in (metrics or {}).items():
            self.log_metric(run_id, key, value)

    def update_run(self, run_id: str, status: RunStatus, end_time: int | None = None) -> None:
        self._called("update_run", run_id, status, end_time)
        stored = self._active(run_id)
        # A status alone leaves the end as it was, as MLflow does.
        stored.run = replace(stored.run, status=status, end_time=end_time or stored.run.end_time)

    def list_artifacts(self, run_id: str, path: str = "") -> list[Artifact]:
        self._called("list_artifacts", run_id, path)
        prefix = f"{path}/" if path else ""
        found: dict[str, Artifact] = {}
        for file, size in sorted(self._stored(run_id).files.items()):
            if file.startswith(prefix):
                name, below, _ = file[len(prefix) :].partition("/")
                found[name] = Artifact(f"{prefix}{name}", bool(below), None if below else size)
        return list(found.values())

    def metric_history(self, run_id: str, key: str, *, limit: int = 1000) -> list[MetricPoint]:
        self._called("metric_history", run_id, key)
        points = self._stored(run_id).histories.get(key, [])
        return sorted(points, key=lambda point: (point.timestamp, point.step))[:limit]

    def logged_datasets(self, run_id: str) -> list[LoggedDataset]:
        self._called("logged_datasets", run_id)
        return list(self._stored(run_id).datasets)

    def experiment_ids(self) -> list[str]:
        self._called("experiment_ids")
        return [experiment_id for experiment_id, (_, active) in self._experiments.items() if active]

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    # --- the registry ---

    def ensure_model(self, name: str) -> None:
        self._called("ensure_model", name)
        if not name or re.search("[/:]", name):
            raise TrackingError(f"Invalid model name: {name!r}.", "INVALID_PARAMETER_VALUE")
        if name not in self._versions:
            self._versions[name] = []
            self._made[name] = next(self._ids)

    def search_models(self, query: str = "") -> list[RegisteredModel]:
        self._called("search_models", query)
        matches = _matcher(query)
        return [
            RegisteredModel(
                name,
                {alias: one.version for one in versions for alias in one.aliases},
                tuple(versions[-1:]),
                self._made[name],
            )
            for name, versions in self._versions.items()
            if matches({("name", ""): name})
        ]

    def model_version(self, name: str, version: int) -> ModelVersion | None:
        self._called("model_version", name, version)
        return next((found for found in self._versions.get(name, []) if found.version == version), None)

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        self._called("version_by_alias", name, alias)
        return next((found for found in self._versions.get(name, []) if alias in found.aliases), None)

    def search_versions(self, query: str, limit: int = 1000) -> list[ModelVersion]:
        self._called("search_versions", query)
        matches = _matcher(query)
        every = itertools.chain.from_iterable(self._versions.values())
        found = [one for one in every if matches(_version_fields(one))]
        return sorted(found, key=lambda one: -one.version)[:limit]

    def create_version(
        self, name: str, source: ModelSource, run_id: str, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        self._called("create_version", name, source, run_id, tags, description)
        made = ModelVersion(name, len(self._versions[name]) + 1, source.names[-1], run_id, tags=dict(tags))
        self._versions[name].append(made)
        return made

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        self._called("set_version_tag", name, version, key, value)
        self._change_version(name, version, lambda one: replace(one, tags={**one.tags, key: value}))

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._called("set_alias", name, alias, version)
        if re.fullmatch(r"v\d+|latest", alias, re.IGNORECASE):
            raise TrackingError(f"Invalid alias name: {alias!r}.", "INVALID_PARAMETER_VALUE")
        for one in self._versions[name]:
            kept = tuple(name for name in one.aliases if name != alias)
            held = (*kept, alias) if one.version == version else kept
            self._change_version(name, one.version, lambda one, held=held: replace(one, aliases=held))

    def logged_model(self, model_id: str) -> LoggedModel:
        self._called("logged_model", model_id)
        for model, _, _ in self._models:
            if model.model_id == model_id:
                return model
        raise TrackingError(f"Logged model {model_id} not found", "RESOURCE_DOES_NOT_EXIST")

    def logged_models(self, experiment_id: str, query: str) -> list[LoggedModel]:
        self._called("logged_models", experiment_id, query)
        matches = _matcher(query)
        return [
            model
            for model, experiment, status in self._models
            if experiment == experiment_id
            and status != "FAILED"
            and matches({("name", ""): model.name, ("source_run_id", ""): model.run_id})
        ]

    # --- what a project, or a person, does with MLflow's own client ---

    def log_metric(self, run_id: str, key: str, value: float, *, step: int = 0, timestamp: int | None = None) -> None:
        stored = self._active(run_id)
        moment = int(time.time() * 1000) if timestamp is None else timestamp
        if math.isinf(value):
            value = math.copysign(sys.float_info.max, value)  # mlflow.store.tracking.sqlalchemy_store
        points = stored.histories.setdefault(key, [])
        points.append(MetricPoint(value, step, moment))
        last = max(points, key=lambda point: (point.step, point.timestamp))
        stored.run = replace(stored.run, metrics={**stored.run.metrics, key: last.value})

    def log_text(self, run_id: str, text: str, path: str) -> None:
        self._stored(run_id).files[path] = len(text.encode())

    def log_dataset(self, run_id: str, dataset: LoggedDataset) -> None:
        self._stored(run_id).datasets.append(dataset)

    def log_model(self, run: Run, name: str = "model", status: str = "READY") -> str:
        number = next(self._ids)
        model = LoggedModel(f"m-{number:032x}", name, run.run_id, f"memory://models/m-{number:032x}", number)
        self._models.append((model, run.experiment_id, status))
        stored = self._stored(run.run_id)
        stored.run = replace(stored.run, model_ids=(*stored.run.model_ids, model.model_id))
        return model.model_id

    def delete_run(self, run_id: str) -> None:
        self._stored(run_id).active = False

    def delete_experiment(self, experiment_id: str) -> None:
        name, _ = self._experiments[experiment_id]
        self._experiments[experiment_id] = (name, False)
        for stored in self._runs.values():
            stored.active = stored.active and stored.run.experiment_id != experiment_id

    # ---

    def _called(self, method: str, *arguments: Any) -> None:
        self.calls.append(method)
        self.before(method, arguments)

    def _stored(self, run_id: str) -> _Stored:
        if run_id not in self._runs:
            raise TrackingError(f"Run with id={run_id} not found", "RESOURCE_DOES_NOT_EXIST")
        return self._runs[run_id]

    def _active(self, run_id: str) -> _Stored:
        stored = self._stored(run_id)
        if not stored.active:
            raise TrackingError(f"The run {run_id} must be in the 'active' state.", "INVALID_PARAMETER_VALUE")
        return stored

    def _change_version(self, name: str, version: int, change: Callable[[ModelVersion], ModelVersion]) -> None:
        self._versions[name] = [change(one) if one.version == version else one for one in self._versions[name]]


def _checked(pairs: Mapping[str, str]) -> dict[str, str]:
    """Refuse what no tracking server takes: anything but text, and text that is too long."""
    for key, value in pairs.items():
        assert isinstance(key, str), f"{key!r} is no text"
        assert isinstance(value, str), f"{key}: {value!r} is no text"
        assert len(value) <= 8000, f"{key} has {len(value)} characters"
    return {key: storable(value) for key, value in pairs.items()}


def _run_fields(run: Run) -> dict[tuple[str, str], str | int]:
    tags: dict[tuple[str, str], str | int] = {("tags", key): value for key, value in run.tags.items()}
    attributes = {"status": run.status, "start_time": run.start_time or 0, "run_id": run.run_id}
    return {**tags, **{("attributes", name): value for name, value in attributes.items()}}


def _version_fields(version: ModelVersion) -> dict[tuple[str, str], str | int]:
    tags: dict[tuple[str, str], str | int] = {("tags", key): value for key, value in version.tags.items()}
    return {**tags, ("name", ""): version.name, ("run_id", ""): version.run_id}


def _matcher(query: str) -> Callable[[Mapping[tuple[str, str], str | int]], bool]:
    """Read as much of MLflow's search language as the library writes; an unknown key matches nothing."""
    conditions: list[tuple[tuple[str, str], Callable[[Any, Any], bool], Any]] = []
    rest = query.strip()
    while rest:
        read = _CONDITION.match(rest)
        assert read, f"not understood: {rest!r} in {query!r}"
        kind, ticked, plain, sign, single, double, number, listed = read.groups()
        value: Any = int(number) if number else double if single is None else single
        if listed:
            value = [part.strip().strip("'\"") for part in listed.split(",")]
        assert sign != "LIKE" or value == "%", f"not understood: {rest!r} in {query!r}"
        conditions.append(((kind, ticked or plain or ""), _SIGNS[sign], value))
        rest = rest[read.end() :].strip()
        if rest:
            assert rest.startswith("and "), f"not understood: {rest!r} in {query!r}"
            rest = rest[4:].strip()
    return lambda fields: all(key in fields and compare(fields[key], value) for key, compare, value in conditions)


def statuses(client: MemoryClient, runs: Iterable[Run]) -> dict[str, str]:
    """Return what each run is now, by name."""
    return {run.name: client.get_run(run.run_id).status for run in runs}


def opened_again(client: MemoryClient, run: Run, noted: str) -> Run:
    """Return a run as one that had ended is when a function of another task writes into it.

    :param noted: its status and end time, as its tag has them
    """
    client.log_batch(run.run_id, tags={"mlflow_projects.ended_as": noted})
    client.update_run(run.run_id, "FINISHED", 77)
    client.update_run(run.run_id, "RUNNING")
    return client.get_run(run.run_id)
