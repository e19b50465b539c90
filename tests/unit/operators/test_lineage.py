"""What a step's end is to its outlets and to OpenLineage, and that neither can fail the task."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from mlflow_projects import MLflowProjectOperator, MLflowTaskOperator
from mlflow_projects.exceptions import TrackingUnavailableError
from mlflow_projects.hooks.asset_uris import dataset_of
from mlflow_projects.hooks.masking import mask
from mlflow_projects.tracking.client import LoggedDataset
from mlflow_projects.tracking.registry import ModelSource
from tests.support.attempts import SHELL
from tests.support.memory_tracking import MemoryClient
from tests.support.tracked import CONNECTION, TaskInstance, connected, context_of, prepared

SERVER = "mlflow://tracking.test"
RUN = "0123456789abcdef" * 2
needs_openlineage = "needs apache-airflow-providers-openlineage of requirements-dev.txt"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MemoryClient:
    return connected(monkeypatch)


class Step:
    """One task and one try of it."""

    def __init__(self, operator: Any, **arguments: Any) -> None:
        with DAG("dag", schedule=None):
            given = {"outlets": [Asset("made"), AssetAlias("alias")], "mlflow_conn_id": CONNECTION, **arguments}
            made = operator(task_id="step", **given)
        self.events: Any = defaultdict(lambda: SimpleNamespace(extra={}))
        self.context: Any = {**context_of(made.dag, TaskInstance("step")), "outlet_events": self.events}
        self.task = prepared(made, self.context)

    def run(self) -> Any:
        return self.task.execute(self.context)

    def complete(self) -> Any:
        return self.task.get_openlineage_facets_on_complete(None)

    @property
    def extra(self) -> dict[str, Any]:
        return dict(self.events[Asset("made")].extra)


def project(command: str = "true", **arguments: Any) -> Step:
    parameters = {"command": command, **arguments.pop("parameters", {})}
    return Step(MLflowProjectOperator, uri=str(SHELL), env_manager="local", parameters=parameters, **arguments)


def function(work: Any, **arguments: Any) -> Step:
    return Step(MLflowTaskOperator, python_callable=work, **arguments)


def named(datasets: Any) -> set[tuple[str, str]]:
    return {(one.namespace, one.name) for one in datasets}


def test_the_event_of_an_outlet_is_small_json_without_parameters(client: MemoryClient) -> None:
    def work(large: str) -> None:
        (run,) = client.runs
        client.log_metric(run.run_id, "loss", float("nan"))
        client.log_model(run)
        client.ensure_model("Wine")
        client.create_version("Wine", ModelSource("memory://x"), run.run_id, {}, "")

    step = function(work, op_args=["x" * 5000])
    step.run()
    (run,) = client.runs
    assert step.extra == {
        "run_id": run.run_id,
        "experiment_id": run.experiment_id,
        "artifact_uri": run.artifact_uri,
        "run_name": "step",
        "metrics": {"loss": None},
        "models": {"model": f"models:/{client.get_run(run.run_id).model_ids[0]}"},
        "model_versions": [{"name": "Wine", "version": 1, "uri": "models:/Wine/1"}],
        "mlflow_conn_id": CONNECTION,
    }
    assert len(json.dumps(step.extra, allow_nan=False)) < 1000
    assert [*step.events] == [Asset("made")]


def test_without_outlets_nothing_more_is_asked(client: MemoryClient) -> None:
    project(outlets=[AssetAlias("alias")]).run()
    assert "search_versions" not in client.calls


@pytest.mark.parametrize(("status", "error"), [(1, AirflowException), (99, AirflowSkipException)])
def test_who_failed_or_skipped_says_nothing_of_what_it_made(
    client: MemoryClient, status: int, error: type[Exception]
) -> None:
    step = project(f"exit {status}", skip_on_exit_code=99)
    with pytest.raises(error):
        step.run()
    assert step.extra == {}
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)
    told = step.task.get_openlineage_facets_on_failure(None) if status == 1 else step.complete()
    assert told.outputs == []
    assert told.run_facets["mlflow_run"].runId == client.runs[0].run_id


def test_versions_that_cannot_be_listed_fail_no_task(client: MemoryClient) -> None:
    def away(method: str, arguments: Any) -> None:
        if method == "search_versions":
            raise TrackingUnavailableError("gone")

    client.before = away
    step = project()
    step.run()
    assert step.extra["model_versions"] == []
    assert step.extra["run_id"] == client.runs[0].run_id


def test_a_step_loads_nothing_of_openlineage(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if "lineage" in name]:
        monkeypatch.delitem(sys.modules, name)
    project().run()
    assert [name for name in sys.modules if "lineage" in name and "compat" not in name] == []


def test_without_the_provider_nothing_happens(
    client: MemoryClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.extractors", None)
    step = project()
    assert step.task.get_openlineage_facets_on_start() is None
    step.run()
    calls = len(client.calls)
    assert step.complete() is None
    assert step.task.get_openlineage_facets_on_failure(None) is None
    assert len(client.calls) == calls


def test_an_error_inside_is_a_line_in_the_log(client: MemoryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)
    step = project()
    step.run()
    monkeypatch.setattr("mlflow_projects.operators.lineage.namespace_of", lambda settings: 1 / 0)
    lines: list[str] = []
    monkeypatch.setattr(
        type(step.task.log), "warning", lambda _, text, *values: lines.append(text % values), raising=False
    )
    assert step.complete() is None
    assert lines == ["OpenLineage is not told about this step: ZeroDivisionError: division by zero"]


def test_without_mlflow_the_rest_is_told(client: MemoryClient) -> None:
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)
    step = project(parameters={"raw": "s3://lake/raw"})
    step.run()

    def away(method: str, arguments: Any) -> None:
        raise TrackingUnavailableError("gone")

    client.before = away
    told = step.complete()
    assert named(told.inputs) == {("s3://lake", "raw")}
    assert told.outputs == []
    assert told.run_facets["mlflow_run"].runId == client.runs[0].run_id


def test_only_addresses_of_data_count_among_values(client: MemoryClient) -> None:
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)
    values = {
        "page": "https://data.test/x",
        "text": "see s3://lake/x",
        "path": "/data/x",
        "database": "sqlite:///x.db",
        "number": 3,
        "files": [f"mlflow-artifacts:/1/{RUN}/artifacts/a/b", f"/m/{RUN}/artifacts/a"],
        "model": "models:/Wine@champion",
        "secret": "s3://me:pass-word-9@lake/x",
    }
    step = project(parameters=values)
    expected = {("file", f"/m/{RUN}/artifacts/a"), ("s3://lake", "x")}
    assert named(step.task.get_openlineage_facets_on_start().inputs) == expected
    step.run()
    of_server = {(SERVER, f"mlflow-artifacts/1/{RUN}/artifacts/a"), (SERVER, "models/Wine")}
    assert named(step.complete().inputs) == expected | of_server


def test_an_address_has_one_name_whether_or_not_its_password_is_known() -> None:
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)
    mask("a-pass-word-of-the-lake")
    found = [dataset_of(f"s3://me:{word}@lake/x", None) for word in ("a-pass-word-of-the-lake", "another-pass-word")]
    assert named(found) == {("s3://lake", "x")}


def test_what_a_run_logged_may_have_any_form(client: MemoryClient) -> None:
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)

    def work() -> None:
        for name, source, schema in (
            ("url", '{"url": "https://data.test/a"}', '{"mlflow_colspec": [{"name": "x", "type": "long"}, 3]}'),
            ("odd", '{"uri": 3}', '{"mlflow_colspec": 3}'),
            ("none", "no JSON", "[]"),
        ):
            client.log_dataset(client.runs[0].run_id, LoggedDataset(name, "d", source, schema))

    step = function(work)
    step.run()
    told = step.complete().inputs
    assert named(told) == {("https://data.test", "a"), (SERVER, "datasets/odd"), (SERVER, "datasets/none")}
    (fields,) = (one.facets["schema"].fields for one in told if "schema" in one.facets)
    assert [(field.name, field.type) for field in fields] == [("x", "long")]


def test_a_run_of_others_is_told_and_nothing_made(client: MemoryClient) -> None:
    pytest.importorskip("airflow.providers.openlineage", reason=needs_openlineage)
    other = client.create_run("0", "other", 1, {})
    step = function(lambda: None, log_to=other.run_id)
    step.run()
    told = step.complete()
    assert step.extra == {}
    assert told.outputs == []
    assert told.run_facets["mlflow_run"].runId == other.run_id
