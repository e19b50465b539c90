"""Which ended DAG runs wait, in Airflow's database, for a triggerer to close their MLflow runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from mlflow_projects.tracking.ended_dag_run import EndedDagRun

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

PATIENCE_SECONDS = 24 * 3600.0
_USUAL = timedelta(minutes=3)
_WEEK = timedelta(days=7)
_FUNCTION = "mlflow_projects.triggers.closing.close_runs_of_dag_run"


@dataclass(frozen=True)
class Waiting:
    """An ended DAG run whose runs are not all closed.

    :param since: when it ended
    :param given_up: why a triggerer will not try it again; "" while it will
    """

    dag_id: str
    run_id: str
    since: datetime
    given_up: str = ""


def add_to_queue(ended: EndedDagRun, conn_ids: Sequence[str], session: Session) -> bool:
    """Add a callback for the triggerer to a transaction; tell whether this Airflow has such callbacks.

    Nothing else is done to the session: the scheduler guards its transaction.
    """
    try:  # the first of them is not a public interface
        from airflow.models.callback import TriggererCallback
        from airflow.sdk.definitions.callback import AsyncCallback
    except ImportError:
        return False
    told = {"ended": asdict(ended), "conn_ids": [*conn_ids], "until": time.time() + PATIENCE_SECONDS}
    # Nobody's alarm is to wait for this.
    callback = TriggererCallback(AsyncCallback(_FUNCTION, kwargs=told), priority_weight=0)
    callback.queue(session=session)
    session.add(callback)
    return True


def waiting_dag_runs() -> list[Waiting]:
    """Return the DAG runs that wait for more than some minutes, or were given up in the last week, the oldest first.

    None if this Airflow has no such callbacks.
    """
    try:
        from airflow.models.callback import TriggererCallback
    except ImportError:
        return []
    from airflow.sdk import timezone
    from airflow.utils.session import create_session
    from sqlalchemy import select

    now = timezone.utcnow()
    query = select(TriggererCallback).where(
        TriggererCallback.state != "success", TriggererCallback.created_at.between(now - _WEEK, now - _USUAL)
    )
    with create_session() as session:
        rows = list(session.scalars(query.order_by(TriggererCallback.created_at)))
    found = []
    for row in rows:
        if row.data.get("path") == _FUNCTION:
            ended = row.data["kwargs"]["ended"]
            given_up = (row.output or "no reason") if str(row.state) == "failed" else ""
            found.append(Waiting(ended["dag_id"], ended["run_id"], row.created_at, given_up))
    return found
