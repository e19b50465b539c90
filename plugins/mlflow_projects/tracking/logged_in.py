"""MLflow's own client with the login of a connection, which its calls take from variables of the environment."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_projects.tracking.server import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_one_at_a_time = threading.RLock()


def logged_in_client(settings: TrackingSettings) -> MlflowClient:
    """Return a client whose public methods each run with the login's variables."""
    from mlflow import MlflowClient

    variables = settings.environment()

    class LoggedInClient(MlflowClient):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            return _logged_in(found, variables) if callable(found) and not name.startswith("_") else found

    with environment(variables):
        return LoggedInClient(tracking_uri=settings.uri)


def _logged_in(method: Callable[..., Any], variables: Mapping[str, str]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with _one_at_a_time, environment(variables):
            return method(*arguments, **named)

    return call


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process during the block; take back too what MLflow itself changes of its own."""
    names = {*variables, *(name for name in os.environ if name.startswith("MLFLOW_"))}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
