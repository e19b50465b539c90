"""What the training tells MLflow, also when this run, or an earlier one, has told a part of it already."""

import math
from typing import Any

import mlflow

from checkpoint import History


class Record:
    """The current run's parameters and metrics.

    A job that its platform starts again goes on with the same MLflow run: nothing may be there twice.
    """

    def __init__(self, run: mlflow.ActiveRun) -> None:
        self._client = mlflow.MlflowClient()
        self._run_id = run.info.run_id
        self._data = self._client.get_run(self._run_id).data

    def log_parameters(self, values: dict[str, Any]) -> None:
        """Log the parameters that whoever started the run did not log: MLflow refuses another text for one."""
        mlflow.log_params({name: value for name, value in values.items() if name not in self._data.params})

    def log_epochs(self, history: History) -> None:
        """Log the metrics of the epochs, from 1 on, that this run does not have."""
        names = {name for metrics in history for name in metrics}
        have = {name: self._steps(name) for name in names}
        for epoch, metrics in enumerate(history, start=1):
            if missing := {name: value for name, value in metrics.items() if epoch not in have[name]}:
                mlflow.log_metrics(missing, step=epoch)

    def log_epoch(self, history: History) -> None:
        """Log the metrics of the last epoch."""
        mlflow.log_metrics(history[-1], step=len(history))

    def log_results(self, results: dict[str, float]) -> None:
        """Log what counts in the end."""
        mlflow.log_metrics({name: value for name, value in results.items() if not self._steps(name)})

    def _steps(self, name: str) -> set[int]:
        if name not in self._data.metrics:  # as it was when this process started
            return set()
        return {metric.step for metric in self._client.get_metric_history(self._run_id, name)}


def is_finite(metrics: dict[str, float]) -> bool:
    """Return whether all numbers are numbers."""
    return all(math.isfinite(value) for value in metrics.values())
