"""Where the pages' data comes from: Airflow's database, and the tracking server behind a connection.

A page must never hold up the API server: time-outs are short, and nothing is asked twice; see also
:mod:`mlflow_projects.ui.waiting`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.hooks.masking import shown
from mlflow_projects.hooks.mlflow_hook import MLflowHook
from mlflow_projects.links.run import MLflowRunLink
from mlflow_projects.tracking.client import TrackingClient
from mlflow_projects.tracking.connect import connect

if TYPE_CHECKING:
    from datetime import datetime

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5.0
_MAX_XCOMS = 100


class PageProblem(Exception):
    """Why a page has nothing to show, in a sentence for its reader.

    :param status: HTTP status
    """

    def __init__(self, sentence: str, status: int = 503) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class DagRunRecord:
    """A DAG run as Airflow's database has it.

    :param due: when it could start at the earliest, milliseconds since 1970
    :param start: milliseconds since 1970, None while it is queued
    :param end: milliseconds since 1970, None while it runs
    """

    run_id: str
    state: str
    due: int
    start: int | None = None
    end: int | None = None

    @property
    def ended(self) -> bool:
        """Tell whether the DAG run is over."""
        return self.state in ("success", "failed")


def last_dag_runs(dag_id: str, *, limit: int, run_id: str | None = None) -> list[DagRunRecord]:
    """Return a DAG's last runs, newest first.

    :param run_id: only the run of this id
    """
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(limit)
    if run_id is not None:
        query = query.where(DagRun.run_id == run_id)
    with create_session() as session:
        return [
            DagRunRecord(
                str(run.run_id),
                str(run.state),
                _milliseconds(run.run_after),
                _milliseconds(run.start_date) if run.start_date else None,
                _milliseconds(run.end_date) if run.end_date else None,
            )
            for run in session.scalars(query)
        ]


def connection_ids(dag_id: str, run_ids: Sequence[str]) -> list[str]:
    """Return the connections that the steps of DAG runs used, most used first; the default one if none says.

    Our operators leave the id in their XCom. Their tasks are known by the button that they push.
    """
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    of_these = (XComModel.dag_id == dag_id, XComModel.run_id.in_(run_ids))
    ours = select(XComModel.task_id).where(*of_these, XComModel.key == MLflowRunLink().xcom_key)
    query = select(XComModel.value).where(*of_these, XComModel.key == "return_value", XComModel.task_id.in_(ours))
    with create_session() as session:
        rows = session.execute(query.order_by(XComModel.timestamp.desc()).limit(_MAX_XCOMS)).all()
        values: list[Any] = [XComModel.deserialize_value(row) for row in rows]
    used = [
        str(value["mlflow_conn_id"]) for value in values if isinstance(value, dict) and value.get("mlflow_conn_id")
    ]
    return sorted(set(used), key=lambda name: (-used.count(name), name)) or [MLflowHook.default_conn_name]


@contextlib.contextmanager
def tracking(conn_id: str) -> Iterator[TrackingClient]:
    """Yield an impatient client for the tracking server of a connection.

    :raises PageProblem: whatever goes wrong; the server's own words go into the log, as they may name hosts
    """
    try:
        settings = MLflowHook(conn_id).settings
        if settings.missing_database():
            raise PageProblem(
                f"There is no connection {conn_id}, and no MLFLOW_TRACKING_URI where Airflow's API server runs."
            )
        client = connect(settings.for_a_person(_TIMEOUT_SECONDS))
        try:
            yield client
        finally:
            client.close()
    except AirflowNotFoundException as error:
        raise PageProblem(f"Airflow's API server finds no connection {conn_id}.") from error
    except TrackingUnavailableError as error:
        log.warning("The page has no data: %s", shown(str(error)))
        raise PageProblem(
            f"MLflow's tracking server (connection {conn_id}) does not answer. The runs are safe; "
            "this page shows them once the server is back."
        ) from error
    except (ProjectError, TrackingError) as error:
        log.warning("The page has no data: %s", shown(str(error)))
        if isinstance(error, TrackingError) and error.code == "PERMISSION_DENIED":
            raise PageProblem(
                f"MLflow's tracking server refuses the user or token of the connection {conn_id}.", 502
            ) from error
        raise PageProblem(
            f"MLflow's tracking server (connection {conn_id}) cannot be read; the log of Airflow's API server "
            "says why.",
            502,
        ) from error


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
