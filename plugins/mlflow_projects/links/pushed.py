"""Buttons that work while their task is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey


class PushedLink(BaseOperatorLink):
    """A button whose address its operator writes as soon as it knows it, with :func:`push_links`."""

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return no address: Airflow asks at the end of a task whose operator wrote none."""
        return ""


def push_links(operator: BaseOperator, context: Context, *buttons: tuple[PushedLink, str]) -> None:
    """Make buttons of a running task work from now on.

    :param operator: as the task runs it, which is a copy: the DAG keeps its buttons
    :param buttons: each with its address; "" for one that stays hidden
    """
    for link, url in buttons:
        context["ti"].xcom_push(key=link.xcom_key, value=url)
    # Airflow would write them all once more at the end: for each, a request while the task holds its slot.
    operator.operator_extra_links = [
        link for link in operator.operator_extra_links if not isinstance(link, PushedLink)
    ]
