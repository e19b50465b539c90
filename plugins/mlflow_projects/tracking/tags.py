"""The names of the tags that a run carries."""

from __future__ import annotations

import hashlib
import json

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
    return f"mlflow_projects.dag_run.{digest[:32]}"
