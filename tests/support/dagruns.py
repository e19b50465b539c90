"""Run a DAG with ``dag.test()`` and read back what Airflow and MLflow say of it."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.conftest import HOME, output_so_far
from tests.support.logs import last_lines

# Of docs/, whose DAGs a test writes into the DAGs folder.
PAGES = ("migrating", "mapping", "lineage", "functions", "first_dag")


@dataclass(frozen=True)
class TaskResult:
    """The last state of a task instance, as Airflow's database has it."""

    state: str
    try_number: int
    xcom: Any
    link: Any
    job_link: Any = None
    logs_link: Any = None
    model_link: Any = None


@dataclass(frozen=True)
class DagRunResult:
    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, TaskResult]
    log: str

    def links(self, task: str) -> dict[str, Any]:
        """Return the addresses of a task's buttons, by class."""
        found = self.tasks[task]
        return {
            "MLflowRunLink": found.link,
            "SageMakerJobLink": found.job_link,
            "CloudWatchLogsLink": found.logs_link,
        }

    def runs(self, tracking_uri: str) -> dict[str, Any]:
        """Return the MLflow runs of this DAG run by name, read through MLflow's own client."""
        found = mlflow_runs(tracking_uri, self.dag_id, self.run_id)
        by_name = {run.info.run_name: run for run in found}
        assert len(by_name) == len(found), [run.info.run_name for run in found]
        return by_name


def wait_for_listener() -> None:
    """Wait until the runs of a DAG run that ended in this process are closed: a thread does it."""
    from mlflow_projects.listeners.dag_run import threads

    threads().shutdown(wait=True)
    threads.cache_clear()


def run_dag(dag_id: str, conf: dict[str, Any] | None = None, *, retries: int | None = None) -> DagRunResult:
    """Run a DAG of the repository, of tests/integration/dags or of a page in docs in this process.

    :param retries: of every task, instead of what the DAG says
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    dag = load_dag(dag_id)
    if retries is not None:
        for task in dag.tasks:
            task.retries = retries
    output_so_far()
    with alone(dag):
        dag_run = dag.test(run_conf=conf or {})
        wait_for_listener()
    log = output_so_far()
    sys.stdout.write(f"The last lines of the log of the DAG {dag_id}:\n{last_lines(log)}\n")  # if the test fails
    with create_session() as session:
        instances = session.scalars(
            select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == dag_run.run_id)
        ).all()

        def value(instance: TaskInstance, key: str) -> Any:
            query = XComModel.get_many(
                run_id=dag_run.run_id, dag_ids=dag_id, task_ids=instance.task_id, key=key,
                map_indexes=instance.map_index,
            )  # fmt: skip
            row = session.execute(query.with_only_columns(XComModel.value)).first()
            return XComModel.deserialize_value(row) if row else None

        tasks = {
            instance.task_id if instance.map_index < 0 else f"{instance.task_id}[{instance.map_index}]": TaskResult(
                state=str(instance.state),
                try_number=instance.try_number,
                xcom=value(instance, "return_value"),
                link=value(instance, "_link_MLflowRunLink"),
                job_link=value(instance, "_link_SageMaker_job"),
                logs_link=value(instance, "_link_CloudWatch_logs"),
                model_link=value(instance, "_link_MLflowModelLink"),
            )
            for instance in instances
        }
        state = str(dag_run.state)
    return DagRunResult(dag_id, dag_run.run_id, state, tasks, log)


def write_page(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files that a page of docs holds."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def alone(dag: Any) -> Iterator[None]:
    """Make the file of this DAG all that ``dag.test()`` finds in the DAGs folder.

    It reads and serialises the whole folder anew each time, which takes longer than a small DAG runs.
    """
    from airflow import settings

    with patch.object(settings, "DAGS_FOLDER", _folder_of(Path(dag.fileloc))):
        yield


def load_dag(dag_id: str) -> Any:
    bag = _parsed(_file_of(dag_id))
    return bag.dags[dag_id]


@functools.cache
def _file_of(dag_id: str) -> Path:
    folders = ("repository", "tests", *(f"{page}/dags" for page in PAGES))
    files = [file for folder in folders for file in sorted((HOME / "dags" / folder).glob("*.py"))]
    # First where the name stands: a file takes a while to be read, and one with an asset loads every provider.
    for file in sorted(files, key=lambda file: f'"{dag_id}"' not in file.read_text(encoding="utf-8")):
        if dag_id in _parsed(file).dags:
            return file
    raise AssertionError(f"no DAG {dag_id}")


def _parsed(file: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(file), bundle_path=HOME / "dags", bundle_name="dags-folder")
    assert not bag.import_errors, bag.import_errors
    return bag


def _folder_of(file: Path) -> str:
    """Return a folder in which a DAG file is alone."""
    folder = HOME / "dags-alone" / file.relative_to(HOME / "dags").with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / file.name).exists():
        (folder / file.name).symlink_to(file)
    return str(folder)


def mlflow_runs(tracking_uri: str, dag_id: str, run_id: str) -> list[Any]:
    """Return every MLflow run of a DAG run, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"tags.`airflow.dag_id` = '{dag_id}' and tags.`airflow.run_id` = '{run_id}'"
    return list(client.search_runs(experiments, query, order_by=["attributes.start_time ASC"]))
