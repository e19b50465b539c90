"""Which finished runs a step may take over: the key of its content, and the tags that make a key findable.

MLflow indexes tags by their *name*, not by their value: a search for a name reads the few rows of that
name, a search for a value reads one row of each run that has the tag. So the key is part of the name.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.answers import json_object, whole_characters
from mlflow_projects.tracking.client import OPEN_STATUSES, Run, TrackingClient, quoted
from mlflow_projects.tracking.run_files import run_files
from mlflow_projects.tracking.tags import REUSED_FROM

ARTIFACTS = "mlflow_projects.reuse_artifacts"
_KEY = "mlflow_projects.reuse."
_PARTS = "mlflow_projects.reuse_parts."
# What the key's tag says of its run. A project may write FINISHED long before its command ends, so only
# COMPLETE together with MLflow's FINISHED is a result.
RUNNING, WAITING, COMPLETE, REUSED = "running", "waiting", "complete", "reused"
_LINGER_MS = 600_000  # a project that wrote FINISHED may still work for so long
_MAX_FOUND = 100
_MAX_FILES = 100
_MAX_FOLDERS = 20
_MAX_TAG = 8000
_MAX_PATH = 4096
_VERSION = 1  # of the key's form


@dataclass(frozen=True)
class ReuseKey:
    """The identity of what a step would do.

    :param parts: what the result depends on, as JSON can hold it, by name
    :param task: a name for the task, the same in each of its DAG runs
    """

    parts: Mapping[str, Any]
    task: str

    @property
    def digest(self) -> str:
        """Return the key: the same only if all parts are the same."""
        return _sha256({"version": _VERSION, **self.parts})

    @property
    def tag(self) -> str:
        """Return the name of the tag that leads to runs with this key."""
        return f"{_KEY}{self.digest}"

    def tags(self, state: str) -> dict[str, str]:
        """Return the tags of a run with this key."""
        parts = {name: _sha256(part)[:12] for name, part in self.parts.items()}
        return {self.tag: state, self._parts_tag: json.dumps(parts)}

    def complete_runs(self, client: TrackingClient, experiment_id: str) -> list[Run]:
        """Return the runs whose result may be taken over, newest first; one request."""
        query = f"tags.`{self.tag}` = '{COMPLETE}' and attributes.status = 'FINISHED'"
        return client.search_runs([experiment_id], query, limit=5, newest_first=True)

    def every_run(self, client: TrackingClient, experiment_id: str) -> list[Run]:
        """Return the runs with this key in any state, newest first; one request."""
        query = f"tags.`{self.tag}` != ''"
        return client.search_runs([experiment_id], query, limit=_MAX_FOUND, newest_first=True)

    def differences(self, client: TrackingClient, experiment_id: str) -> tuple[Run, list[str]] | None:
        """Return the task's newest run that had a key, and which parts have changed since; one request."""
        found = client.search_runs([experiment_id], f"tags.`{self._parts_tag}` != ''", limit=1, newest_first=True)
        if not found:
            return None
        mine = self.tags("")[self._parts_tag]
        theirs = json_object(found[0].tags.get(self._parts_tag))
        if theirs is None:
            return None
        return found[0], [name for name, part in json.loads(mine).items() if theirs.get(name) != part]

    def is_complete(self, run: Run) -> bool:
        """Tell whether a run with this key left a result."""
        return run.status == "FINISHED" and run.tags.get(self.tag) == COMPLETE

    def is_at_work(self, run: Run) -> bool:
        """Tell whether a run with this key seems to be making the result now."""
        state = run.tags.get(self.tag)
        if state == COMPLETE:
            return run.status in OPEN_STATUSES  # its end is being written: first the tags, then the status
        if state != RUNNING:
            return False
        lately = run.end_time is None or run.end_time > time.time() * 1000 - _LINGER_MS
        return run.status in OPEN_STATUSES or (run.status == "FINISHED" and lately)

    @property
    def _parts_tag(self) -> str:
        return f"{_PARTS}{hashlib.sha256(self.task.encode()).hexdigest()[:24]}"


def completion_tags(client: TrackingClient, run: Run) -> dict[str, str]:
    """Return the tags that make a run whose command ended well a result, if the run has a key at all.

    A run whose artifacts cannot be listed now is none: nobody could tell later whether they are still there.
    """
    keys = [name for name, state in run.tags.items() if name.startswith(_KEY) and state == RUNNING]
    if not keys:
        return {}
    try:
        files = run_files(client, run.run_id, limit=_MAX_FILES, max_folders=_MAX_FOLDERS)
        models = [model.model_id for model in _models(client, run)]
    except TrackingError:
        return {}
    listed = _shortened({file.path: file.size or 0 for file in files})
    return {**dict.fromkeys(keys, COMPLETE), ARTIFACTS: json.dumps({"files": listed, "models": models[:_MAX_FILES]})}


def with_models(run: Run) -> Run:
    """Return a result with the ids of its models, which its tags name, without another request."""
    noted = _noted(run)
    return run if noted is None else replace(run, model_ids=tuple(noted[1]))


def lost_artifacts(client: TrackingClient, run: Run) -> list[str]:
    """Return which files and models of a result are gone or have another size; one request per folder."""
    noted = _noted(run)
    if noted is None:
        return ["the list of its artifacts"]
    files, models = noted
    lost = []
    if files:
        found = {file.path: file.size or 0 for file in _in_folders_of(client, run.run_id, files)}
        lost = [path for path, size in files.items() if found.get(path) != size]
    if models:
        present = {model.model_id for model in _models(client, run)}
        lost += [model for model in models if model not in present]
    return lost


def maker_of(client: TrackingClient, run: Run) -> str:
    """Return the run that made a run's result: itself, or the original of a reused result while that exists.

    Whoever may write to a run can set the tag that names the original, so it counts only for two runs of one
    experiment with one key, which nobody knows who does not know the original's content.
    """
    keys = [name for name, state in run.tags.items() if name.startswith(_KEY) and state == REUSED]
    if not keys or not run.tags.get(REUSED_FROM):
        return run.run_id
    try:
        original = client.get_run(run.tags[REUSED_FROM])
    except TrackingUnavailableError:
        raise
    except TrackingError:  # deleted, not to be read, or never the id of a run
        return run.run_id
    has_key = any(original.tags.get(key) == COMPLETE for key in keys)
    return original.run_id if has_key and original.experiment_id == run.experiment_id else run.run_id


def _noted(run: Run) -> tuple[dict[str, int], list[str]] | None:
    """Return the sizes of a result's files and the ids of its models, as :func:`completion_tags` wrote them.

    None if that is not there: a person, or a project, may have changed the tag.
    """
    content = json_object(run.tags.get(ARTIFACTS)) or {}
    files, models = content.get("files"), content.get("models")
    if not isinstance(files, dict) or not isinstance(models, list):
        return None
    if len(files) > _MAX_FILES or len(models) > _MAX_FILES:
        return None
    if not all(map(_can_be_asked_for, files)):
        return None
    if not all(isinstance(size, int) for size in files.values()) or not all(isinstance(one, str) for one in models):
        return None
    return files, models


def _can_be_asked_for(path: str) -> bool:
    is_text = "\0" not in path and whole_characters(path) == path
    return is_text and len(path) <= _MAX_PATH and not path.startswith("/") and ".." not in path.split("/")


def _in_folders_of(client: TrackingClient, run_id: str, files: Mapping[str, int]) -> Sequence[Any]:
    folders = sorted({path.rpartition("/")[0] for path in files})
    return [entry for folder in folders for entry in client.list_artifacts(run_id, folder) if not entry.is_dir]


def _models(client: TrackingClient, run: Run) -> Sequence[Any]:
    """Return the run's models, which MLflow 3 keeps outside of its artifacts."""
    return client.logged_models(run.experiment_id, f"source_run_id = {quoted(run.run_id)}")


def _shortened(files: dict[str, int]) -> dict[str, int]:
    """Leave out the last files until the others fit into a tag."""
    while len(json.dumps(files)) > _MAX_TAG // 2:
        files.popitem()
    return files


def _sha256(content: Any) -> str:
    """Return the hash of a value in JSON's one canonical form, in which no two values are written alike."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
