"""From runs to the model in use: the operators and the sensor, with a server and with SQLite."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mlflow_projects.tracking.registration import WantedVersion
from tests.conftest import HOME
from tests.support.dagruns import DagRunResult, run_dag
from tests.support.waiting import wait

pytestmark = pytest.mark.usefixtures("airflow_db")
# The other tests have both nightly: what a client answers with either store is in tests/contract.
with_both_stores = pytest.mark.parametrize("store_uri", ["http", "sqlite"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["http", pytest.param("sqlite", marks=pytest.mark.nightly)])
def store_uri(request: pytest.FixtureRequest, mlflow_server: str) -> str:
    return mlflow_server if request.param == "http" else f"sqlite:///{HOME}/models.db"


@pytest.fixture
def mlflow(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the DAGs at a store; return MLflow's own client of it."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    return MlflowClient(store_uri)


@pytest.fixture
def experiment(mlflow: Any) -> str:
    return str(mlflow.create_experiment(uuid.uuid4().hex, artifact_location=f"file://{HOME}/models"))


@pytest.fixture
def name() -> str:
    return f"Model {uuid.uuid4().hex[:8]}"


def make_run(
    mlflow: Any,
    experiment: str,
    metrics: dict[str, float] | None = None,
    *,
    parent: str | None = None,
    status: str = "FINISHED",
    start: int | None = None,
    **tags: str,
) -> str:
    every_tag = {**tags, **({"mlflow.parentRunId": parent} if parent else {})}
    run_id = str(mlflow.create_run(experiment, start_time=start, tags=every_tag).info.run_id)
    for key, value in (metrics or {}).items():
        mlflow.log_metric(run_id, key, value)
    mlflow.log_param(run_id, "alpha", "0.5")
    if status != "RUNNING":
        mlflow.set_terminated(run_id, status)
    return run_id


def make_model(mlflow: Any, experiment: str, **metrics: float) -> str:
    """Make a run with a logged model; return the run's id."""
    run_id = make_run(mlflow, experiment, metrics)
    model = mlflow.create_logged_model(experiment, name="model", source_run_id=run_id)
    mlflow.finalize_logged_model(model.model_id, "READY")
    return run_id


def best_of(**conf: Any) -> dict[str, Any]:
    result = run_dag("best_run", conf)
    assert result.state == "success"
    return dict(result.tasks["best"].xcom)


@with_both_stores
def test_the_best_child_of_this_parent_is_found(mlflow: Any, experiment: str) -> None:
    nan, inf = float("nan"), float("inf")
    parent, stranger = make_run(mlflow, experiment), make_run(mlflow, experiment)
    make_run(mlflow, experiment, {"loss": 0.1}, parent=stranger)
    make_run(mlflow, experiment, {"loss": 0.2}, parent=parent, status="FAILED")
    make_run(mlflow, experiment, {"loss": 0.2}, parent=parent, status="RUNNING")
    make_run(mlflow, experiment, {"loss": nan}, parent=parent)
    make_run(mlflow, experiment, {"other": 0.0}, parent=parent)
    old = make_run(mlflow, experiment, {"loss": 0.3}, parent=parent)
    make_run(mlflow, experiment, {"loss": 0.9}, parent=parent, **{"mlflow_projects.supersedes": old})
    second = make_run(mlflow, experiment, {"loss": 0.5}, parent=parent, start=2000)
    first = make_run(mlflow, experiment, {"loss": 0.5, "bad": nan}, parent=parent, start=1000, kind="a")
    make_run(mlflow, experiment, {"loss": inf}, parent=parent)
    found = best_of(parent_run_id=parent)
    run = mlflow.get_run(first)
    assert found == {
        "run_id": first,
        "experiment_id": experiment,
        "artifact_uri": run.info.artifact_uri,
        "status": "FINISHED",
        "run_name": run.info.run_name,
        "metrics": {"loss": 0.5, "bad": None},
        "mlflow_conn_id": "mlflow_default",
        "params": {"alpha": "0.5"},
        "metric": "loss",
        "value": 0.5,
    }
    same_start = [make_run(mlflow, experiment, {"loss": 0.4}, parent=parent, start=500) for _ in range(2)]
    assert best_of(parent_run_id={"run_id": parent})["run_id"] == min(same_start)
    assert best_of(parent_run_id=parent, direction="max")["value"] == 0.9
    assert best_of(parent_run_id=parent, filter_string="tags.kind = 'a'")["run_id"] == first
    assert second != first
    everything = best_of(experiment_name=mlflow.get_experiment(experiment).name)
    assert everything["value"] == 0.1, "without a parent the whole experiment counts"


def test_no_best_run_is_one_sentence_and_no_retry(mlflow: Any, experiment: str, store_uri: str) -> None:
    parent = make_run(mlflow, experiment)
    make_run(mlflow, experiment, {"loss": float("nan")}, parent=parent)
    for conf, words in (
        ({"parent_run_id": parent}, f"None of the 1 run(s) below the parent run {parent} is FINISHED with a number"),
        ({"parent_run_id": "f" * 32}, f"There is no run '{'f' * 32}' at {store_uri}"),
        ({"experiment_name": "no such"}, f"There is no experiment 'no such' at {store_uri}"),
        ({}, "Task 'best' has nowhere to search: give parent_run_id or experiment_name"),
        ({"parent_run_id": parent, "direction": "up"}, "direction must be 'min' or 'max', not 'up'"),
    ):
        result = run_dag("best_run", conf)
        assert result.tasks["best"].state == "failed"
        assert words in result.log
        assert "FailException" in result.log


def test_a_sweep_finds_its_own_best_run_and_survives_nan(tracking_uri: str) -> None:
    result = run_dag("sweep")
    runs = result.runs(tracking_uri)
    best = result.tasks["search.best"]
    assert result.state == "success"
    assert best.xcom["run_id"] == runs["train[1]"].info.run_id
    assert best.xcom["value"] == 0.1
    assert best.link == f"{tracking_uri}/#/experiments/{best.xcom['experiment_id']}/runs/{best.xcom['run_id']}"
    assert result.tasks["search.train[0]"].xcom["metrics"] == {"loss": None}


def chain(name: str, run_id: str, **conf: Any) -> DagRunResult:
    result = run_dag("model_chain", {"name": name, "run_id": run_id, "metric": "loss", **conf})
    assert result.state == "success"
    return result


def events(result: DagRunResult) -> dict[str, dict[str, Any]]:
    """Return the extras of a DAG run's asset events from Airflow's database."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(AssetEvent).where(AssetEvent.source_run_id == result.run_id)
    with create_session() as session:
        found = session.scalars(query.where(AssetEvent.source_dag_id == result.dag_id)).all()
        by_asset = {event.asset.name: dict(event.extra) for event in found}
    assert len(by_asset) == len(found)
    return by_asset


def champion(mlflow: Any, name: str) -> int:
    return int(mlflow.get_model_version_by_alias(name, "champion").version)


@with_both_stores
def test_a_model_is_registered_promoted_and_announced(
    mlflow: Any, experiment: str, name: str, store_uri: str
) -> None:
    run_id = make_model(mlflow, experiment, loss=0.5, bad=float("nan"))
    result = chain(name, run_id)
    version = mlflow.get_model_version(name, "1")
    registered = {
        "name": name,
        "version": 1,
        "run_id": run_id,
        "source": version.source,
        "uri": f"models:/{name}/1",
        "metrics": {"loss": 0.5, "bad": None},
        "mlflow_conn_id": "mlflow_default",
    }
    promoted = {
        **registered,
        "alias": "champion",
        "promoted": True,
        "metric": "loss",
        "value": 0.5,
        "previous_version": None,
        "previous_value": None,
    }
    assert (version.run_id, version.tags, version.description) == (run_id, {"team": "blue"}, "made by a test")
    assert sorted(mlflow.get_registered_model(name).aliases) == ["champion", "newest"]
    assert result.tasks["register"].xcom == registered
    assert result.tasks["promote"].xcom == promoted
    assert events(result) == {"TestModel": {**registered, "alias": "newest"}, "TestModel@champion": promoted}
    page = f"{store_uri}/#/models/{name.replace(' ', '%20')}/versions/1" if store_uri.startswith("http") else ""
    assert {task.model_link for task in result.tasks.values()} == {page}


def test_the_gate_lets_only_a_better_model_through(mlflow: Any, experiment: str, name: str) -> None:
    nan = float("nan")
    steps: list[tuple[dict[str, float], dict[str, Any], bool]] = [
        ({}, {}, True),  # nobody held the alias
        ({"loss": nan}, {}, False),  # no number never wins …
        ({"loss": 0.5}, {}, True),  # … and loses against any
        ({"loss": 0.5}, {}, False),  # equal is not better
        ({"loss": 0.6}, {}, False),
        ({"loss": 0.4}, {}, True),
        ({"loss": nan}, {}, False),
        ({"loss": 0.6}, {"direction": "max"}, True),
        ({"loss": 0.1}, {"metric": None}, True),  # without a gate
    ]
    holder: int | None = None
    value: float | None = None
    for number, (metrics, conf, moves) in enumerate(steps, start=1):
        result = chain(name, make_model(mlflow, experiment, **metrics), **conf)
        xcom = result.tasks["promote"].xcom
        gated = conf.get("metric", "loss") is not None
        assert (xcom["promoted"], xcom["version"], xcom["previous_version"]) == (moves, number, holder), number
        assert xcom["previous_value"] == (value if gated else None), number
        assert set(events(result)) == ({"TestModel", "TestModel@champion"} if moves else {"TestModel"}), number
        if moves:
            holder, value = number, metrics.get("loss")
        assert champion(mlflow, name) == holder
    again = chain(name, mlflow.get_model_version(name, "9").run_id)
    assert (again.tasks["promote"].xcom["promoted"], again.tasks["promote"].xcom["version"]) == (False, 9)
    assert set(events(again)) == {"TestModel"}, "the holder stays, so there is nothing to tell"


def test_a_retry_makes_no_second_version_and_still_announces(mlflow: Any, experiment: str, name: str) -> None:
    chain(name, make_model(mlflow, experiment, loss=0.9))
    result = chain(name, make_model(mlflow, experiment, loss=0.5), lost=True)
    assert {task.try_number for task in result.tasks.values()} == {2}
    assert [int(version.version) for version in mlflow.search_model_versions(f"name = '{name}'")] == [2, 1]
    promoted = result.tasks["promote"].xcom
    assert (promoted["promoted"], promoted["version"]) == (True, 2)
    assert (promoted["previous_version"], promoted["previous_value"]) == (1, 0.9)
    assert set(events(result)) == {"TestModel", "TestModel@champion"}


def test_bad_input_is_one_sentence_and_no_retry(mlflow: Any, experiment: str, name: str) -> None:
    run_id = make_model(mlflow, experiment)
    for conf, words in (
        ({"run_id": "no-run"}, "There is no run 'no-run' at "),
        ({"run_id": ""}, "Task 'register' was given no run"),
        ({"run_id": run_id, "model": "other"}, f"Run {run_id} ("),
        ({"run_id": run_id, "name": "a/b"}, "name"),
    ):
        result = run_dag("model_chain", {"name": name, **conf})
        assert (result.tasks["register"].state, result.tasks["register"].try_number) == ("failed", 1)
        assert words in result.log


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that grows by what each look for a version finds."""
    found: list[Any] = []
    find = WantedVersion.find

    def noted(wanted: WantedVersion, client: Any) -> Any:
        found.append(find(wanted, client))
        return found[-1]

    monkeypatch.setattr(WantedVersion, "find", noted)
    return found


@with_both_stores
@pytest.mark.parametrize("dag_id", ["wait_in_worker", "wait_in_triggerer"])
def test_a_version_is_waited_for(
    mlflow: Any, experiment: str, name: str, dag_id: str, store_uri: str, looks: list[Any]
) -> None:
    chain(name, make_model(mlflow, experiment, loss=0.5))
    run_id = make_model(mlflow, experiment, loss=0.4)

    def look_twice() -> None:
        """The second look begins now or later."""
        before = len(looks)
        wait(lambda: len(looks) > before + 1, "two looks")

    def make_it_later() -> None:
        source = f"{mlflow.get_run(run_id).info.artifact_uri}/model"
        look_twice()
        mlflow.create_model_version(name, source, run_id)
        look_twice()
        assert set(looks) == {None}
        mlflow.set_registered_model_alias(name, "champion", "2")

    with ThreadPoolExecutor() as pool:
        making = pool.submit(make_it_later)
        result = run_dag(dag_id, {"name": name, "alias": "champion", "newer_than": 1})
        making.result()
    found = result.tasks["wait"]
    assert result.state == "success"
    assert ("Pausing task as DEFERRED" in result.log) == (dag_id == "wait_in_triggerer")
    assert (found.xcom["version"], found.xcom["run_id"], found.xcom["metrics"]) == (2, run_id, {"loss": 0.4})
    assert found.model_link.startswith(store_uri) or not store_uri.startswith("http")
    at_once = run_dag(dag_id, {"name": name, "version": 1})
    assert at_once.tasks["wait"].xcom["version"] == 1
    assert "Pausing task as DEFERRED" not in at_once.log


@pytest.mark.parametrize("dag_id", ["wait_in_worker", "wait_in_triggerer"])
def test_a_roll_back_is_waited_for(mlflow: Any, experiment: str, name: str, dag_id: str, looks: list[Any]) -> None:
    for loss in (0.5, 0.4):
        chain(name, make_model(mlflow, experiment, loss=loss))
    mlflow.set_registered_model_alias(name, "champion", "2")

    def roll_back_later() -> None:
        wait(lambda: len(looks) > 1, "two looks")
        assert set(looks) == {None}
        mlflow.set_registered_model_alias(name, "champion", "1")

    with ThreadPoolExecutor() as pool:
        moving = pool.submit(roll_back_later)
        # As the XCom of a task that stands for a version.
        result = run_dag(dag_id, {"name": name, "alias": "champion", "other_than": {"name": name, "version": 2}})
        moving.result()
    assert result.tasks["wait"].xcom["version"] == 1


@pytest.mark.parametrize("dag_id", ["wait_in_worker", "wait_in_triggerer"])
def test_a_wrong_argument_of_the_sensor_is_named(mlflow: Any, dag_id: str) -> None:
    result = run_dag(dag_id, {"name": "x", "newer_than": "one"})
    assert result.tasks["wait"].state == "failed"
    assert "newer_than must be a version number" in result.log
    assert "other_than must be a version number" in run_dag(dag_id, {"name": "x", "other_than": "one"}).log
