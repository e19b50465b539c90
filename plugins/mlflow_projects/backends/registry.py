"""Which backends there are, and what any process does with the jobs of durable ones.

A backend is found by its name in the entry-point group ``mlflow_projects.backends``.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from mlflow_projects.backends.contract import Backend, DurableBackend, Handle, Host
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.tags import JOB

GROUP = "mlflow_projects.backends"
_log = logging.getLogger(__name__)
# As in pyproject.toml: they are also there where only plugins/ was copied, and cost no look at all packages.
OWN = {
    "local": "mlflow_projects.backends.local:LocalBackend",
    "sagemaker": "mlflow_projects.backends.sagemaker:SageMakerBackend",
}
_OWN_LINKS = ("SageMaker job", "CloudWatch logs")


@cache
def backend_class(name: str) -> type[Backend]:
    """Return the backend of that name.

    :raises ProjectError: there is none, or it cannot be loaded
    """
    place = OWN.get(name) or _installed().get(name)
    if not place:
        raise ProjectError(f"There is no backend {name!r}; use one of: {', '.join(backend_names())}.")
    module, _, attribute = place.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ProjectError(f"The backend {name!r} cannot be loaded from {place}: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Backend)):
        raise ProjectError(f"The backend {name!r} cannot be used: {place} is no Backend.")
    return found


def backend_names() -> list[str]:
    """Return the names of all backends, our own first."""
    return [*OWN, *sorted(_others())]


def is_durable(name: str) -> bool:
    """Tell whether a backend's jobs go on when the worker is gone.

    :raises ProjectError: there is no such backend
    """
    return backend_class(name).is_durable


def handle_from(content: Any) -> Handle:
    """Return the handle that was kept as JSON.

    :raises ProjectError: it is none, or its backend is not here
    """
    if not isinstance(content, Mapping) or not isinstance(name := content.get("backend"), str):
        raise ProjectError("The handle of a job is damaged: it names no backend; its job must be stopped by hand.")
    try:
        return durable_class(name).handle_type.from_json(content)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ProjectError(
            f"The handle of a job of the backend {name!r} is damaged ({error}); its job must be stopped by hand."
        ) from error


def durable_class(name: str) -> type[DurableBackend]:
    """Return the durable backend of that name.

    :raises ProjectError: there is none
    """
    found = backend_class(name)
    if not issubclass(found, DurableBackend):
        raise ProjectError(f"The backend {name!r} has no jobs that outlive their task.")
    return found


def backend_of(handle: Handle, host: Host) -> DurableBackend:
    """Return the backend of a handle's job."""
    return durable_class(handle.backend)(host)


def link_names(backend: str) -> Sequence[str]:
    """Return the buttons that a step may have; of a template, which may mean any backend, all there are."""
    if backend in OWN:
        return _OWN_LINKS
    found = [*_OWN_LINKS]
    for name in _others() if "{" in backend else {backend} & _others():
        found += getattr(backend_class(name), "link_names", ())
    return found


def stop_job_of(run: Run, log: Callable[[str], None]) -> None:
    """Stop the job outside that a run's tags name; without one, do nothing."""
    if not (text := run.tags.get(JOB)):
        return
    try:
        handle = handle_from(json.loads(text))
        backend_of(handle, Host(log)).stop(handle)
    except Exception as error:  # whatever keeps us from stopping it, the runs must be closed
        log(f"The job of run {run.run_id} cannot be stopped: {error}")
        _log.debug("The job cannot be stopped:", exc_info=True)


def check_config_keys(config: Mapping[str, Any]) -> None:
    """Refuse a key of ``backend_config`` that no installed backend knows.

    A key of another backend is fine: the same DAG runs here or there.
    """
    unknown = sorted(map(str, config))
    known: set[str] = set()
    for is_own in (True, False):
        if not unknown:
            return  # as in most steps: what other backends know takes a tenth of a step's overhead to load
        known |= {key for name in ({*OWN} if is_own else _others()) for key in backend_class(name).config_keys}
        unknown = [key for key in unknown if key not in known]
    if unknown:
        meant = difflib.get_close_matches(unknown[0], known, n=1)
        raise ProjectError(
            f"backend_config has the unknown key {unknown[0]!r}"
            + (f"; do you mean {meant[0]!r}?" if meant else f"; known are: {', '.join(sorted(known))}.")
        )


def _others() -> set[str]:
    return set(_installed()) - set(OWN)


@cache
def _installed() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=GROUP)}
