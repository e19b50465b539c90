"""Variables with which the command of any other operator reaches MLflow, and a run of this DAG run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.hooks.mlflow_hook import MLflowHook
from mlflow_projects.operators.base import as_run_id, existing_run, identify
from mlflow_projects.operators.enclosing import enclosing_parent, on_server
from mlflow_projects.public_uri import secrets_in
from mlflow_projects.tracking.tags import PARENT_RUN_ID

if TYPE_CHECKING:
    from airflow.sdk import Context

_OF_SERVER = ("MLFLOW_TRACKING_URI",)
_OF_LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_OF_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_CONTEXT")


def mlflow_environment(
    log_to: str = "parent", *, login: bool = True, mlflow_conn_id: str = MLflowHook.default_conn_name
) -> dict[str, str]:
    """Return variables for an operator that starts a command, as ``BashOperator(env=…)`` does.

    Each value is a template, so the argument must be templated, as it is there. MLflow in the command then logs to
    the run; its end is not the command's: whoever opened the run closes it.

    :param log_to: ``parent``: the parent run of the enclosing ``mlflow_run``; ``own``: the command opens a run by
        itself (``mlflow.start_run()``), which becomes a child of the parent and is closed with the DAG run at the
        latest; else a run's id
    :param login: whether the connection's user, password or token is among them; leave it out where variables can be
        read by others, such as those of a pod, and give the command a secret of that place
    :param mlflow_conn_id: Airflow connection to the tracking server
    :raises ProjectError: ``log_to`` is no text
    """
    if not isinstance(log_to, str):
        raise ProjectError(f"mlflow_environment: log_to is 'parent', 'own' or a run's id as text, not {log_to!r}.")
    names = (*_OF_SERVER, *(_OF_LOGIN if login else ()), *_OF_RUN)
    given = f"{log_to!r}, {mlflow_conn_id!r}{'' if login else ', login=False'}"
    return {name: f"{{{{ macros.mlflow_projects.mlflow_variable({name!r}, task, ti, {given}) }}}}" for name in names}


def mlflow_variable(name: str, task: Any, ti: Any, log_to: str, mlflow_conn_id: str, *, login: bool = True) -> str:
    """Return one of the variables of :func:`mlflow_environment`; "" if it has no value.

    :raises ProjectError: there is no run to log to; a login stands in an address, and none is to be given
    """
    hook = MLflowHook(mlflow_conn_id)
    if name not in _OF_RUN:
        value = hook.settings.environment().get(name, "")
        if not login and secrets_in(value):
            raise ProjectError(
                f"Task {ti.task_id!r}: mlflow_environment(login=False) would give the password in the address of "
                f"the connection {mlflow_conn_id!r}; use a tracking server, or give the command a secret of its own."
            )
        return value
    client = hook.get_conn()
    try:
        context: Context = {"ti": ti}
        found = enclosing_parent(task, context, client)
        parent: Mapping[str, Any] = on_server(client, found, mlflow_conn_id, ti.task_id) or {}
        if log_to == "own":
            tags = {**identify(context).inner_tags(), PARENT_RUN_ID: as_run_id(parent) or ""}
            values = {
                "MLFLOW_EXPERIMENT_ID": str(parent.get("experiment_id") or ""),
                "MLFLOW_RUN_CONTEXT": json.dumps({key: value for key, value in tags.items() if value}),
            }
            return values.get(name, "")
        run_id = as_run_id(parent) if log_to == "parent" else log_to
        if not run_id:
            raise ProjectError(
                f"Task {ti.task_id!r}: mlflow_environment('parent') finds no mlflow_run around the task; put it "
                "inside of one, or give 'own' or a run's id."
            )
        run = existing_run(client, run_id)
        values = {"MLFLOW_RUN_ID": run.run_id, "MLFLOW_EXPERIMENT_ID": run.experiment_id}
        return values.get(name, json.dumps(identify(context).inner_tags()))
    finally:
        client.close()
