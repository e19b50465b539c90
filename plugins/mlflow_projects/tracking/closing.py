"""How a run ends: first why, then that it does; all that close runs do it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.client import OPEN_STATUSES, Run, RunStatus, TrackingClient, now
from mlflow_projects.tracking.tags import PARENT_RUN_ID, REASON

# A filter in MLflow's search language: runs that have not ended.
NOT_CLOSED = " and ".join(f"attributes.status != '{status}'" for status in ("FINISHED", "FAILED", "KILLED"))

StopJob = Callable[[Run], None]


def end_run(
    client: TrackingClient,
    run_id: str,
    status: RunStatus,
    reason: str | None = None,
    *,
    end_time: int | None = None,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> int:
    """Write what is known at a run's end, then its status; return its end time.

    In this order, because a run that has ended is read: by then its reason must be there.

    :param reason: one sentence; "" takes an earlier one back, None leaves it
    :param end_time: milliseconds since 1970; default: now
    """
    written = {**(tags or {}), **({} if reason is None else {REASON: reason})}
    if written or params or metrics:
        client.log_batch(run_id, params=params, tags=written, metrics=metrics)
    moment = now() if end_time is None else end_time
    client.update_run(run_id, status, moment)
    return moment


def close_abandoned(
    client: TrackingClient, run_id: str, reason: str, stop: StopJob, *, also_finished: bool = False
) -> bool:
    """Set a run that nobody works on any more to KILLED, and before it what is open below it.

    A run that is closed, or does not exist, stays as it is.

    :param stop: called with each run before it is closed, to stop its job outside
    :param also_finished: withdraw success too
    :return: True if the run was changed
    """
    try:
        run = client.get_run(run_id)
    except TrackingError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    if run.status == "FINISHED" and also_finished:
        withdraw(client, run, reason)
        return True
    if run.status not in OPEN_STATUSES:
        return False
    close_open_descendants(client, run, reason, stop)
    stop(run)
    end_run(client, run_id, "KILLED", reason)
    return True


def withdraw(client: TrackingClient, run: Run, reason: str) -> None:
    """Set a FINISHED run whose success Airflow never took, because it had decided otherwise, to KILLED."""
    end_run(client, run.run_id, "KILLED", reason, end_time=run.end_time)


def close_open_descendants(client: TrackingClient, root: Run, reason: str, stop: StopJob) -> list[Run]:
    """Set every run below ``root`` that is still open to KILLED, the lowest first; return those.

    Only the run's own experiment is searched, which is where its children are unless a step was given
    another ``experiment_name``.

    :param stop: called with each run before it is closed, to stop its job outside
    """
    known = {run.run_id: run for run in client.search_runs([root.experiment_id], NOT_CLOSED)}
    below = [(depth, run) for run in list(known.values()) if (depth := _depth(client, known, run, root))]
    for _, run in sorted(below, key=lambda pair: -pair[0]):
        stop(run)
        end_run(client, run.run_id, "KILLED", reason)
    return [run for _, run in below]


def _depth(client: TrackingClient, known: dict[str, Run], run: Run, root: Run) -> int:
    """Return how far a run is below another, 0 if it is not."""
    depth, seen = 0, {run.run_id}
    while parent := run.tags.get(PARENT_RUN_ID):
        depth += 1
        if parent == root.run_id:
            return depth
        if parent in seen:
            return 0
        seen.add(parent)
        if parent not in known:
            try:
                known[parent] = client.get_run(parent)
            except TrackingError as error:
                if error.code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return 0
        run = known[parent]
    return 0
