"""MLflow's active run in this process, for a function: fluent calls such as ``mlflow.log_metric`` reach its run.

MLflow itself is not loaded for it: a function that never imports it does not pay for it. The moment it is imported,
or at once where it is there already, the run becomes the active one. Afterwards nothing of it is left in the process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from mlflow_projects.tracking.logged_in import environment

_URI = "MLFLOW_TRACKING_URI"


@contextlib.contextmanager
def active_run(run_id: str, variables: Mapping[str, str]) -> Iterator[None]:
    """Make a run the active one during the block; its status is left to whoever opened it.

    :param variables: with which MLflow's client reaches the server (as those of an entry point)
    """
    with environment(variables), _of_this_server(variables[_URI]), contextlib.ExitStack() as undo:
        if "mlflow" in sys.modules:
            _start(run_id, undo)
        else:
            on_import = _OnImport(lambda: _start(run_id, undo))
            sys.meta_path.insert(0, on_import)
            undo.callback(lambda: sys.meta_path.remove(on_import) if on_import in sys.meta_path else None)
        yield


def send_what_waits() -> None:
    """Send what MLflow leaves to threads of its own: traces, images, what is logged with ``synchronous=False``.

    After the block they would have neither the login nor the server's address.
    """
    if "mlflow" not in sys.modules:
        return
    with contextlib.suppress(Exception):  # what cannot be sent is MLflow's to tell, in the log
        _mlflow().flush_async_logging()
        _mlflow().flush_trace_async_logging()
        of_server, _ = _globals()
        for artifacts in [*of_server._artifact_repos_cache.values()]:
            artifacts.flush_async_logging()


@contextlib.contextmanager
def _of_this_server(uri: str) -> Iterator[None]:
    """Let the environment count, also where a DAG file has named another server or experiment to MLflow."""
    of_server, of_experiment = _globals()
    before = getattr(of_server, "_tracking_uri", None), getattr(of_experiment, "_active_experiment_id", None)
    if of_server and before[0] not in (None, uri):
        _mlflow().set_tracking_uri(uri)
    if of_experiment:
        of_experiment._active_experiment_id = None
    try:
        yield
    finally:
        of_server, of_experiment = _globals()
        if getattr(of_server, "_tracking_uri", None) != before[0]:
            _mlflow().set_tracking_uri(before[0])
        if of_experiment:
            of_experiment._active_experiment_id = before[1]


def _globals() -> tuple[Any, Any]:
    return sys.modules.get("mlflow.tracking._tracking_service.utils"), sys.modules.get("mlflow.tracking.fluent")


def _mlflow() -> Any:
    return sys.modules["mlflow"]


def _start(run_id: str, undo: contextlib.ExitStack) -> None:
    """Make the run active, and let ``start_run`` of a function do what it does in a script's own process.

    There the first ``start_run()`` takes up the run of ``MLFLOW_RUN_ID``, also after ``end_run()`` and
    ``set_experiment(…)``; and one with a ``run_id`` is not refused for a run that the script has not begun.
    """
    mlflow = _mlflow()
    start_run = mlflow.start_run
    undo.callback(_leave, run_id, _set_aside())
    # Should the server be away: MLFLOW_RUN_ID lets the first fluent call try again, and say what is wrong.
    with contextlib.suppress(Exception):
        start_run(run_id=run_id)
        os.environ.pop("MLFLOW_RUN_ID", None)  # as MLflow itself does: a nested run must be a new one
    parameters = inspect.signature(start_run)
    taken = False

    @functools.wraps(start_run)
    def started(*arguments: Any, **named: Any) -> Any:
        nonlocal taken
        named = parameters.bind(*arguments, **named).arguments
        active, wanted, nested = mlflow.active_run(), named.get("run_id"), bool(named.get("nested"))
        is_ours = bool(active and active.info.run_id == run_id)
        if wanted and wanted != run_id:  # an earlier task's
            with _any_experiment():
                return start_run(**{**named, "nested": nested or is_ours})
        if nested or (not is_ours and (active or (taken and not wanted))):
            return start_run(**named)
        taken = True
        if not is_ours:
            with _any_experiment():
                start_run(run_id=run_id)
        tags = {**(named.get("tags") or {}), "mlflow.runName": named.get("run_name")}
        tags["mlflow.note.content"] = named.get("description")
        mlflow.set_tags({name: value for name, value in tags.items() if value is not None})
        return mlflow.active_run()

    mlflow.start_run = started
    undo.callback(setattr, mlflow, "start_run", start_run)


def _set_aside() -> list[Any]:
    """Take away what is active already: it was left open by another task, or by the DAG file."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    active = fluent._active_run_stack.get() if fluent else []
    of_others = list(active)
    active.clear()
    return of_others


@contextlib.contextmanager
def _any_experiment() -> Iterator[None]:
    """Let a run be taken up although the function has named another experiment."""
    _, of_experiment = _globals()
    before = of_experiment._active_experiment_id
    of_experiment._active_experiment_id = None
    try:
        yield
    finally:
        of_experiment._active_experiment_id = before


def _leave(run_id: str, of_others: Sequence[Any]) -> None:
    """Let no run of the function be active any more, without a word of MLflow's about its end."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if fluent is None:
        return
    active = fluent._active_run_stack.get()
    for left in {run_id, *(run.info.run_id for run in active)}:
        if monitor := fluent.run_id_to_system_metrics_monitor.pop(left, None):
            monitor.finish()
    active[:] = of_others


class _OnImport(importlib.abc.MetaPathFinder):
    """Calls a function as soon as mlflow has been imported."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "mlflow":
            return None
        # It stays in sys.meta_path: whoever calls this may only ask whether MLflow is there (transformers does).
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
            spec.loader.then = self.function
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    then: Callable[[], None]

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        self.then()
