"""What becomes of the runs of a DAG run that has ended.

A parent run says what its own group did. One that is still open gets its group's verdict; where a person or a
time-out ended the DAG run before the group could end, theirs. One that its end task closed keeps that; one that a
project closed does not. Beside it, a tag says how the DAG run ended. Whatever else is open is KILLED: nobody works on
it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import OPEN_STATUSES, Run, RunStatus, TrackingClient, now
from mlflow_projects.tracking.closing import StopJob, as_it_ended, end_if_there, is_gone
from mlflow_projects.tracking.lookup import open_below, runs_by_id, runs_of_dag_run
from mlflow_projects.tracking.tags import (
    DAG_RUN_CLEARS,
    DAG_RUN_STATE,
    JOB,
    MAP_INDEX,
    PARENT_RUN_ID,
    ROLE,
    TASK_ID,
    TRY_NUMBER,
    changed,
)

# (task id, map index, Airflow's state)
TaskState = tuple[str, int, "str | None"]
UNSUCCESSFUL = ("failed", "upstream_failed")
_MOST_NAMES = 10


@dataclass(frozen=True)
class EndedDagRun:
    """How a DAG run ended; every field is JSON, because this waits in Airflow's database.

    :param state: Airflow's
    :param status: of a parent run whose group had not ended
    :param reason: why, in one sentence
    :param groups: by the start task's id of each group: the map indexes for which it was not successful, by the
        reason why; None: the groups had not ended
    :param failed: [task id, number of its try, map indexes] of the tries that failed, earlier ones too
    :param airflow_url: of this Airflow; another one may have a DAG and a run of the same names on the same server
    :param opened: by the id of a run that a task opened, the tags that it then had: a project may have changed them
    :param told: by the start task's id of each group with an end task, the map indexes for which that ended well
    :param clears: how often the DAG run had been cleared before this end
    """

    dag_id: str
    run_id: str
    state: str
    status: RunStatus
    reason: str
    groups: Mapping[str, Mapping[str, Sequence[int]]] | None
    failed: Sequence[Sequence[Any]] = ()
    airflow_url: str = ""
    opened: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    told: Mapping[str, Sequence[int]] = field(default_factory=dict)
    clears: int = 0


def work_of(tasks: Iterable[Any]) -> tuple[set[str], set[str]]:
    """Return the ids of a group's tasks that count for Airflow's verdict, and of those the last ones.

    A teardown does not, unless its author wants it to.

    :param tasks: of the group, as a DAG file or the scheduler has them
    """
    work = {task.task_id: task for task in tasks if not task.is_teardown or task.on_failure_fail_dagrun}
    return {*work}, {name for name, task in work.items() if not task.downstream_task_ids & work.keys()}


def why_unsuccessful(states: Iterable[TaskState], last: Collection[str]) -> str:
    """Say why a group is not successful, "" if it is: the rule by which Airflow judges a DAG run.

    :param states: of the group's tasks
    :param last: ids of those without a task after them; the group fails if one of these did, or could not run
    """
    by_state: dict[str | None, list[str]] = {}
    is_bad = False
    for task_id, index, state in sorted(states, key=lambda one: one[:2]):
        by_state.setdefault(state, []).append(task_id if index < 0 else f"{task_id}[{index}]")
        is_bad = is_bad or (task_id in last and state in UNSUCCESSFUL)
    if not is_bad:
        return ""
    said = zip(UNSUCCESSFUL, ("failed", "could not run"), strict=True)
    return "; ".join(f"{_listed(by_state[state])} {words}" for state, words in said if state in by_state)


def settle(
    client: TrackingClient,
    ended: EndedDagRun,
    is_over: Callable[[], bool],
    stop: StopJob,
    log: Callable[[str], None],
) -> int:
    """Give every run of an ended DAG run its end; return how many were changed. Doing it twice is harmless.

    :param is_over: asked before each change: a DAG run that was cleared meanwhile has new tries, which are left alone
    :param stop: called with each run before it is closed, to stop its job outside
    :raises ProjectError, StepFailedError, TrackingError: a run could not be closed; the others were
    """
    changed, trouble, unanswered = 0, None, 0
    found = runs_of_dag_run(client, ended.dag_id, ended.run_id, airflow_url=ended.airflow_url)
    found += runs_by_id(client, ended.opened.keys() - {run.run_id for run in found})
    if not found:
        log(
            f"DAG run {ended.run_id} of {ended.dag_id} has no MLflow run to close: none was opened, or a person "
            "deleted its experiment."
        )
    for run, end in _with_own_tags(client, ended, found, log):
        if not is_over():
            log(f"DAG run {ended.run_id} of {ended.dag_id} runs again; its runs are left alone.")
            return changed
        try:
            changed += _write(client, run, end, stop, log)
            unanswered = 0
        except (ProjectError, StepFailedError, TrackingError) as error:  # the others must not stay open for it
            trouble = trouble or error
            unanswered += isinstance(error, TrackingUnavailableError)
            if unanswered > 1:
                break  # it is the server, not the run
    if trouble:
        raise trouble
    return changed


@dataclass(frozen=True)
class _End:
    """What is to be written: a status, or None where only the tags are new.

    :param end_time: None for now, or for the one that it has
    """

    status: RunStatus | None
    reason: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    end_time: int | None = None


def _ends(client: TrackingClient, ended: EndedDagRun, found: Sequence[Run]) -> list[tuple[Run, _End]]:
    """Return what is to be written to which run, children before parents.

    :param found: the runs of the DAG run
    """
    # An inner parent starts after the outer one.
    runs = sorted(found, key=lambda run: run.start_time or 0)[::-1]
    parents = [run for run in runs if run.tags.get(ROLE) == "parent"]
    others = [run for run in runs if run.tags.get(ROLE) != "parent"]
    chosen = _chosen(parents, {run.tags.get(PARENT_RUN_ID) for run in runs})
    told = {DAG_RUN_STATE: ended.state}
    closed_here = {**told, DAG_RUN_CLEARS: str(ended.clears)}
    left = _End("KILLED", ended.reason)
    still_open = [run for run in (*open_below(client, runs), *others) if run.status in OPEN_STATUSES]
    ends = [(run, left if _is_of_failed_try(run, ended) else _earlier_end(run) or left) for run in still_open]
    ends += [
        (run, _End("KILLED", "Airflow calls this try failed: it never heard of the success, or a person marked it"))
        for run in _refused(others, ended)
    ]
    for run in parents:
        if run.status in OPEN_STATUSES and run not in chosen:
            lost = "another try of its start task opened a run in its place"
            ends.append((run, _End("KILLED", lost)))
        elif run.status in OPEN_STATUSES:
            ends.append((run, replace(_earlier_end(run) or _verdict(run, ended), tags=closed_here)))
        elif run in chosen and _is_closed_too_early(run, ended):
            ends.append((run, replace(_verdict(run, ended), tags=closed_here, end_time=now())))
        elif run in chosen and run.tags.get(DAG_RUN_STATE) != ended.state:
            ends.append((run, _End(None, tags=told)))
    return ends


def _with_own_tags(
    client: TrackingClient, ended: EndedDagRun, found: Sequence[Run], log: Callable[[str], None]
) -> list[tuple[Run, _End]]:
    """Return what is to be written, with the tags that a project had changed; it counts as if they were right."""
    right = [replace(run, tags={**run.tags, **ended.opened.get(run.run_id, {})}) for run in found]
    ends = _ends(client, ended, right)
    wrong = {run.run_id: tags for run in found if (tags := changed(run.tags, ended.opened.get(run.run_id, {})))}
    for run_id, tags in wrong.items():
        log(f"The tags of run {run_id} had been changed, which are put right: {', '.join(sorted(tags))}.")
    done = {run.run_id for run, _ in ends}
    put_right = [(run, _End(None)) for run in right if run.run_id in wrong.keys() - done]
    return [(run, replace(end, tags={**end.tags, **wrong.get(run.run_id, {})})) for run, end in [*ends, *put_right]]


def _is_closed_too_early(parent: Run, ended: EndedDagRun) -> bool:
    """Tell whether a closed parent run has no end that counts.

    A project closed it, before its end task could; or it was closed after an earlier end of the DAG run, which was
    cleared then, and whose closing waited as long as this one.
    """
    told = ended.told.get(parent.tags.get(TASK_ID, ""))
    if told is None or {"-1", parent.tags.get(MAP_INDEX, "-1")} & {*map(str, told)}:
        return False  # who closes it is the DAG's author, or its end task did
    noted = parent.tags.get(DAG_RUN_CLEARS, "")
    return not noted.isdecimal() or int(noted) < ended.clears


def _chosen(parents: Sequence[Run], used: Collection[str | None]) -> list[Run]:
    """Return the one parent run of each start task that counts.

    It is the newest that has children, else one that was closed, else the newest.

    :param parents: the newest first
    :param used: ids of runs that have children
    """
    by_task: dict[tuple[str, str], Run] = {}
    for run in sorted(parents, key=lambda run: 0 if run.run_id in used else 1 + (run.status in OPEN_STATUSES)):
        by_task.setdefault((run.tags.get(TASK_ID, ""), run.tags.get(MAP_INDEX, "")), run)
    return list(by_task.values())


def _refused(runs: Sequence[Run], ended: EndedDagRun) -> list[Run]:
    """Return the FINISHED runs of tries that Airflow calls failed: their last words never reached it."""
    steps = [run for run in runs if run.tags.get(ROLE) == "step" and run.status == "FINISHED"]
    return [run for run in steps if _is_of_failed_try(run, ended)]


def _is_of_failed_try(run: Run, ended: EndedDagRun) -> bool:
    own = run.tags.get(TASK_ID), run.tags.get(TRY_NUMBER)
    indexes = [index for task_id, number, of_try in ended.failed if own == (task_id, str(number)) for index in of_try]
    return run.tags.get(MAP_INDEX) in [*map(str, indexes)]


def _earlier_end(run: Run) -> _End | None:
    """Return how a run had ended before a function of another task opened it again, if one did."""
    was = as_it_ended(run)
    return None if was is run else _End(was.status, end_time=was.end_time)


def _verdict(parent: Run, ended: EndedDagRun) -> _End:
    if ended.groups is None:
        return _End(ended.status, "" if ended.status == "FINISHED" else ended.reason)
    if (reasons := ended.groups.get(parent.tags.get(TASK_ID, ""))) is None:
        return _End("KILLED", "its group is no longer in the DAG")
    # -1: of the whole group, although its start task may be mapped.
    index = "-1", parent.tags.get(MAP_INDEX, "-1")
    reason = next((reason for reason, indexes in reasons.items() if {*index} & {*map(str, indexes)}), "")
    return _End("FAILED" if reason else "FINISHED", reason)


def _write(client: TrackingClient, run: Run, end: _End, stop: StopJob, log: Callable[[str], None]) -> bool:
    if run.status in OPEN_STATUSES or JOB in end.tags:  # a job that nobody could find may go on, and cost
        stop(run)
    if end.status is None:
        try:
            client.log_batch(run.run_id, tags=end.tags)
            return False
        except TrackingError as error:
            if not is_gone(error):
                raise
            return False
    end_time = end.end_time or (None if run.status in OPEN_STATUSES else run.end_time)
    if end_if_there(client, run, end.status, end.reason, tags=end.tags, end_time=end_time):
        return True
    log(f"Run {run.run_id} ({run.name}) was deleted in MLflow; it stays as it is.")
    return False


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
