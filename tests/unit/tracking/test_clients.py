"""Both tracking clients against real stores: the same answers, and the faults of a server in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run, TrackingClient, connect
from mlflow_projects.tracking.record import (
    Outcome,
    RunRecord,
    SourceTags,
    TaskIdentity,
    close_open_descendants,
    now,
    resolve_experiment,
)
from mlflow_projects.tracking.settings import TrackingSettings
from mlflow_projects.tracking.tree import run_files, run_tree
from tests.support.flaky import FlakyProxy, answer, lose_answer, refuse
from tests.support.servers import free_port


@pytest.fixture(scope="module", params=["http", "sqlite"])
def client(
    request: pytest.FixtureRequest, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TrackingClient]:
    folder = tmp_path_factory.mktemp("store")
    uri = mlflow_server if request.param == "http" else f"sqlite:///{folder}/mlflow.db"
    connected = connect(TrackingSettings(uri=uri))
    yield connected
    connected.close()


def record(client: TrackingClient, experiment_id: str, attempt: str = "a1", **changes: object) -> RunRecord:
    task = TaskIdentity("dag", "run", "task", 1, f"{attempt}-{now()}", url="http://airflow/task")
    return replace(RunRecord(client, experiment_id, "step", task, SourceTags(name="src")), **changes)  # type: ignore[arg-type]


def test_a_record_is_written_and_read_back(client: TrackingClient) -> None:
    experiment = resolve_experiment(client, "written/and read")
    assert resolve_experiment(client, "written/and read") == experiment
    parameters = {f"p{n}": "値" * n for n in range(250)}
    many_tags = {f"t{n}": str(n) for n in range(150)}
    opened = record(client, experiment, parameters=parameters, more_tags={**many_tags, "long": "x" * 9000})
    run = opened.open()
    assert opened.find().run_id == run.run_id  # type: ignore[union-attr]
    assert client.get_run(run.run_id).status == "RUNNING"
    client.log_batch(run.run_id, params={"p1": "the project's own"})
    opened.close(Outcome("FAILED", "why", "last words", 3))
    read = client.get_run(run.run_id)
    assert read.status == "FAILED"
    assert read.end_time is not None
    assert read.params == {**parameters, "p1": "the project's own"}
    assert many_tags.items() <= read.tags.items()
    assert len(read.tags["long"]) == 8000
    assert {"mlflow_projects.reason": "why", "mlflow_projects.output_tail": "last words"}.items() <= read.tags.items()


def test_a_metrics_history_is_read_in_order_and_bounded(client: TrackingClient) -> None:
    from mlflow import MlflowClient

    run = record(client, resolve_experiment(client, "histories")).open()
    writer = MlflowClient(client.settings.uri)
    for step in range(5):
        writer.log_metric(run.run_id, "loss", 1 / (step + 1), timestamp=1000 + step, step=step)
    writer.log_metric(run.run_id, "loss", float("nan"), timestamp=2000, step=5)
    points = client.metric_history(run.run_id, "loss")
    assert [(point.step, point.timestamp) for point in points] == [*((n, 1000 + n) for n in range(5)), (5, 2000)]
    assert [point.value for point in points[:2]] == [1.0, 0.5]
    assert points[5].value != points[5].value, "NaN"
    assert client.metric_history(run.run_id, "loss", limit=2) == points[:2]
    assert client.metric_history(run.run_id, "never logged") == []


def test_the_files_of_a_run_are_listed_and_bounded(client: TrackingClient) -> None:
    from mlflow import MlflowClient

    run = record(client, resolve_experiment(client, "files")).open()
    writer = MlflowClient(client.settings.uri)
    for path in ("a.txt", "model/b.txt", "model/deep/c.txt"):
        writer.log_text(run.run_id, path, path)
    assert [(file.path, file.size) for file in run_files(client, run.run_id)] == [
        ("a.txt", 5), ("model/b.txt", 11), ("model/deep/c.txt", 16),
    ]  # fmt: skip
    assert [file.path for file in run_files(client, run.run_id, limit=2)] == ["a.txt", "model/b.txt"]
    assert [file.path for file in run_files(client, run.run_id, max_folders=1)] == ["a.txt"]


def test_a_tree_holds_no_run_of_another_dag(client: TrackingClient) -> None:
    experiment = resolve_experiment(client, "trees")
    task = TaskIdentity("mine", f"run {now()}", "step", 1, "mine")
    step = record(client, experiment, task=task).open()
    nested = client.create_run(experiment, "nested", now(), {"mlflow.parentRunId": step.run_id})
    record(client, experiment, parent_run_id=step.run_id, task=replace(task, dag_id="theirs")).open()
    tree = run_tree(client, "mine", task.run_id)
    assert [(depth, node.run.run_id) for depth, node in tree[0].walk()] == [(0, step.run_id), (1, nested.run_id)]
    assert len(run_tree(client, "mine", task.run_id, limit=1, with_files=False)[0].children) == 0


def test_what_is_not_there_is_an_error_with_mlflows_code(client: TrackingClient) -> None:
    with pytest.raises(TrackingError) as caught:
        client.get_run("0" * 32)
    assert caught.value.code == "RESOURCE_DOES_NOT_EXIST"
    assert client.experiment_id("no such experiment") is None


def test_a_deleted_experiment_is_named_with_the_remedy(client: TrackingClient) -> None:
    from mlflow import MlflowClient

    MlflowClient(client.settings.uri).delete_experiment(resolve_experiment(client, "deleted"))
    with pytest.raises(TrackingError, match="'deleted' was deleted; restore it"):
        resolve_experiment(client, "deleted")


def test_stragglers_below_a_run_are_killed_lowest_first(client: TrackingClient) -> None:
    experiment = resolve_experiment(client, "stragglers")
    root = record(client, experiment, "root").open()
    child = record(client, experiment, "child", parent_run_id=root.run_id).open()
    grandchild = record(client, experiment, "grandchild", parent_run_id=child.run_id).open()
    finished = record(client, experiment, "finished", parent_run_id=root.run_id).open()
    client.update_run(finished.run_id, "FINISHED", now())
    below_finished = record(client, experiment, "below", parent_run_id=finished.run_id).open()
    stranger = record(client, experiment, "stranger").open()
    stopped: list[Run] = []
    closed = close_open_descendants(client, root, "the end", stopped.append)
    assert {run.run_id for run in stopped} == {run.run_id for run in closed}
    assert {run.run_id for run in closed} == {child.run_id, grandchild.run_id, below_finished.run_id}
    statuses = [client.get_run(run.run_id).status for run in (root, child, grandchild, below_finished, stranger)]
    assert statuses == ["RUNNING", "KILLED", "KILLED", "KILLED", "RUNNING"]
    ends = [client.get_run(run.run_id).end_time or 0 for run in (grandchild, child)]
    assert ends == sorted(ends)


def test_twenty_tasks_that_want_a_new_experiment_at_once_get_one(mlflow_server: str) -> None:
    name = f"wanted at once {time.time()}"

    def ask(_: int) -> str:
        return resolve_experiment(connect(TrackingSettings(uri=mlflow_server)), name)

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1


def test_a_new_embedded_store_is_made_once_by_many_processes(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from mlflow_projects.tracking.client import connect;"
        "from mlflow_projects.tracking.settings import TrackingSettings as S;"
        "from mlflow_projects.tracking.record import resolve_experiment;"
        "print(resolve_experiment(connect(S(uri=sys.argv[1])), 'x'))"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/new.db"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate()[0].splitlines()[-1] for process in started} == {"1"}
    assert not (tmp_path / "mlruns").exists()


@pytest.fixture
def proxy(mlflow_server: str) -> Iterator[FlakyProxy]:
    with FlakyProxy(mlflow_server) as running:
        yield running


def test_passing_trouble_is_waited_out(proxy: FlakyProxy) -> None:
    client = connect(TrackingSettings(uri=proxy.url))
    experiment = resolve_experiment(client, "flaky")
    run = record(client, experiment).open()
    proxy.faults["runs/get"] = [answer(503), refuse, answer(429, {"Retry-After": "1"}), answer(500)]
    start = time.monotonic()
    assert client.get_run(run.run_id).run_id == run.run_id
    assert time.monotonic() - start > 1, "Retry-After counts"
    assert proxy.requests.count("runs/get") == 5


def test_a_lost_answer_never_makes_a_second_run(proxy: FlakyProxy) -> None:
    client = connect(TrackingSettings(uri=proxy.url))
    experiment = resolve_experiment(client, f"lost answers {now()}")
    proxy.faults["runs/create"] = [lose_answer]
    opened = record(client, experiment)
    run = opened.open()
    assert [found.run_id for found in client.search_runs([experiment], "")] == [run.run_id]
    proxy.faults["runs/create"] = [refuse]  # here nothing was made, so it is asked again
    record(client, experiment, "a2").open()
    assert len(client.search_runs([experiment], "")) == 2


def test_a_server_that_stays_away_is_named_after_the_retries() -> None:
    client = connect(TrackingSettings(uri=f"http://127.0.0.1:{free_port()}", max_retries=1))
    with pytest.raises(TrackingUnavailableError, match=r"cannot be used: \[Errno 111\] Connection refused"):
        client.get_run("x")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (answer(401), "refuses a request without user or token"),
        (answer(200, body=b"<html>a login page</html>"), "not as an MLflow tracking server"),
        (answer(404, body=b"nothing here"), "HTTP 404"),
    ],
)
def test_a_lasting_refusal_is_not_repeated(proxy: FlakyProxy, fault: object, words: str) -> None:
    client = connect(TrackingSettings(uri=proxy.url))
    proxy.faults["runs/get"] = [fault]  # type: ignore[list-item]
    with pytest.raises(TrackingError, match=words):
        client.get_run("x")
    assert proxy.requests == ["runs/get"]


def test_the_credentials_go_into_the_header_and_nowhere_else(proxy: FlakyProxy) -> None:
    settings = TrackingSettings(uri=proxy.url, username="me", password="pass-word-1", token="")
    assert "pass-word-1" not in repr(settings)
    client = connect(settings)
    proxy.faults["runs/get"] = [answer(403)]
    with pytest.raises(TrackingError) as caught:
        client.get_run("x")
    assert "pass-word-1" not in str(caught.value)


def test_a_wrong_certificate_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"TLS files .*no-such\.pem"):
        connect(TrackingSettings(uri="https://mlflow.invalid", server_cert_path=str(tmp_path / "no-such.pem")))
