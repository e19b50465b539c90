"""Sweeps on a real scheduler: the asset event of a new champion starts the next DAG; a person can say no."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.up import Up, running_up
from tests.support.waiting import wait

pytestmark = pytest.mark.system

WINE = "ElasticnetWineModel"
CIFAR10 = "Cifar10Model"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("sweeps")) as running:
        yield running


def champion(up: Up, model: str) -> Any:
    """Return the version that holds the alias, or None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient(up.mlflow_uri).get_model_version_by_alias(model, "champion")
    except MlflowException:
        return None


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_new_champion_starts_the_scoring_by_itself_and_a_worse_model_does_not(up: Up) -> None:
    from mlflow import MlflowClient

    up.unpause("wine_sweep", "wine_score")
    sweep = up.trigger("wine_sweep", alphas=[0.5], l1_ratios=[0.1])
    assert up.wait_end("wine_sweep", sweep) == "success"
    (run,) = wait(lambda: up.runs("wine_score"), "a run of wine_score")
    assert run["run_type"] == "asset_triggered"
    assert up.wait_end("wine_score", run["dag_run_id"]) == "success"

    holder = champion(up, WINE)
    path = f"/dags/wine_score/dagRuns/{run['dag_run_id']}/upstreamAssetEvents"
    (event,) = up.call("GET", path)["asset_events"]
    assert (event["source_dag_id"], event["source_run_id"]) == ("wine_sweep", sweep)
    assert (event["extra"]["run_id"], event["extra"]["version"]) == (holder.run_id, int(holder.version))
    assert event["extra"]["metrics"]["rmse"] == pytest.approx(0.7460550348172179, rel=0, abs=1e-12)
    scored = MlflowClient(up.mlflow_uri).get_run(
        up.xcom("wine_score", run["dag_run_id"], "wine_score.score")["run_id"]
    )
    assert scored.data.metrics["rows"] == 1599
    assert scored.data.tags["wine.model_run_id"] == holder.run_id
    assert scored.data.tags["triggered_by_version"] == holder.version

    worse = up.trigger("wine_sweep", alphas=[1.0], l1_ratios=[1.0])
    assert up.wait_end("wine_sweep", worse) == "success"
    assert up.xcom("wine_sweep", worse, "sweep.promote")["promoted"] is False
    # Airflow writes what a task's success does to its assets together with the success.
    assert up.call("GET", f"/assets/events?source_dag_id=wine_sweep&source_run_id={worse}")["asset_events"] == []
    assert len(up.runs("wine_score")) == 1
    assert champion(up, WINE).version == holder.version


@pytest.mark.full_size
@pytest.mark.timeout(1800)
def test_a_person_decides_about_the_promotion(up: Up) -> None:
    up.unpause("cifar10_sweep")
    rejected = decide(up, "Reject")
    assert up.task("cifar10_sweep", rejected, "promote") == "skipped"
    assert champion(up, CIFAR10) is None
    approved = decide(up, "Approve")
    assert up.task("cifar10_sweep", approved, "promote") == "success"
    holder = champion(up, CIFAR10)
    assert holder.run_id == up.xcom("cifar10_sweep", approved, "sweep.best")["run_id"]


def decide(up: Up, answer: str) -> str:
    """Run the sweep with an approval, give the answer, return the DAG run's id after its end."""
    run = up.trigger("cifar10_sweep", approval=True)
    assert ": accuracy " in up.decide("cifar10_sweep", run, "approve", answer)
    assert up.wait_end("cifar10_sweep", run, 900) == "success"
    return run
