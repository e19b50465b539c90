"""What a run is: the tracking server's calls, tags, the run tree, the model registry. No Airflow import.

The public names are loaded on first use: every task imports this package, few need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_projects.tracking.completeness import KINDS, kinds_missing_from, missing_kinds

__all__ = ["KINDS", "kinds_missing_from", "missing_kinds"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow_projects.tracking import completeness

    return getattr(completeness, name)
