"""Find runs: those of a DAG run, wherever they are on the server, and those below another run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mlflow_projects.tracking.client import OPEN_STATUSES, Run, TrackingClient, quoted
from mlflow_projects.tracking.tags import (
    DAG_ID,
    DAG_RUN_ID,
    MAP_INDEX,
    PARENT_RUN_ID,
    ROLE,
    TASK_ID,
    TASK_URL,
    TRY_NUMBER,
    dag_run_tag,
)

# A filter in MLflow's search language: runs that have not ended.
NOT_CLOSED = " and ".join(f"attributes.status != '{status}'" for status in ("FINISHED", "FAILED", "KILLED"))
_MOST_RUNS = 10_000
_EXPERIMENTS_AT_ONCE = 100  # as many as Databricks takes
_IDS_AT_ONCE = 100
_MOST_LEVELS = 20
_CLOCKS_APART = 10 * 60 * 1000  # milliseconds: a child may have started "before" its parent, on another machine


def runs_of_dag_run(
    client: TrackingClient,
    dag_id: str,
    dag_run_id: str,
    *,
    map_index: int | None = None,
    airflow_url: str = "",
    limit: int = _MOST_RUNS,
) -> list[Run]:
    """Return the runs that carry the tags of a DAG run, in any experiment, the oldest first.

    Those that a project opened by itself are among them: MLflow's fluent API gives them the tags that the command
    got in ``MLFLOW_RUN_CONTEXT``.

    :param map_index: only those of tasks with this index
    :param airflow_url: base URL of an Airflow: only its runs, if any of them are
    :param limit: how many at most
    """
    index = {} if map_index is None else {MAP_INDEX: str(map_index)}
    found = _search(client, index, None, limit, named=dag_run_tag(dag_id, dag_run_id))
    above = {run.tags.get(PARENT_RUN_ID) for run in found} - {run.run_id for run in found} - {None}
    if not found or (above and not index):  # some are of an earlier version, which had no such tag
        known = {run.run_id: run for run in found}
        older = _search(client, {DAG_ID: dag_id, DAG_RUN_ID: dag_run_id, **index}, None, limit)
        found = [*{**known, **{run.run_id: run for run in older}}.values()]
    return sorted(_of_airflow(found, airflow_url), key=lambda run: run.start_time or 0)[:limit]


def parents_of_task(
    client: TrackingClient,
    task: Mapping[str, str],
    experiment_ids: Sequence[str] | None = None,
    *,
    airflow_url: str = "",
) -> list[Run]:
    """Return the parent runs that a start task of a DAG run opened, the newest first; mostly it is one.

    A start task that was cleared or tried again while its first request was on its way may have two.

    :param task: its tags for DAG, DAG run, task and map index
    :param experiment_ids: where to look; default: everywhere
    :param airflow_url: base URL of an Airflow: only its runs, if any of them are
    """
    own = {TASK_ID: task[TASK_ID], MAP_INDEX: task[MAP_INDEX], ROLE: "parent"}
    dag_id, dag_run_id = task[DAG_ID], task[DAG_RUN_ID]
    found = _search(client, own, experiment_ids, _MOST_RUNS, named=dag_run_tag(dag_id, dag_run_id))
    if not found and task.get(TRY_NUMBER) != "1":  # an earlier version may have opened it
        older = {DAG_ID: dag_id, DAG_RUN_ID: dag_run_id, **own}
        found = _search(client, older, experiment_ids, _MOST_RUNS)
    return sorted(_of_airflow(found, airflow_url), key=lambda run: -(run.start_time or 0))


def _of_airflow(runs: list[Run], airflow_url: str) -> list[Run]:
    """Leave out the runs of another Airflow, in which a DAG and its run may have the same names.

    If none is of this one, a worker may have been told another address: then all stay.
    """
    start = f"{airflow_url.rstrip('/')}/"
    ours = [run for run in runs if run.tags.get(TASK_URL, start).startswith(start)]
    return ours if airflow_url and ours else runs


def _search(
    client: TrackingClient,
    tags: Mapping[str, str],
    experiment_ids: Sequence[str] | None,
    limit: int,
    *,
    named: str = "",
) -> list[Run]:
    """Return the runs with these tags, and with one of that name, whatever it holds."""
    conditions = [f"tags.`{named}` != ''"] if named else []
    conditions += [f"tags.`{key}` = {quoted(value)}" for key, value in tags.items()]
    return search_experiments(client, " and ".join(conditions), experiment_ids, limit)


def search_experiments(
    client: TrackingClient, query: str, experiment_ids: Sequence[str] | None = None, limit: int = _MOST_RUNS
) -> list[Run]:
    """Return the runs that match a filter in MLflow's search language, the oldest first in each experiment.

    :param experiment_ids: where to look; default: everywhere
    :param limit: how many at most of those experiments that are asked for at once
    """
    ids = client.experiment_ids() if experiment_ids is None else experiment_ids
    found: list[Run] = []
    for start in range(0, len(ids), _EXPERIMENTS_AT_ONCE):
        found += client.search_runs(ids[start : start + _EXPERIMENTS_AT_ONCE], query, limit=limit)
        if len(found) >= _MOST_RUNS:
            break
    return found


def runs_by_id(client: TrackingClient, run_ids: Collection[str]) -> list[Run]:
    """Return those of some runs that are there and not deleted, in any experiment, with few requests."""
    return _read(client, client.experiment_ids(), sorted(run_ids)) if run_ids else []


def open_below(client: TrackingClient, roots: Collection[Run]) -> list[Run]:
    """Return every run below some others that is still open, the lowest first.

    Only the experiments of those others are searched, from the time when the first of them started.
    """
    if not roots:
        return []
    own = {root.run_id for root in roots}
    experiments = sorted({root.experiment_id for root in roots})
    since = min(root.start_time or 0 for root in roots) - _CLOCKS_APART
    query = f"{NOT_CLOSED} and attributes.start_time >= {max(0, since)}"
    found = client.search_runs(experiments, query, limit=_MOST_RUNS, newest_first=True)
    known = {run.run_id: run for run in [*found, *roots]}
    for _ in range(_MOST_LEVELS):  # a nested run may be below one that has ended
        above = {run.tags.get(PARENT_RUN_ID, "") for run in known.values() if run.run_id not in own}
        missing = sorted(above - known.keys() - {""})
        read = _read(client, experiments, missing)
        if not read:
            break
        known |= {run.run_id: run for run in read}
    depths = ((_depth(run, known, own), run) for run in found if run.run_id not in own)
    below = [(depth, run) for depth, run in depths if depth and run.status in OPEN_STATUSES]
    return [run for _, run in sorted(below, key=lambda pair: -pair[0])]


def task_of(run: Run) -> tuple[str, str]:
    """Return id and map index of the task that a run belongs to."""
    return run.tags.get(TASK_ID, ""), run.tags.get(MAP_INDEX, "-1")


def of_parent(runs: Sequence[Run], parent: Run) -> list[Run]:
    """Return those of a DAG run's runs that are below a parent run, or below another that its start task opened.

    What the project of such a step opened elsewhere is among them.
    """
    ids, tasks = {parent.run_id}, {task_of(parent)}
    while True:
        more = [
            run
            for run in runs
            if run.run_id not in ids and (run.tags.get(PARENT_RUN_ID) in ids or task_of(run) in tasks)
        ]
        if not more:
            return [run for run in runs if run.run_id in ids]
        ids |= {run.run_id for run in more}
        tasks |= {task_of(run) for run in more}


def latest_tries(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the last try of each step, with what its project opened.

    :param runs: the oldest first
    """
    last = {task_of(run): run.tags.get(TRY_NUMBER) for run in runs if run.tags.get(ROLE) == "step"}
    return [run for run in runs if task_of(run) in last and run.tags.get(TRY_NUMBER) == last[task_of(run)]]


def _read(client: TrackingClient, experiments: Sequence[str], run_ids: Sequence[str]) -> list[Run]:
    found: list[Run] = []
    for start in range(0, len(run_ids), _IDS_AT_ONCE):
        listed = ", ".join(quoted(run_id) for run_id in run_ids[start : start + _IDS_AT_ONCE])
        found += search_experiments(client, f"attributes.run_id IN ({listed})", experiments)
    return found


def _depth(run: Run, known: dict[str, Run], roots: Collection[str]) -> int:
    """Return how far a run is below the nearest of some others, 0 if it is below none."""
    depth, seen = 0, {run.run_id}
    while parent := run.tags.get(PARENT_RUN_ID):
        depth += 1
        if parent in roots:
            return depth
        if parent in seen or parent not in known:
            return 0
        seen.add(parent)
        run = known[parent]
    return 0
