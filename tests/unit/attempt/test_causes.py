"""Why an attempt failed, as far as another try depends on it."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from mlflow_projects.attempt.causes import cause_of_error, cause_of_job
from mlflow_projects.attempt.stopping import AttemptKilledError
from mlflow_projects.backends.contract import JobStatus
from mlflow_projects.exceptions import ProjectError, StepFailedError, TrackingRefusedError, TrackingUnavailableError


@pytest.mark.parametrize(
    ("status", "last", "cause"),
    [
        (JobStatus("failed", 1), "ValueError: no", "user_error"),
        (JobStatus("failed", 137), "", "killed_by_memory"),
        (JobStatus("failed", 143), "", "interrupted"),
        (JobStatus("failed", 139), "", "user_error"),
        (JobStatus("failed", None), "", "unknown"),
        (JobStatus("stopped", None), "", "interrupted"),
        (JobStatus("failed", 137, cause="capacity"), "MemoryError", "capacity"),
        (JobStatus("failed", 1), "MemoryError", "killed_by_memory"),
        (JobStatus("failed", 1), "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7 TiB",
         "killed_by_memory"),
        (JobStatus("failed", 1), "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB",
         "killed_by_memory"),
        (JobStatus("failed", 1), "OSError: [Errno 12] Cannot allocate memory", "killed_by_memory"),
        (JobStatus("failed", 1), "Error: cannot allocate vector of size 7.5 Gb", "killed_by_memory"),
        (JobStatus("failed", 1), "java.lang.OutOfMemoryError: Java heap space", "killed_by_memory"),
        (JobStatus("failed", 1), "MemoryErrors are no reason to worry", "user_error"),
    ],
)  # fmt: skip
def test_a_commands_exit_status_and_last_words_say_why(status: JobStatus, last: str, cause: str) -> None:
    assert cause_of_job(status, ["MemoryError: of an earlier line", "then", last, "", " "]) == cause


class MlflowException(Exception):
    """As MLflow's own, which a task process need not have."""

    def __init__(self, said: str, status: int = 500) -> None:
        super().__init__(said)
        self.status = status

    def get_http_status_code(self) -> int:
        return self.status


class RestException(MlflowException):
    """As MLflow's own, for an answer of the server."""


class OutOfMemoryError(RuntimeError):
    """As PyTorch's own."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ProjectError("x"), "bad_input"),
        (StepFailedError("x"), "unknown"),
        (StepFailedError("x", cause="capacity"), "capacity"),
        (TrackingUnavailableError("x"), "tracking"),
        (TrackingRefusedError("x"), "tracking"),
        (MlflowException("x"), "tracking"),
        (RestException("the server is busy", 503), "tracking"),
        (RestException("too many requests", 429), "tracking"),
        (RestException("the login is refused", 401), "tracking"),
        (MlflowException("Changing param values is not allowed", 400), "user_error"),
        (RestException("Run with id=None not found", 404), "user_error"),
        (MemoryError(), "killed_by_memory"),
        (OutOfMemoryError(), "killed_by_memory"),
        (AirflowTaskTimeout(), "timeout"),
        (ValueError("x"), "user_error"),
        (SystemExit(1), "user_error"),
        (KeyboardInterrupt(), "interrupted"),
        (AttemptKilledError("x"), "interrupted"),
        (AttemptKilledError("x", "timeout"), "timeout"),
    ],
)
def test_an_exception_says_why(error: BaseException, cause: str) -> None:
    assert cause_of_error(error) == cause
