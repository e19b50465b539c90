"""Conditions for tasks, as ``pre_execute``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context


def skip_unless(param: str) -> Callable[[Context], None]:
    """Return a ``pre_execute`` that skips the task unless a param of the DAG run is true.

    For any operator, such as Airflow's own ``ApprovalOperator``. Give the task downstream of it
    ``trigger_rule="none_failed"``, so that it runs although this one was skipped.

    :param param: the name of a param of type boolean
    """

    def check(context: Context) -> None:
        if not context["params"][param]:
            raise AirflowSkipException(f"The param {param!r} is off.")

    return check
