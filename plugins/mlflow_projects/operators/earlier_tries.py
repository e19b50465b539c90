"""What an earlier try of a task left behind: a run, and perhaps a job that goes on.

It stands in Airflow's task state store, as XComs are wiped before each try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_projects.backends.registry import handle_from
from mlflow_projects.hooks.opened_runs import STATE_KEY, state_of
from mlflow_projects.operators.base import identify, is_retry
from mlflow_projects.tracking.client import OPEN_STATUSES
from mlflow_projects.tracking.closing import close_abandoned
from mlflow_projects.tracking.tags import TRIES, TRY_NUMBER

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.backends.contract import DurableBackend, Handle
    from mlflow_projects.tracking.client import Run, TrackingClient

MEMORY_KILLS = "memory_kills"


def remember(context: Context, run: Run, handle: Handle | None) -> None:
    """Leave the run of this try, and the handle of its job, to the next."""
    ti = context["ti"]
    state: dict[str, Any] = {
        **state_of(run),
        "try_number": ti.try_number,
        "max_tries": ti.max_tries,
        "handle": handle.as_json() if handle else {},
    }
    if ti.try_number > 1 and (kills := memory_kills(context)):  # a first try need not ask
        state[MEMORY_KILLS] = kills
    context["task_state_store"].set(STATE_KEY, state)


def memory_kills(context: Context) -> int:
    """Return how often tries of this task were killed for want of memory, since a person last cleared it."""
    left = last(context)
    return int(left.get(MEMORY_KILLS, 0)) if left and is_retry(left, context["ti"]) else 0


def count_memory_kill(context: Context) -> None:
    """Leave to the next try that this one was killed for want of memory."""
    context["task_state_store"].set(STATE_KEY, {**(last(context) or {}), MEMORY_KILLS: memory_kills(context) + 1})


def last(context: Context) -> Mapping[str, Any] | None:
    """Return what the last try left."""
    left = context["task_state_store"].get(STATE_KEY)
    return left if isinstance(left, Mapping) else None


def going_on(
    context: Context,
    client: TrackingClient,
    previous: Mapping[str, Any] | None,
    backend: str,
    backend_of: Callable[[Handle], DurableBackend],
) -> tuple[Run, Handle] | None:
    """Return run and handle of a job that goes on although its worker was lost; the run is this try's from now on.

    After a Clear a person wants a new one.
    """
    content = (previous or {}).get("handle")
    if not previous or not content or not is_retry(previous, context["ti"]) or content["backend"] != backend:
        return None
    handle = handle_from(content)
    run = client.get_run(str(previous["run_id"]))
    if run.status not in OPEN_STATUSES or not backend_of(handle).exists(handle):
        return None
    own = {**previous.get("tags", {}), **identify(context).identity_tags()}
    tries = run.tags.get(TRIES, run.tags.get(TRY_NUMBER, ""))
    client.log_batch(run.run_id, tags={**own, TRIES: f"{tries},{own[TRY_NUMBER]}"})
    return replace(run, tags={**run.tags, **own}), handle


def close(
    context: Context, client: TrackingClient, previous: Mapping[str, Any], stop_job: Callable[[Run], None]
) -> bool:
    """Close the run of a try whose worker died before it could; tell whether that was so.

    A Clear may follow a success, which stays; a retry cannot follow one.
    """
    reason = f"its worker was lost; superseded by try {context['ti'].try_number}"
    also_finished = is_retry(previous, context["ti"])
    run_id, tags = str(previous["run_id"]), previous.get("tags")
    return bool(close_abandoned(client, run_id, reason, stop_job, also_finished=also_finished, tags=tags))
