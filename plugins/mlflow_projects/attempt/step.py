"""What an attempt is to run, and what it came to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_projects.backends.contract import Handle
from mlflow_projects.project.git_authentication import GitCredentials
from mlflow_projects.project.work_tree import BundleCheckout
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import TaskIdentity


def run_variables(run: Run, task: TaskIdentity, *, system_metrics: bool) -> dict[str, str]:
    """Return the variables by which MLflow's client in a command, or a function, logs to a run.

    :param system_metrics: whether it measures the machine
    """
    return {
        "MLFLOW_RUN_ID": run.run_id,
        "MLFLOW_EXPERIMENT_ID": run.experiment_id,
        # Tags that MLflow gives every run which is opened besides (mlflow.tracking.context).
        "MLFLOW_RUN_CONTEXT": json.dumps(task.inner_tags()),
        **({"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"} if system_metrics else {}),
    }


@dataclass(frozen=True)
class Step:
    """What to run, all templates rendered.

    :param parent_run_id: the MLflow run to nest below, if any
    :param supersedes: the MLflow run of the try before this one, if any
    :param experiment_id: where the attempt's run goes
    :param system_metrics: whether MLflow in the command measures the machine
    :param log_output: whether the whole output becomes an artifact
    :param skip_on_exit_code: exit statuses that mean "nothing to do"
    :param fail_on_exit_code: exit statuses after which no other try can help
    """

    uri: str
    entry_point: str
    version: str | None
    parameters: Mapping[str, Any]
    backend: str
    backend_config: Mapping[str, Any]
    env_manager: str | None
    run_name: str
    experiment_id: str
    parent_run_id: str | None
    supersedes: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    git_credentials: GitCredentials | None = None
    bundle: BundleCheckout | None = None
    git_trusted_dirs: Sequence[Path] = ()
    system_metrics: bool = False
    log_output: bool = False
    skip_on_exit_code: Collection[int] = ()
    fail_on_exit_code: Collection[int] = ()


@dataclass(frozen=True)
class Result:
    """What an attempt came to that did not fail.

    :param run: the attempt's own
    :param original: the run whose result was taken over instead of running the command
    :param handle: of a durable job that goes on; whoever watches it calls :meth:`Attempt.conclude` later
    :param skipped: why there was nothing to do, if the command said so
    """

    run: Run
    original: Run | None = None
    handle: Handle | None = None
    skipped: str = ""
