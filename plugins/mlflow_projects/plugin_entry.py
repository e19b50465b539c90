"""The entry point ``airflow.plugins`` of the installed package.

Airflow 3.3 loads the files of the plugins folder first, then the entry points. A plugin whose name is known by then
is an import error in the UI, and in a task process it makes Airflow forget the entry points after it
(``airflow.sdk.plugins_manager``). So where the plugins folder holds our file too, the entry point is no plugin;
what is no plugin, Airflow passes over in silence.
"""

from __future__ import annotations

import sys
from typing import Any

# Airflow's loader puts a file of the plugins folder into sys.modules under its bare name.
_FILE_IN_PLUGINS_FOLDER = "mlflow_projects_plugin"


def __getattr__(name: str) -> Any:
    if name != "plugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _FILE_IN_PLUGINS_FOLDER in sys.modules:
        return None
    from mlflow_projects.plugin import MLflowProjectsPlugin

    return MLflowProjectsPlugin
