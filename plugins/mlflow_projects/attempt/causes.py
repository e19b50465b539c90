"""Why an attempt failed, as far as another try depends on it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlflow_projects.attempt.stopping import AttemptKilledError
from mlflow_projects.backends.contract import JobStatus
from mlflow_projects.exceptions import Cause, ProjectError, StepFailedError, TrackingError

_KILLED, _TERMINATED = 128 + 9, 128 + 15
_NOT_THE_CALL = (401, 403, 408, 429)  # HTTP statuses below 500 that say nothing of the function's call
# What Python, PyTorch, TensorFlow, Java, R and the C library say last when memory is short.
_NO_MEMORY = re.compile(
    r"(MemoryError|ResourceExhaustedError)\b|out of memory|[Cc]annot allocate memory"
    r"|cannot allocate vector of size"
)


def cause_of_job(status: JobStatus, tail: Sequence[str]) -> Cause:
    """Return why a command failed that Airflow had not stopped.

    :param tail: the last lines of its output
    """
    if status.cause:
        return status.cause
    last = next((line for line in reversed(tail) if line.strip()), "")
    if status.exit_code == _KILLED or (status.exit_code and _NO_MEMORY.search(last)):
        return "killed_by_memory"
    if status.exit_code == _TERMINATED or status.state == "stopped":
        return "interrupted"
    return "user_error" if status.exit_code else "unknown"


def cause_of_error(error: BaseException) -> Cause:
    """Return why an attempt failed by the exception that it ended with."""
    if isinstance(error, StepFailedError | AttemptKilledError):
        return error.cause
    if isinstance(error, ProjectError):
        return "bad_input"
    if isinstance(error, TrackingError) or _is_of_server(error):
        return "tracking"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "killed_by_memory"
    if type(error).__name__ == "AirflowTaskTimeout":
        return "timeout"
    return "user_error" if isinstance(error, Exception | SystemExit) else "interrupted"


def _is_of_server(error: BaseException) -> bool:
    """Return whether MLflow's own client says that the server was away, busy, or refused the login."""
    if not any(kind.__name__ == "MlflowException" for kind in type(error).__mro__):
        return False
    status = getattr(error, "get_http_status_code", lambda: 500)()
    return status >= 500 or status in _NOT_THE_CALL
