"""What a task of ours raises when its attempt failed: Airflow's own exceptions, with the story of the attempt."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from mlflow_projects.exceptions import Cause


class _Story(Exception):
    """An exception that says how an attempt ended, to a retry policy or an ``on_failure_callback``.

    :ivar reason: one sentence
    :ivar status: of the attempt's MLflow run
    :ivar exit_code: of the command; None if there is none
    :ivar cause: why, as far as another try depends on it: ``killed_by_memory``, ``user_error``, ``bad_input``,
        ``interrupted``, ``capacity``, ``timeout``, ``tracking`` or ``unknown``
    """

    def __init__(
        self, reason: str, *, cause: Cause = "unknown", status: str = "FAILED", exit_code: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.cause, self.status, self.exit_code = reason, cause, status, exit_code


class MLflowFailedException(_Story, AirflowException):
    """An attempt failed; another one may succeed."""


class MLflowFailException(_Story, AirflowFailException):
    """An attempt failed, and no other try can help: Airflow makes none, and asks no retry policy."""
