"""MLflow's own errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_projects.exceptions import TrackingError, TrackingRefusedError


@contextmanager
def translated() -> Iterator[None]:
    """Raise what MLflow's client raises as :class:`TrackingError` with MLflow's code."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
            raise TrackingRefusedError(str(error.message)) from error
        raise TrackingError(str(error.message), error.error_code) from error
