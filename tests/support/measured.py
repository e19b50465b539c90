"""A project's work that ends as soon as MLflow has measured the machine once."""

from __future__ import annotations

from typing import Any

# With MLflow's own, that would be after 10 seconds.
SOON = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1", "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1"}
SCRIPT = """\
import mlflow, time
with mlflow.start_run() as run:
    end = time.monotonic() + 120
    while not mlflow.get_run(run.info.run_id).data.metrics and time.monotonic() < end:
        time.sleep(0.1)
"""


def was_measured(run: Any) -> bool:
    """Tell whether a run that succeeded has metrics of the machine."""
    return run.info.status == "FINISHED" and any(name.startswith("system/cpu") for name in run.data.metrics)
