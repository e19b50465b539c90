"""When a step may reuse results: its argument, the DAG run's wish, and what Airflow knows of other tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_projects.attempt.reuse import Reuse
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.task_states import task_state
from mlflow_projects.tracking.tags import DAG_ID, DAG_RUN_ID, JOB, MAP_INDEX, TASK_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlflow_projects.attempt.life import Attempt
    from mlflow_projects.tracking.client import Run

_OFF = (False, None, "", "none", "false", "0", "off", "no")
_ON = (True, "true", "1", "on", "yes")
_WAIT = "wait"
_AT_WORK = ("running", "restarting")
_OVER = ("success", "failed", "skipped", "upstream_failed", "removed")


def reuse_of(argument: Any, context: Context, attempt: Attempt) -> Reuse | None:
    """Return how an attempt may take over an earlier result, or None for a step that always runs.

    :param argument: the operator's ``reuse``, rendered
    :raises ProjectError: the argument is none of its values
    """
    conf = getattr(context.get("dag_run"), "conf", None) or {}
    mode = reuse_mode(argument, {**context.get("params", {}), **conf})
    if mode is None:
        return None
    look, wait = mode
    return Reuse(
        client=attempt.client,
        log=attempt.log,
        task=attempt.task,
        look=look,
        wait=wait,
        task_is_gone=lambda run: is_abandoned(run, context["ti"]),
    )


def reuse_mode(argument: Any, params: Mapping[str, Any]) -> tuple[bool, bool] | None:
    """Return (may an earlier result be taken?, does the step wait for others?); None if it has no part in reuse.

    :param argument: the operator's ``reuse``, rendered
    :param params: of the DAG run; a ``reuse`` in it that means no, in whatever spelling, forces every step to run
    :raises ProjectError: the argument is none of its values
    """
    value = argument.strip().lower() if isinstance(argument, str) else argument
    if value in _OFF:
        return None
    if value not in (*_ON, _WAIT):
        raise ProjectError(f"reuse must be True, False or 'wait', not {argument!r}.")
    wish = params.get("reuse")
    wish = wish.strip().lower() if isinstance(wish, str) else wish
    forced = wish is not None and wish != "" and wish in _OFF
    return not forced, value == _WAIT and not forced


def is_abandoned(run: Run, ti: Any) -> bool:
    """Tell whether nobody works on an open run any more: Airflow knows it before anybody closes the run.

    A training job goes on without its worker. A run of an Airflow that is not ours counts as worked on.

    :param ti: this process's own task instance, through which Airflow is asked
    """
    tags = run.tags
    if not (DAG_ID in tags and DAG_RUN_ID in tags and TASK_ID in tags):
        return False
    state = task_state(ti, tags[DAG_ID], tags[DAG_RUN_ID], tags[TASK_ID], int(tags.get(MAP_INDEX, "-1")))
    if state is None:
        return False
    return state in _OVER or (JOB not in tags and state not in _AT_WORK)
