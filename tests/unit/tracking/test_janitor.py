"""The janitor closes what is open for DAG runs that ended, children first, and nothing else."""

from __future__ import annotations

import pytest

from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.janitor import tidy
from mlflow_projects.tracking.record import RunRecord, SourceTags, TaskIdentity, now, resolve_experiment
from tests.support.memory_tracking import MemoryClient, statuses

HERE = "http://this-airflow:8080"


@pytest.mark.parametrize(
    ("state", "parent", "step"),
    [("success", "FINISHED", "KILLED"), ("failed", "FAILED", "KILLED"), (None, "KILLED", "KILLED"),
     ("running", "RUNNING", "RUNNING"), ("queued", "RUNNING", "RUNNING")],
)  # fmt: skip
def test_what_is_open_gets_the_verdict_of_its_dag_run(state: str | None, parent: str, step: str) -> None:
    client = MemoryClient()
    experiment = resolve_experiment(client, f"janitor {state}")
    dag = f"dag-{now()}"

    def record(name: str, role: str, above: str | None, airflow: str = HERE) -> RunRecord:
        task = TaskIdentity(dag, "run", name, 1, f"{dag}-{name}", url=f"{airflow}/dags/{dag}/runs/run")
        return RunRecord(client, experiment, name, task, SourceTags(name="s"), role=role, parent_run_id=above)

    top = record("top", "parent", None).open()
    under = record("under", "step", top.run_id).open()
    done = record("done", "step", top.run_id).open()
    client.update_run(done.run_id, "FINISHED", now())
    nested = client.create_run(experiment, "nested", now(), {"mlflow.parentRunId": done.run_id})
    foreign = record("foreign", "parent", None, airflow="http://another-airflow:8080").open()
    stopped: list[Run] = []
    closed = tidy(client, lambda dag_id, _: state if dag_id == dag else "running", HERE, stopped.append)

    below = "RUNNING" if parent == "RUNNING" else "KILLED"
    assert statuses(client, (top, under, done, nested, foreign)) == {
        "top": parent,
        "under": step,
        "done": "FINISHED",
        "nested": below,
        "foreign": "RUNNING",
    }
    mine = [run for run in closed if run.dag_id == dag]
    assert {run.run_id for run in mine if run.name != "top"} <= {run.run_id for run in stopped}, "jobs outside first"
    assert [run.name for run in mine][-1:] == ([] if parent == "RUNNING" else ["top"]), "the parent comes last"
    assert {run.name for run in mine} == (set() if parent == "RUNNING" else {"top", "under", "nested"})
    assert tidy(client, lambda dag_id, _: state if dag_id == dag else "running", HERE, stopped.append) == []
