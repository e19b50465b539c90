"""The third layer of closing: whatever is still open for DAG runs that ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run, RunStatus, TrackingClient
from mlflow_projects.tracking.closing import StopJob, abandon, close_open_descendants
from mlflow_projects.tracking.lookup import NOT_CLOSED, search_experiments
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, ROLE, TASK_URL

# A parent run tells what the DAG run tells; a step whose task is over and never said how it ended was killed.
_PARENT_STATUS: dict[str | None, RunStatus] = {"success": "FINISHED", "failed": "FAILED", None: "KILLED"}


@dataclass(frozen=True)
class Closed:
    """A run that the janitor closed."""

    run_id: str
    name: str
    dag_id: str
    dag_run_id: str
    status: RunStatus


def close_leftovers(
    client: TrackingClient, dag_run_state: Callable[[str, str], str | None], airflow_url: str, stop: StopJob
) -> list[Closed]:
    """Close the runs that are open although their DAG run ended; return them, children before parents.

    :param dag_run_state: returns Airflow's state of (dag id, run id), None if there is no such DAG run
    :param airflow_url: the base URL of this Airflow; runs of another one on the same tracking server stay
    :param stop: called with each run before it is closed, to stop its job outside
    :raises ProjectError, StepFailedError, TrackingError: a run could not be closed; the others were
    """
    query = f"{NOT_CLOSED} and tags.`{DAG_ID}` != ''"
    open_runs = [
        run
        for run in search_experiments(client, query)
        if run.tags.get(TASK_URL, "").startswith(f"{airflow_url.rstrip('/')}/")
    ]
    states: dict[tuple[str, str], str | None] = {}
    closed: list[Closed] = []
    trouble = None
    # Steps come before parents: a parent opens first, so the newest first.
    for run in sorted(open_runs, key=lambda run: (run.tags.get(ROLE) == "parent", -(run.start_time or 0))):
        key = run.tags[DAG_ID], run.tags.get(DAG_RUN_ID, "")
        if key not in states:
            states[key] = dag_run_state(*key)
        if states[key] not in ("success", "failed", None):
            continue
        try:
            closed += _close(client, run, states[key], stop)
        except TrackingUnavailableError:
            raise
        except (ProjectError, StepFailedError, TrackingError) as error:  # the others must not stay open for it
            trouble = trouble or error
    if trouble:
        raise trouble
    return closed


def _close(client: TrackingClient, run: Run, state: str | None, stop: StopJob) -> list[Closed]:
    reason = f"closed by the janitor: the DAG run is {state or 'gone'}"
    status: RunStatus = _PARENT_STATUS[state] if run.tags.get(ROLE) == "parent" else "KILLED"
    nested = close_open_descendants(client, run, reason, stop)
    stop(run)
    dag_id, dag_run_id = run.tags[DAG_ID], run.tags.get(DAG_RUN_ID, "")
    closed = [Closed(child.run_id, child.name, dag_id, dag_run_id, "KILLED") for child in nested]
    if written := abandon(client, run, reason, status):
        closed.append(Closed(run.run_id, run.name, dag_id, dag_run_id, written))
    return closed
