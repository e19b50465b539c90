"""Steps that look for an earlier run of their own before they run."""

import os

import click
import mlflow
from mlflow.entities import RunStatus
from mlflow.tracking import MlflowClient


def earlier(entry_point, parameters):
    client = MlflowClient()
    experiment_id = mlflow.active_run().info.experiment_id
    for run in client.search_runs([experiment_id]):
        if run.data.tags.get("mlflow.project.entryPoint") != entry_point:
            continue
        if any(run.data.params.get(name) != str(value) for name, value in parameters.items()):
            continue
        if run.info.status == RunStatus.to_string(RunStatus.FINISHED):
            return run
    return None


def get_or_run(entry_point, parameters, use_cache=True):
    if use_cache and (found := earlier(entry_point, parameters)):
        return found
    submitted = mlflow.run("step", entry_point, parameters=parameters, env_manager="local")
    return MlflowClient().get_run(submitted.run_id)


@click.command()
@click.option("--rows", default=100, type=int, help="of the table")
@click.option("--rate", default=0.5, type=float)
@click.argument("name", default="als")
def workflow(rows, rate, name):
    with mlflow.start_run(run_name=name) as active_run:
        os.environ["SPARK_CONF_DIR"] = os.path.abspath(".")
        loaded = get_or_run("load", {"rows": rows})
        data = os.path.join(loaded.info.artifact_uri, "ratings-csv-dir")
        trained = get_or_run("train", {"data": data, "rate": rate})
        get_or_run("main", {"data": f"runs:/{trained.info.run_id}/model", "parent": active_run.info.run_id}, False)


if __name__ == "__main__":
    workflow()
