"""Is a run's record complete? Seven kinds of information make it so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlflow_projects.tracking.client import Artifact, Run, TrackingClient, quoted
from mlflow_projects.tracking.reuse_key import maker_of


def _has_code_version(run: Run, _: Sequence[Artifact]) -> bool:
    """A git commit, or for a project outside of git the hash of its files."""
    return any(run.tags.get(key) for key in ("mlflow.source.git.commit", "mlflow_projects.source.sha256"))


def _has_times(run: Run, _: Sequence[Artifact]) -> bool:
    return run.start_time is not None and run.end_time is not None and run.end_time >= run.start_time


def _has_source(run: Run, _: Sequence[Artifact]) -> bool:
    return bool(run.tags.get("mlflow.source.name") and run.tags.get("mlflow.source.type"))


def _has_tags(run: Run, _: Sequence[Artifact]) -> bool:
    """At least one tag that MLflow did not set by itself."""
    return any(not key.startswith("mlflow.") for key in run.tags)


def _has_params(run: Run, _: Sequence[Artifact]) -> bool:
    return bool(run.params)


def _has_metrics(run: Run, artifacts: Sequence[Artifact]) -> bool:
    """At least one metric, and the processing time, which MLflow derives from start and end."""
    return bool(run.metrics) and _has_times(run, artifacts)


def _has_artifacts(_: Run, artifacts: Sequence[Artifact]) -> bool:
    return bool(artifacts)


_CHECKS: dict[str, Callable[[Run, Sequence[Artifact]], bool]] = {
    "code version": _has_code_version,
    "times": _has_times,
    "source": _has_source,
    "tags": _has_tags,
    "params": _has_params,
    "metrics": _has_metrics,
    "artifacts": _has_artifacts,
}
KINDS = tuple(_CHECKS)


def missing_kinds(run: Run, artifacts: Sequence[Artifact]) -> list[str]:
    """Return which of the kinds (:data:`KINDS`, in that order) a run lacks.

    :param artifacts: files, folders and logged models of the run
    """
    return [kind for kind, has in _CHECKS.items() if not has(run, artifacts)]


def kinds_missing_from(client: TrackingClient, run_id: str) -> list[str]:
    """Read a run and return which of the kinds it lacks.

    :raises TrackingError: the run cannot be read
    """
    run = client.get_run(run_id)
    maker = maker_of(client, run)
    return missing_kinds(run, client.list_artifacts(maker) or _logged_models(client, run.experiment_id, maker))


def _logged_models(client: TrackingClient, experiment_id: str, run_id: str) -> list[Artifact]:
    """Return the run's models, which MLflow 3 does not list among its artifacts."""
    found = client.logged_models(experiment_id, f"source_run_id = {quoted(run_id)}")
    return [Artifact(path=model.name, is_dir=True) for model in found]
