"""MLflow's active run in this process, for a function: fluent calls such as ``mlflow.log_metric`` reach its run.

MLflow itself is not loaded for it: a function that never imports it does not pay for it. The moment it is imported,
or at once where it is there already, the run becomes the active one. Afterwards nothing of it is left in the process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
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
        undo.callback(_leave, run_id)
        if "mlflow" in sys.modules:
            _start(run_id, undo)
        else:
            on_import = _OnImport(lambda: _start(run_id, undo))
            sys.meta_path.insert(0, on_import)
            undo.callback(lambda: sys.meta_path.remove(on_import) if on_import in sys.meta_path else None)
        yield


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
    """Make the run active, and let ``with mlflow.start_run():`` of a script enter it instead of refusing."""
    mlflow = _mlflow()
    start_run = mlflow.start_run
    if fluent := _globals()[1]:  # earlier code of this process may have left a run open
        left = fluent._active_run_stack.get()
        undo.callback(left.extend, [*left])
        left.clear()
    # Should the server be away: MLFLOW_RUN_ID lets the first fluent call try again, and say what is wrong.
    with contextlib.suppress(Exception):
        if mlflow.active_run() is None:
            start_run(run_id=run_id)
            os.environ.pop("MLFLOW_RUN_ID", None)  # as MLflow itself does: a nested run must be a new one

    @functools.wraps(start_run)
    def enter(*arguments: Any, **named: Any) -> Any:
        active = mlflow.active_run()
        is_new = not arguments and not named.get("run_id") and not named.get("nested")
        if not (is_new and active and active.info.run_id == run_id):
            return start_run(*arguments, **named)
        tags = {**(named.get("tags") or {}), "mlflow.runName": named.get("run_name")}
        tags["mlflow.note.content"] = named.get("description")
        mlflow.set_tags({name: value for name, value in tags.items() if value is not None})
        return active

    mlflow.start_run = enter
    undo.callback(setattr, mlflow, "start_run", start_run)


def _leave(run_id: str) -> None:
    """Let the run be active no more, without a word of MLflow's about its end."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    if fluent is None:
        return
    active = fluent._active_run_stack.get()
    active[:] = [run for run in active if run.info.run_id != run_id]
    if monitor := fluent.run_id_to_system_metrics_monitor.pop(run_id, None):
        monitor.finish()


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
