"""Whether the tracking servers of this Airflow answer."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mlflow_projects.cli.airflow_side import database_is_made, read_connections_from_database
from mlflow_projects.cli.check_result import CheckResult, Level
from mlflow_projects.exceptions import ProjectError

_PREFIX = "AIRFLOW_CONN_"


def inspect_closing_queue() -> Iterator[CheckResult]:
    """Yield a warning if ended DAG runs wait for their MLflow runs to be closed."""
    from sqlalchemy.exc import SQLAlchemyError

    from mlflow_projects.hooks.closing_queue import waiting_dag_runs

    if not database_is_made():
        return
    try:
        waiting = waiting_dag_runs()
    except SQLAlchemyError:  # said before
        return
    given_up = [one for one in waiting if one.given_up]
    waiting = [one for one in waiting if not one.given_up]
    if given_up:
        last = given_up[-1]
        yield CheckResult(
            Level.WARNING,
            f"the MLflow runs of {len(given_up)} ended DAG run(s) of the last week could not be closed, the last "
            f"{last.run_id} of {last.dag_id} ({last.given_up[:200]}); mend that, then: mlflow-projects janitor",
        )
    if waiting:
        first = waiting[0]
        yield CheckResult(
            Level.WARNING,
            f"{len(waiting)} ended DAG run(s) wait for their MLflow runs to be closed, {first.run_id} of "
            f"{first.dag_id} since {first.since:%Y-%m-%d %H:%M} UTC; see whether a triggerer runs, and its log.",
        )


def inspect_connections() -> Iterator[CheckResult]:
    """Yield a result for each connection of type ``mlflow``, or for what counts in its place."""
    from mlflow_projects.hooks.mlflow_hook import MLflowHook

    types, unreadable = _types_in_environment()
    for name in unreadable:
        yield CheckResult(Level.ERROR, f"the variable {name} holds no connection; it must be a URI or a JSON object.")
    try:
        types = {**_types_in_database(), **types}
        read_connections_from_database()
    except _NoDatabaseError as reason:
        yield CheckResult(Level.NOTE, f"{reason} Only connections in environment variables are looked at.")
    default = MLflowHook.default_conn_name
    if default not in types:
        yield from _fallback()
    for conn_id, conn_type in sorted(types.items()):
        if conn_type == MLflowHook.conn_type:
            yield _test(conn_id)
        elif conn_id == default:
            yield CheckResult(
                Level.WARNING,
                f"connection {conn_id} is of type {conn_type!r}, not {MLflowHook.conn_type!r}, so its page lacks our "
                "form; delete it and add it again.",
            )
            yield _test(conn_id)


class _NoDatabaseError(Exception):
    """Airflow's database cannot be asked; the message is a sentence."""


def _types_in_database() -> dict[str, str]:
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    if not database_is_made():
        raise _NoDatabaseError("Airflow has no database yet (airflow db migrate makes it).")
    try:
        with create_session() as session:
            return {
                str(row[0]): str(row[1]) for row in session.execute(select(Connection.conn_id, Connection.conn_type))
            }
    except SQLAlchemyError as error:
        raise _NoDatabaseError(f"Airflow's database cannot be read ({type(error).__name__}).") from error


def _types_in_environment() -> tuple[dict[str, str], list[str]]:
    """Return the type of each connection by its id, and the variables that hold none."""
    from airflow.sdk.exceptions import AirflowException
    from airflow.secrets.environment_variables import EnvironmentVariablesBackend

    backend = EnvironmentVariablesBackend()
    types, unreadable = {}, []
    for name in filter(lambda name: name.startswith(_PREFIX), os.environ):
        conn_id = name.removeprefix(_PREFIX).lower()
        try:
            connection = backend.get_connection(conn_id)
        except (AirflowException, ValueError, TypeError):  # what Connection.from_uri and from_json raise
            unreadable.append(name)
            continue
        if connection is not None:
            types[conn_id] = str(connection.conn_type)
    return types, unreadable


def _fallback() -> Iterator[CheckResult]:
    from mlflow_projects.hooks.mlflow_hook import MLflowHook
    from mlflow_projects.tracking.server import settings_from_environment

    default = MLflowHook.default_conn_name
    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield CheckResult(Level.NOTE, f"there is no connection {default}; MLFLOW_TRACKING_URI of the worker counts.")
    else:
        yield CheckResult(
            Level.WARNING,
            f"there is neither a connection {default} nor MLFLOW_TRACKING_URI; runs go to mlflow.db in the folder "
            "where Airflow was started.",
        )
    try:
        database = settings_from_environment().missing_database()
    except ProjectError as error:
        yield CheckResult(Level.ERROR, str(error))
        return
    if database:
        yield CheckResult(Level.NOTE, f"{database} is not there yet; the first run makes it.")
    else:
        yield _test(default)


def _test(conn_id: str) -> CheckResult:
    from airflow.sdk.exceptions import AirflowNotFoundException

    from mlflow_projects.hooks.mlflow_hook import MLflowHook

    try:
        answers, text = MLflowHook(conn_id).test_connection()
    except AirflowNotFoundException:
        return CheckResult(
            Level.ERROR, f"connection {conn_id} cannot be read (was it saved with another Fernet key?)."
        )
    return CheckResult(Level.OK if answers else Level.ERROR, f"{conn_id}: {text}")
