"""What the pages show, as plain data; every list has an end, and the answer says where it was cut."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow_projects.backends.registry import backend_names
from mlflow_projects.exceptions import TrackingError
from mlflow_projects.public_uri import public_text
from mlflow_projects.tracking.answers import json_texts
from mlflow_projects.tracking.client import MetricPoint, Run, TrackingClient, quoted
from mlflow_projects.tracking.reuse_key import maker_of
from mlflow_projects.tracking.run_files import run_files
from mlflow_projects.tracking.tags import (
    CAUSE,
    DAG_ID,
    DAG_RUN_ID,
    INNER,
    MAP_INDEX,
    OUTPUT_TAIL,
    PARAMETERS,
    PARENT_RUN_ID,
    REASON,
    REUSED_FROM,
    ROLE,
    TASK_ID,
    TRY_NUMBER,
)
from mlflow_projects.tracking.tree import run_tree
from mlflow_projects.ui.sources import DagRunRecord, PageProblem

MAX_RUNS = 100
MAX_VALUES = 50  # parameters, and metrics, of one run
MAX_TEXT = 500  # characters of a parameter …
MAX_LONG_TEXT = 8000  # … and of a reason or an output
MAX_HISTORIES = 12
MAX_POINTS = 2000  # read of one history …
PLOTTED_POINTS = 200  # … and sent to the browser
MAX_FILES = 50
MAX_FOLDERS = 20
MAX_SERIES = 200
MAX_COMPARED_RUNS = 1000
# No more calls for one answer are begun after this time.
_SECONDS = 10.0
_MAX_DEPTH = 10
_LAST_MOMENT = 8_640_000_000_000_000  # of JavaScript, milliseconds since 1970
_CLOCK_SKEW = 3_600_000  # milliseconds


def tree(client: TrackingClient, dag_id: str, dag_run: DagRunRecord) -> dict[str, Any]:
    """Return the runs of a DAG run, each before its children."""
    nodes = [
        entry
        for top in run_tree(client, dag_id, dag_run.run_id, limit=MAX_RUNS, with_files=False)
        for entry in top.walk()
    ]
    return {
        "runs": [{"depth": depth, **_run(client, node.run)} for depth, node in nodes],
        "notes": [f"Only {MAX_RUNS} runs are shown."] if len(nodes) >= MAX_RUNS else [],
    }


def details(client: TrackingClient, dag_id: str, dag_run_id: str, mlflow_run_id: str) -> dict[str, Any]:
    """Return files and metric histories of one run of a DAG run.

    :raises PageProblem: the run belongs to another DAG run, or there is none
    """
    run = _run_of(client, dag_id, dag_run_id, mlflow_run_id)
    deadline = time.monotonic() + _SECONDS
    made_by = maker_of(client, run)
    files = run_files(client, made_by, limit=MAX_FILES + 1, max_folders=MAX_FOLDERS)
    notes = [f"Only {MAX_FILES} files are listed."] if len(files) > MAX_FILES else []
    histories: dict[str, list[tuple[int, float, int]]] = {}
    for key in sorted(run.metrics, key=_interest)[:MAX_HISTORIES]:
        if time.monotonic() > deadline:
            notes.append("The tracking server is slow; some plots are missing.")
            break
        points = client.metric_history(made_by, key, limit=MAX_POINTS)
        if len(points) == MAX_POINTS:
            notes.append(f"{key}: the plot holds the first {MAX_POINTS} values.")
        histories[key] = _thinned(points)
    if len(run.metrics) > MAX_HISTORIES:
        notes.append(f"Plots of {MAX_HISTORIES} of {len(run.metrics)} metrics.")
    return {
        "files": [{"path": file.path, "size": file.size} for file in files[:MAX_FILES]],
        "histories": histories,
        "notes": notes,
    }


def comparison(client: TrackingClient, dag_id: str, dag_runs: Sequence[DagRunRecord]) -> dict[str, Any]:
    """Return the values of every metric, and the duration of every step, in each of some DAG runs.

    :param dag_runs: newest first; of several tries of a task the newest counts
    """
    values: dict[str, dict[str, float | str]] = {dag_run.run_id: {} for dag_run in dag_runs}
    notes: list[str] = []
    if dag_runs:
        since = dag_runs[-1].due - _CLOCK_SKEW
        query = f"tags.`{DAG_ID}` = {quoted(dag_id)} and attributes.start_time >= {since}"
        runs = client.search_runs(client.experiment_ids(), query, limit=MAX_COMPARED_RUNS, newest_first=True)
        if len(runs) == MAX_COMPARED_RUNS:
            notes.append(f"Only the newest {MAX_COMPARED_RUNS} MLflow runs are compared.")
        seen: set[tuple[str, str]] = set()
        for run in runs:
            key = run.tags.get(DAG_RUN_ID, ""), _label(run)
            if key in seen or key[0] not in values or run.tags.get(ROLE) == INNER:
                continue
            seen.add(key)
            values[key[0]].update(_series(run))
    names = sorted({name for found in values.values() for name in found}, key=_interest)
    if len(names) > MAX_SERIES:
        notes.append(f"{MAX_SERIES} of {len(names)} metrics can be chosen.")
        names = names[:MAX_SERIES]
    shown = [
        {"run_id": run.run_id, "state": run.state, "due": run.due, "values": values[run.run_id]}
        for run in reversed(dag_runs)
    ]
    return {"series": names, "dag_runs": shown, "notes": notes}


def _run_of(client: TrackingClient, dag_id: str, dag_run_id: str, mlflow_run_id: str) -> Run:
    try:
        wanted = run = client.get_run(mlflow_run_id)
        for _ in range(_MAX_DEPTH):  # runs that a project nested carry no tags of ours, but their step does
            if DAG_ID in run.tags:
                if (run.tags[DAG_ID], run.tags.get(DAG_RUN_ID)) == (dag_id, dag_run_id):
                    return wanted
                break
            if not run.tags.get(PARENT_RUN_ID):
                break
            run = client.get_run(run.tags[PARENT_RUN_ID])
    except TrackingError as error:
        if error.code != "RESOURCE_DOES_NOT_EXIST":
            raise
    raise PageProblem("This DAG run has no such MLflow run.", 404)


def _run(client: TrackingClient, run: Run) -> dict[str, Any]:
    original = run.tags.get(REUSED_FROM, "")
    params = run.params or _announced(run.tags.get(PARAMETERS, ""))
    failed = run.status in ("FAILED", "KILLED")
    return {
        "id": run.run_id,
        "name": run.name,
        "status": run.status,
        "parent": run.tags.get(ROLE) == "parent",
        "task": _label(run) if TASK_ID in run.tags and run.tags.get(ROLE) != INNER else "",
        "attempt": run.tags.get(TRY_NUMBER, "") if run.tags.get(ROLE) == "step" else "",
        "start": _moment(run.start_time),
        "end": _moment(run.end_time),
        "url": client.settings.run_url(run.experiment_id, run.run_id),
        "reused": original,
        "original_url": client.settings.run_url(run.experiment_id, original) if original else "",
        "reason": _shown(run.tags.get(REASON, ""), MAX_LONG_TEXT) if failed else "",
        "cause": run.tags.get(CAUSE, "").replace("_", " ")[:MAX_TEXT] if failed else "",
        "output": _shown(run.tags.get(OUTPUT_TAIL, ""), MAX_LONG_TEXT) if failed else "",
        "params": _first(params, sorted, lambda text: _shown(text, MAX_TEXT)),
        "metrics": _first(run.metrics, lambda keys: sorted(keys, key=_interest), _sendable),
        "more_params": max(0, len(params) - MAX_VALUES),
        "more_metrics": max(0, len(run.metrics) - MAX_VALUES),
    }


def _first(
    values: Mapping[str, Any], order: Callable[[Mapping[str, Any]], list[str]], send: Callable[[Any], Any]
) -> list[tuple[str, Any]]:
    return [(key, send(values[key])) for key in order(values)[:MAX_VALUES]]


def _shown(text: str, most: int) -> str:
    """Return a text's beginning; far more is read than shown, so that no half of an address is."""
    return public_text(text[: 10 * most])[:most]


def _announced(text: str) -> dict[str, str]:
    """Return the parameters of a step that runs; MLflow gets them when it ends."""
    return json_texts(text) or {}


def _label(run: Run) -> str:
    if run.tags.get(ROLE) == "parent":
        return run.name
    index = run.tags.get(MAP_INDEX, "-1")
    return run.tags.get(TASK_ID, run.name) + ("" if index == "-1" else f"[{index}]")


def _series(run: Run) -> dict[str, float | str]:
    label = _label(run)
    found = {f"{label} · {key}": _sendable(value) for key, value in run.metrics.items()}
    if run.start_time and run.end_time:
        found[f"{label} · duration (s)"] = (run.end_time - run.start_time) / 1000
    return found


def _interest(name: str) -> tuple[bool, bool, str]:
    """Sort what a project measured before what was measured of it."""
    metric = name.rpartition(" · ")[2]
    return metric.partition("/")[0] in ("system", *backend_names()), metric == "duration (s)", name


def _thinned(points: Sequence[MetricPoint]) -> list[tuple[int, float, int]]:
    """Return at most about 200 finite points (step, value, time), the last one among them."""
    shown = (point for point in points if math.isfinite(point.value) and _moment(point.timestamp) is not None)
    finite = [(point.step, point.value, point.timestamp) for point in shown]
    if len(finite) <= PLOTTED_POINTS:
        return finite
    every = math.ceil(len(finite) / PLOTTED_POINTS)
    return [*finite[:-1:every], finite[-1]]


def _moment(milliseconds: int | None) -> int | None:
    """Return a time if a browser can show it; a project may have written any number, nanoseconds perhaps."""
    return None if milliseconds is None or abs(milliseconds) > _LAST_MOMENT else milliseconds


def _sendable(value: float) -> float | str:
    """Return a value that JSON can hold: it knows no NaN."""
    return value if math.isfinite(value) else str(value)
