"""Load what a step needs once, in the processes that Airflow forks tasks and parsers of DAG files from.

The scheduler forks the task processes of its LocalExecutor, the DAG processor one process for each file. What
they have loaded, their children have too.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

# A step with the local backend and a tracking server, and its parent run. In each process anew, it would take 0.05 s.
_OF_A_STEP = (
    "mlflow_projects.operators.project",
    "mlflow_projects.operators.run_group",
    "mlflow_projects.operators.runs",
    "mlflow_projects.backends.local",
    "mlflow_projects.tracking.connect",
    "mlflow_projects.tracking.rest",
    # What the scheduler itself needs when a DAG run ends.
    "mlflow_projects.hooks.closing_queue",
    "mlflow_projects.hooks.opened_runs",
    "mlflow_projects.listeners.dag_parts",
)
# With it, all patterns are compiled that the addresses of a step need: its task's page, its project, its server.
_ADDRESSES = "https://me:secret@host:1/a%2Bb?c=d http://host/ ssh://git@host/a"


@hookimpl
def on_starting(component: Any) -> None:
    """Load these modules in a scheduler, DAG processor or triggerer; Airflow calls this in each task process too."""
    # The class is told by its name, because importing it would cost every task of any operator half a second.
    if type(component).__name__ == "Job":
        for module in _OF_A_STEP:
            import_module(module)
        from mlflow_projects.backends.registry import backend_names

        backend_names()  # a look at all packages: 35 ms for each file with a DAG whose backend is a template
        _compile()


def _compile() -> None:
    """Compile what else each task process would compile anew, in 6 ms: our patterns, and those of Jinja."""
    from jinja2 import Environment

    from mlflow_projects.public_uri import public_text

    public_text(_ADDRESSES)
    Environment(extensions=["jinja2.ext.do"]).from_string("{{ value }}")  # noqa: S701  # as Airflow has it; never rendered
