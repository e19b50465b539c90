"""What a script learns of the results of its steps, which did not run: addresses, but no metrics and no artifacts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .outside import step_of
from .state import recording


def of_step(real: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(real)
    def ask(self: Any, run_id: str, *args: Any, **kwargs: Any) -> Any:
        if step := step_of(recording(), run_id):
            recording().stop(f"{what} of {step!r}", decides=True)
        return real(self, run_id, *args, **kwargs)

    return ask


def download_of(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def download(
        artifact_uri: Any = None,
        run_id: Any = None,
        artifact_path: Any = None,
        dst_path: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        import mlflow

        address = artifact_uri or run_id or ""
        if not step_of(recording(), address):
            return real(artifact_uri, run_id, artifact_path, dst_path, *args, **kwargs)
        if address.startswith("runs:/"):
            run_id, _, artifact_path = address.removeprefix("runs:/").partition("/")
        if run_id:
            root = mlflow.MlflowClient().get_run(run_id).info.artifact_uri
            return "/".join(filter(None, (root, artifact_path)))
        return address

    return download


class _Alike(str):
    """A parameter's text that is equal to the number that it was: what a script means that looks for it."""

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, str(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


class _Metrics(Mapping[str, float]):
    """Metrics of a step that did not run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _stop(self, what: str = "the metrics") -> Any:
        recording().stop(f"depends on {what} of {self._name!r}", decides=True)

    def __getitem__(self, key: str) -> float:
        return float(self._stop(f"the metric {key!r}"))

    def get(self, key: str, default: Any = None) -> Any:
        return self._stop(f"the metric {key!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._stop())

    def __len__(self) -> int:
        return int(self._stop())

    def __contains__(self, key: object) -> bool:
        return bool(self._stop(f"the metric {key!r}"))

    def __repr__(self) -> str:
        return "{}"


def data_of(real: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def data(run: Any) -> Any:
        found = real(run)
        step = recording().steps.get(run.info.run_id)
        if found is not None and recording().is_again:
            found._params = {key: _Alike(value) for key, value in found._params.items()}
        if found is not None and step:
            found._metrics = _Metrics(step["name"])
        return found

    return data
