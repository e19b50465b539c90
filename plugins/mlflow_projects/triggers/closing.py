"""Close the runs of an ended DAG run, and ask again until it is done.

A listener leaves this to a triggerer, as a row in Airflow's database that is committed together with the DAG run's
state: so it outlives every outage, of the tracking server, the scheduler or the triggerer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

from asgiref.sync import sync_to_async

from mlflow_projects.hooks.closing import settle_on_servers
from mlflow_projects.hooks.masking import shown, teller
from mlflow_projects.tracking.ended_dag_run import EndedDagRun

_LONGEST_PAUSE_SECONDS = 60.0
# A task process that was asked to end may just be opening its run, and be killed before it can close it.
_LOOK_AGAIN_AFTER_SECONDS = (20.0, 60.0)
# Airflow may have been off for longer than its patience with this, and be back before the tracking server is.
_LEAST_PATIENCE_SECONDS = 3600.0
log = logging.getLogger(__name__)
_turns: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, str, str], asyncio.Lock] = WeakValueDictionary()


async def close_runs_of_dag_run(ended: Mapping[str, Any], conn_ids: Sequence[str], until: float) -> str:
    """Close the runs, with growing pauses between the tries; return what Airflow keeps as this callback's output.

    :param ended: the fields of an :class:`~mlflow_projects.tracking.ended_dag_run.EndedDagRun`
    :param conn_ids: Airflow connections to the tracking servers
    :param until: epoch seconds at which it is given up; an hour after a triggerer's start at the earliest
    :raises Exception: the last error, when it is given up
    """
    told = EndedDagRun(**ended)
    until = max(until, time.time() + _LEAST_PATIENCE_SECONDS)
    # In threads of its own: a server that hangs must not keep the triggerer's others waiting.
    work = sync_to_async(settle_on_servers, thread_sensitive=False, executor=_threads())
    late_looks = list(_LOOK_AGAIN_AFTER_SECONDS[: 2 if told.groups is None else 1])
    changed, pause = 0, 1.0
    while True:
        try:
            async with _turn(told):
                changed += await work(told, conn_ids, lambda: _is_over(told), teller(log))
            if not late_looks:
                return f"{changed} run(s) of {told.dag_id} {told.run_id} closed"
            await asyncio.sleep(late_looks.pop(0))
            continue
        except Exception as error:
            if time.time() > until:
                raise
            log.warning(
                "The runs of %s %s cannot be closed yet, next try in %.0f s: %s",
                told.dag_id,
                told.run_id,
                pause,
                shown(str(error)),
            )
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # not all that wait at once
        pause = min(_LONGEST_PAUSE_SECONDS, pause * 2)


def _turn(ended: EndedDagRun) -> asyncio.Lock:
    """Return what only one closing of a DAG run holds: two of its ends may have waited for the same server.

    Each reads what the other wrote, and knows by that which end is the last.
    """
    key = asyncio.get_running_loop(), ended.dag_id, ended.run_id
    return _turns.setdefault(key, asyncio.Lock())


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=16, thread_name_prefix="mlflow-projects-closing")


def _is_over(ended: EndedDagRun) -> bool:
    """Ask Airflow, as a trigger does, whether this is still the DAG run's end, or it is gone."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    if RuntimeTaskInstance.get_dr_count(ended.dag_id, run_ids=[ended.run_id]) == 0:
        return True
    return RuntimeTaskInstance.get_dagrun_state(ended.dag_id, ended.run_id) == ended.state
