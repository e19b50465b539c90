"""How a run ends: first why, then that it does; all that close runs do it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mlflow_projects.exceptions import TrackingError
from mlflow_projects.tracking.client import OPEN_STATUSES, STATUSES, Run, RunStatus, TrackingClient, now
from mlflow_projects.tracking.lookup import open_below
from mlflow_projects.tracking.tags import ENDED_AS, REASON, changed

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


def keep_end(client: TrackingClient, run: Run) -> Run:
    """Note on a run how it ended, before a function of another task writes into it; return it as it ended.

    MLflow opens a run again for whoever writes into it: the function may be killed meanwhile, and a second one may
    find the run open and take that for its true state.
    """
    if run.status in OPEN_STATUSES:
        return as_it_ended(run)
    noted = end_in_words(run.status, run.end_time)
    if run.tags.get(ENDED_AS) != noted:
        client.log_batch(run.run_id, tags={ENDED_AS: noted})
    return run


def end_in_words(status: RunStatus, end_time: int | None) -> str:
    """Return how a run ended, for :func:`as_it_ended`."""
    return f"{status} {end_time}"


def as_it_ended(run: Run) -> Run:
    """Return an open run as it was when it ended for the first time; the very same run if it never did."""
    noted, _, end_time = run.tags.get(ENDED_AS, "").partition(" ")
    ends = [status for status in STATUSES if status == noted and status not in OPEN_STATUSES]
    if run.status not in OPEN_STATUSES or run.end_time is None or not ends or not end_time.isdecimal():
        return run  # a run without an end time never ended, whatever a project wrote into its tags
    return replace(run, status=ends[0], end_time=int(end_time))


def abandon(
    client: TrackingClient,
    run: Run,
    reason: str,
    status: RunStatus = "KILLED",
    *,
    tags: Mapping[str, str] | None = None,
) -> RunStatus | None:
    """End an open run on which nobody works any more; return how, None if a person deleted it.

    :param status: which it gets, with the reason; but one that had ended before gets that end back
    """
    ended = as_it_ended(run)
    if ended is run:
        return status if end_if_there(client, run, status, reason, tags=tags) else None
    is_there = end_if_there(client, run, ended.status, None, tags=tags, end_time=ended.end_time)
    return ended.status if is_there else None


def is_gone(error: TrackingError) -> bool:
    """Tell whether MLflow refuses because the run, or its experiment, was deleted."""
    return error.code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error)


def close_abandoned(
    client: TrackingClient,
    run_id: str,
    reason: str,
    stop: StopJob,
    *,
    also_finished: bool = False,
    tags: Mapping[str, str] | None = None,
) -> bool:
    """Set a run that nobody works on any more to KILLED, and before it what is open below it.

    A run that is closed, was deleted or never was stays as it is.

    :param stop: called with each run before it is closed, to stop its job outside
    :param also_finished: withdraw success too
    :param tags: of its own, which its project may have changed; they are put right
    :return: True if the run was changed
    """
    try:
        run = client.get_run(run_id)
    except TrackingError as error:
        if error.code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    wrong = changed(run.tags, tags or {})
    run = replace(run, tags={**run.tags, **wrong})  # its job is among them
    if run.status == "FINISHED" and also_finished:
        return end_if_there(client, run, "KILLED", reason, tags=wrong, end_time=run.end_time)
    if run.status not in OPEN_STATUSES:
        put_right(client, run, wrong)
        return False
    close_open_descendants(client, run, reason, stop)
    stop(run)
    if also_finished:  # it was no success, whatever its tags say
        return end_if_there(client, run, "KILLED", reason, tags=wrong)
    return abandon(client, run, reason, tags=wrong) is not None


def put_right(client: TrackingClient, run: Run, tags: Mapping[str, str]) -> None:
    """Write tags on a run that keeps its status, unless a person deleted it."""
    try:
        if tags:
            client.log_batch(run.run_id, tags=tags)
    except TrackingError as error:
        if not is_gone(error):
            raise


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
        if abandon(client, run, reason):
            closed.append(run)
    return closed
