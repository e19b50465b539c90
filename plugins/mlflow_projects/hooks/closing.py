"""Close the runs of an ended DAG run, on each tracking server that its tasks used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mlflow_projects.tracking.ended_dag_run import EndedDagRun, settle
from mlflow_projects.tracking.server import TrackingSettings

# One answer may take this long, and it is asked so often: whoever calls this asks again later.
_TIMEOUT_SECONDS = 10.0
_MAX_RETRIES = 2


def settle_on_servers(
    ended: EndedDagRun,
    conn_ids: Sequence[str],
    is_over: Callable[[], bool],
    log: Callable[[str], None],
    *,
    may_load_mlflow: bool = True,
) -> int:
    """Give every run of an ended DAG run its end; return how many were changed.

    :param conn_ids: Airflow connections to the tracking servers
    :param is_over: tells whether the DAG run has still ended
    :param may_load_mlflow: whether a database of MLflow without a server may be opened: that needs all of MLflow
    :raises Exception: one of the servers, or the connection to it, is not there; the others were asked
    """
    from mlflow_projects.backends.registry import stop_job_of
    from mlflow_projects.hooks.mlflow_hook import MLflowHook
    from mlflow_projects.tracking.connect import connect

    done: list[TrackingSettings] = []  # one address with two logins is two: each may see less than all
    changed, trouble = 0, None
    for conn_id in conn_ids:
        try:
            settings = MLflowHook(conn_id).settings
            if settings in done:
                continue
            done.append(settings)
            if settings.missing_database():
                continue  # so there are no runs in it
            if not (settings.is_http or may_load_mlflow):
                log(f"The runs of {ended.dag_id} {ended.run_id} in {settings.address} are left to the janitor.")
                continue
            client = connect(replace(settings, timeout=_TIMEOUT_SECONDS, max_retries=_MAX_RETRIES, access="change"))
            try:
                changed += settle(client, ended, is_over, lambda run: stop_job_of(run, log), log)
            finally:
                client.close()
        except Exception as error:  # whatever it is, another server's runs do not wait for it
            trouble = trouble or error
    if trouble:
        raise trouble
    return changed
