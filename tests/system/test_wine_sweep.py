"""The sweep: one run per combination, the best one registered, and the champion moves only to a better version."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.dagruns import DagRunResult, run_dag
from tests.support.introduction import artifacts, children

MODEL = "ElasticnetWineModel"


@pytest.fixture(scope="module")
def first(server: str) -> DagRunResult:
    return sweep([1.0, 0.5], [0.9])


def sweep(alphas: list[float], l1_ratios: list[float]) -> DagRunResult:
    result = run_dag("wine_sweep", conf={"alphas": alphas, "l1_ratios": l1_ratios})
    assert result.state == "success", result.log
    return result


def champion(tracking_uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri).get_model_version_by_alias(MODEL, "champion")


def events() -> list[dict[str, Any]]:
    """Return the extra of each event of the champion's asset, oldest first."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
    with create_session() as session:
        return list(session.scalars(query.where(AssetModel.name == f"{MODEL}@champion").order_by(AssetEvent.id)))


def test_each_combination_is_a_run_and_the_best_becomes_the_first_champion(first: DagRunResult, server: str) -> None:
    trained = children(server, first.tasks["sweep.start_run"].xcom["run_id"])
    tried = {name: (run.data.params["alpha"], run.data.params["l1_ratio"]) for name, run in trained.items()}
    assert tried == {"train[0]": ("1.0", "0.9"), "train[1]": ("0.5", "0.9")}
    best = min(trained.values(), key=lambda run: run.data.metrics["rmse"])
    assert champion(server).run_id == best.info.run_id == first.tasks["sweep.best"].xcom["run_id"]
    (told,) = events()
    assert (told["run_id"], told["version"]) == (best.info.run_id, int(champion(server).version))
    assert told["metrics"]["rmse"] == best.data.metrics["rmse"]


def test_the_champion_moves_only_to_a_better_version(first: DagRunResult, server: str) -> None:
    before, known = champion(server), len(events())
    worse = sweep([1.0], [0.9])
    assert worse.tasks["sweep.promote"].xcom["promoted"] is False
    assert worse.tasks["sweep.register"].xcom["version"] > int(before.version)
    assert (champion(server).version, len(events())) == (before.version, known)
    better = sweep([0.1], [0.1])
    assert better.tasks["sweep.promote"].xcom["promoted"] is True
    assert int(champion(server).version) == better.tasks["sweep.register"].xcom["version"]
    assert len(events()) == known + 1


def test_the_score_dag_runs_by_hand_too(first: DagRunResult, server: str, tmp_path: Any) -> None:
    from mlflow import MlflowClient

    result = run_dag("wine_score")
    assert result.state == "success", result.log
    run = MlflowClient(server).get_run(result.tasks["wine_score.score"].xcom["run_id"])
    assert run.data.tags["triggered_by_version"] == "none"
    assert run.data.tags["wine.model_run_id"] == champion(server).run_id
    lines = artifacts(server, run, tmp_path)["predictions.csv"].decode().splitlines()
    assert (len(lines), lines[0].rsplit(",", 1)[1]) == (1600, "predicted")
