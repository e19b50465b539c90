"""How a run ends: first why, then that it does; all that close runs do it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.client import OPEN_STATUSES, Run, RunStatus, TrackingClient, now
from mlflow_projects.tracking.lookup import open_below
from mlflow_projects.tracking.tags import REASON

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


def end_if_there(
    client: TrackingClient,
    run: Run,
    status: RunStatus,
    reason: str | None,
    *,
    tags: Mapping[str, str] | None = None,
    end_time: int | None = None,
) -> bool:
    """End a run unless a person deleted it, which MLflow lets nobody change; tell whether it was there."""
    try:
        end_run(client, run.run_id, status, reason, tags=tags, end_time=end_time)
    except TrackingError as error:
        if not is_gone(error):
            raise
        return False
    return True


def is_gone(error: TrackingError) -> bool:
    """Tell whether MLflow refuses because the run, or its experiment, was deleted."""
    return error.code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error)


def close_abandoned(
    client: TrackingClient, run_id: str, reason: str, stop: StopJob, *, also_finished: bool = False
) -> bool:
    """Set a run that nobody works on any more to KILLED, and before it what is open below it.

    A run that is closed, was deleted or never was stays as it is.

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
        return withdraw(client, run, reason)
    if run.status not in OPEN_STATUSES:
        return False
    close_open_descendants(client, run, reason, stop)
    stop(run)
    return end_if_there(client, run, "KILLED", reason)


def withdraw(client: TrackingClient, run: Run, reason: str) -> bool:
    """Set a FINISHED run whose success Airflow never took, because it had decided otherwise, to KILLED."""
    return end_if_there(client, run, "KILLED", reason, end_time=run.end_time)


def close_open_descendants(client: TrackingClient, root: Run, reason: str, stop: StopJob) -> list[Run]:
    """Set every run below ``root`` that is still open to KILLED, the lowest first; return those.

    :param stop: called with each run before it is closed, to stop its job outside
    """
    closed = []
    for run in open_below(client, [root]):
        stop(run)
        if end_if_there(client, run, "KILLED", reason):
            closed.append(run)
    return closed
