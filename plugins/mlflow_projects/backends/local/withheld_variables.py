"""Which of the worker's variables a command does not get."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Airflow's own secrets and the channel to its supervisor are none of the project's business (the context
# variables AIRFLOW_CTX_… are); where to track is the attempt's to say, not the worker's.
_WITHHELD = re.compile(r"_*AIRFLOW_(?!CTX_)|MLFLOW_(TRACKING_|RUN_|EXPERIMENT_)")


def is_withheld(name: str) -> bool:
    """Tell whether a command never gets the worker's variable of a name."""
    return _WITHHELD.match(name) is not None


def worker_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's variables without Airflow's own secrets."""
    return {name: value for name, value in environment.items() if not is_withheld(name)}
