"""The names of the tags that a run carries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

# MLflow's own tags (mlflow.utils.mlflow_tags); an unset one is left out.
PARENT_RUN_ID = "mlflow.parentRunId"
# Ours: which Airflow task instance a run belongs to (and, for its DAG run, see dag_run_tag) …
DAG_ID = "airflow.dag_id"
DAG_RUN_ID = "airflow.run_id"
TASK_ID = "airflow.task_id"
MAP_INDEX = "airflow.map_index"
TRY_NUMBER = "airflow.try_number"
LOGICAL_DATE = "airflow.logical_date"
TASK_URL = "airflow.task_url"
# … how its DAG run ended, on a parent run, unless its end task had said all …
DAG_RUN_STATE = "airflow.dag_run_state"
# … with which of its ends that was, told by how often it had been cleared …
DAG_RUN_CLEARS = "airflow.dag_run_clears"
# … and what else there is to know about the attempt.
ATTEMPT_ID = "mlflow_projects.attempt_id"
ROLE = "mlflow_projects.role"
INNER = "inner"  # the role of a run that a project opened by itself, below its step or elsewhere
PARAMETERS = "mlflow_projects.parameters"
REASON = "mlflow_projects.reason"
CAUSE = "mlflow_projects.cause"
OUTPUT_TAIL = "mlflow_projects.output_tail"
EXIT_CODE = "mlflow_projects.exit_code"
SUPERSEDES = "mlflow_projects.supersedes"
# The handle (JSON) of the job outside, if there is one, so that whoever closes the run can stop it …
JOB = "mlflow_projects.job"
# … and the tries that watched it in turn, if a worker was lost meanwhile.
TRIES = "mlflow_projects.tries"
_DAG_RUN = "mlflow_projects.dag_run."
# By these a run is found and judged, and its job stopped.
_OWN = (ROLE, PARENT_RUN_ID, DAG_ID, DAG_RUN_ID, TASK_ID, MAP_INDEX, TRY_NUMBER, TASK_URL, ATTEMPT_ID, JOB)
# How and when (ms since 1970) the run ended: MLflow opens it again for a later task that writes into it.
ENDED_AS = "mlflow_projects.ended_as"
# The run whose result this one is, if nothing was started.
REUSED_FROM = "mlflow_projects.reused_from"


def dag_run_tag(dag_id: str, run_id: str) -> str:
    """Return the name of the tag by which the runs of a DAG run are found.

    MLflow's database finds a tag at once by its name. By its value it reads that tag of every run: with a million
    runs, ``airflow.run_id`` took a second.
    """
    digest = hashlib.sha256(json.dumps([dag_id, run_id]).encode()).hexdigest()
    return f"{_DAG_RUN}{digest[:32]}"


def own_tags_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return those of a run's tags by which it is found and judged."""
    return {key: value for key, value in tags.items() if key in _OWN or key.startswith(_DAG_RUN)}


def changed(tags: Mapping[str, str], right: Mapping[str, str]) -> dict[str, str]:
    """Return which tags a run should have and has not, because its project changed them."""
    return {key: value for key, value in right.items() if tags.get(key) != value}
