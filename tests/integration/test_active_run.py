"""Functions written without us, on MLflow itself: which run their calls reach, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from PIL import Image

from mlflow_projects.attempt.active_run import active_run
from mlflow_projects.attempt.function import FunctionAttempt
from mlflow_projects.attempt.stopping import AttemptKilledError
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.record import TaskIdentity
from mlflow_projects.tracking.server import TrackingSettings


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("store")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    yield MlflowClient(tracking_uri=uri)
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def ours(client: MlflowClient) -> str:
    """The run of the task."""
    return str(client.create_run("0", run_name="step").info.run_id)


def call(function: Any, run_id: str, client: MlflowClient) -> Any:
    variables = {
        "MLFLOW_TRACKING_URI": client.tracking_uri,
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": "0",
    }
    with active_run(run_id, variables):
        return function()


def metrics(client: MlflowClient, run_id: str) -> dict[str, float]:
    return dict(client.get_run(run_id).data.metrics)


def test_a_run_that_a_function_leaves_open_takes_nothing_of_the_next_one(client: MlflowClient, ours: str) -> None:
    def leaves_open() -> None:
        with mlflow.start_run():
            mlflow.log_metric("in_block", 1)
        mlflow.log_metric("after_block", 1)  # begins a run by itself

    call(leaves_open, client.create_run("0").info.run_id, client)
    assert mlflow.active_run() is None
    call(lambda: mlflow.log_metric("mine", 2), ours, client)
    assert metrics(client, ours) == {"mine": 2}


def test_a_run_that_was_open_before_takes_nothing_and_is_active_again(client: MlflowClient, ours: str) -> None:
    with mlflow.start_run(run_id=client.create_run("0").info.run_id) as other:
        call(lambda: mlflow.log_metric("mine", 2), ours, client)
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == other.info.run_id
    assert (metrics(client, ours), metrics(client, other.info.run_id)) == ({"mine": 2}, {})


def test_the_first_start_enters_the_run_also_after_an_end_and_another_experiment(
    client: MlflowClient, ours: str
) -> None:
    def function() -> str:
        mlflow.end_run()
        mlflow.set_experiment("of the function")
        with mlflow.start_run(run_name="named", tags={"team": "red"}):
            mlflow.log_metric("mine", 2)
        with mlflow.start_run() as second:
            mlflow.log_metric("second", 3)
        return str(second.info.run_id)

    second = call(function, ours, client)
    run = client.get_run(ours)
    assert (run.info.run_name, run.data.tags["team"], run.data.metrics) == ("named", "red", {"mine": 2})
    assert metrics(client, second) == {"second": 3}


def test_a_run_of_an_earlier_task_is_taken_up_by_its_id_and_then_left(client: MlflowClient, ours: str) -> None:
    earlier = client.create_run(client.create_experiment("earlier")).info.run_id

    def function() -> None:
        mlflow.set_experiment("later")
        with mlflow.start_run(run_id=earlier):
            mlflow.log_metric("accuracy", 1)
        mlflow.log_metric("mine", 2)

    call(function, ours, client)
    assert (metrics(client, earlier), metrics(client, ours)) == ({"accuracy": 1}, {"mine": 2})
    assert client.get_run(earlier).info.status == "FINISHED"


@pytest.mark.parametrize("ended", [False, True])
def test_the_run_itself_may_be_taken_up_by_its_id(client: MlflowClient, ours: str, ended: bool) -> None:
    def function() -> None:
        if ended:
            with mlflow.start_run():
                pass
        with mlflow.start_run(run_id=ours):
            mlflow.log_metric("mine", 2)

    call(function, ours, client)
    assert metrics(client, ours) == {"mine": 2}


@pytest.mark.parametrize("end", ["returns", "raises", "stopped"])
def test_what_mlflow_sends_by_threads_is_sent_while_there_is_the_login(
    client: MlflowClient, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Traces, images, and what is logged with ``synchronous=False``; not if Airflow stops the task: it has 5 s."""
    experiment = client.create_experiment(end, artifact_location=tmp_path.as_uri())
    run_id = client.create_run(experiment).info.run_id
    flushed: dict[str, Any] = {}

    def noting(name: str, real: Any) -> Any:
        def flush() -> None:
            flushed[name] = os.environ.get("MLFLOW_RUN_CONTEXT")  # one of the variables of the block
            real()

        return flush

    for name in ("flush_async_logging", "flush_trace_async_logging"):
        monkeypatch.setattr(mlflow, name, noting(name, getattr(mlflow, name)))

    def function() -> None:
        with mlflow.start_span("asked"):
            mlflow.log_metric("late", 3, synchronous=False)
        mlflow.log_image(Image.new("RGB", (2, 2)), key="picture", step=0)
        if end == "stopped":
            attempt.kill()
        if end == "raises":
            raise ValueError("no such luck")

    with contextlib.closing(connect(TrackingSettings(uri=uri))) as tracking:
        attempt = FunctionAttempt(tracking, TaskIdentity("dag", "run", "step", 1, "id"), print, str)

        def opened() -> Any:
            attempt.run = tracking.get_run(run_id)
            return attempt.run

        expected = {"returns": None, "raises": ValueError, "stopped": AttemptKilledError}[end]
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            attempt.call(opened, function)
    if end == "stopped":
        assert not flushed
        return
    assert len(flushed) == 2
    assert all(flushed.values())
    assert metrics(client, run_id) == {"late": 3}
    (trace,) = client.search_traces(locations=[experiment])
    assert [span.name for span in trace.data.spans] == ["asked"]
    assert client.list_artifacts(run_id, "images")
