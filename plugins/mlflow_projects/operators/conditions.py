"""Conditions for tasks, as ``pre_execute``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context


def skip_unless(param: str, value: Any = True) -> Callable[[Context], None]:
    """Return a ``pre_execute`` that skips the task unless a param of the DAG run has this value.

    For any operator, such as Airflow's own ``ApprovalOperator``. Give the task downstream of it
    ``trigger_rule="none_failed"``, so that it runs although this one was skipped.

    :param param: the name of a param
    :param value: what it must be; without it any value that counts as true will do
    :raises AirflowFailException: in the task: the DAG has no such param
    """

    def check(context: Context) -> None:
        params = context["params"]
        if param not in params:
            there = ", ".join(map(repr, params)) or "none"
            raise AirflowFailException(f"skip_unless: the DAG has no param {param!r}; there are: {there}.")
        found = params[param]
        if value is True and not found:
            raise AirflowSkipException(f"The param {param!r} is off.")
        if value is not True and found != value:
            raise AirflowSkipException(f"The param {param!r} is {found!r}, not {value!r}.")

    return check
