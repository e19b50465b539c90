"""A step with reuse takes over an earlier result; read back from MLflow and from what the project counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.tracking_server import counting_proxy
from mlflow_projects.tracking import kinds_missing_from
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.server import TrackingSettings
from mlflow_projects.tracking.tree import run_tree
from mlflow_projects.ui import reading
from mlflow_projects.ui.sources import DagRunRecord
from tests.support.dagruns import DagRunResult, run_dag
from tests.support.reuse_chain import Chain

pytestmark = pytest.mark.usefixtures("airflow_db", "tracking_uri")


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def xcoms(result: DagRunResult) -> list[dict[str, Any]]:
    return [result.tasks[f"parent.{name}"].xcom for name in ("first", "second")]


def test_a_second_dag_run_takes_everything_over(chain: Chain, tracking_uri: str) -> None:
    before = chain.run()
    assert chain.ran == 2
    after = chain.run()
    assert chain.ran == 0
    runs, originals = after.runs(tracking_uri), before.runs(tracking_uri)
    for name in ("first", "second"):
        linked, original = runs[name], originals[name]
        assert linked.info.status == "FINISHED"
        assert linked.data.tags["mlflow.parentRunId"] == runs["parent"].info.run_id
        assert linked.data.tags["mlflow_projects.reused_from"] == original.info.run_id
        assert original.info.run_id in linked.data.tags["mlflow.note.content"]
        assert linked.data.params == original.data.params != {}
        assert str(linked.data.metrics) == str(original.data.metrics)  # NaN is among them
        assert original.data.metrics["length"] > 0
        xcom, earlier = after.tasks[f"parent.{name}"].xcom, before.tasks[f"parent.{name}"].xcom
        assert xcom.pop("linked_run_id") == linked.info.run_id
        assert linked.info.run_id in after.tasks[f"parent.{name}"].link
        assert xcom | {"metrics": {}} == earlier | {"metrics": {}}
        assert f"Reused run {original.info.run_id}" in after.log


def test_pages_and_tables_show_the_originals_files(chain: Chain, tracking_uri: str) -> None:
    original = chain.run().runs(tracking_uri)["first"].info.run_id
    after = chain.run()
    linked = after.runs(tracking_uri)["first"].info.run_id
    client = connect(TrackingSettings(uri=tracking_uri))
    (top,) = run_tree(client, "reuse_chain", after.run_id)
    assert [[file.path for file in node.artifacts] for node in top.children] == [["made/text.txt"]] * 2
    record = DagRunRecord(after.run_id, "success", 0, 0, 0)
    shown = {run["id"]: run for run in reading.tree(client, "reuse_chain", record)["runs"]}[linked]
    assert shown["reused"] == original
    assert shown["original_url"].endswith(original)
    assert reading.details(client, "reuse_chain", after.run_id, linked)["files"][0]["path"] == "made/text.txt"
    assert kinds_missing_from(client, linked) == kinds_missing_from(client, original) == ["code version"]


def test_a_reused_step_asks_little(chain: Chain, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = {name: chain.conf[name] for name in ("uri", "text", "counter")}
    assert run_dag("reuse_alone", conf).state == "success"
    with counting_proxy(tracking_uri) as (uri, calls):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert run_dag("reuse_alone", conf).state == "success"
    assert chain.ran == 1
    closing = {"POST experiments/search": 1, "POST runs/search": 2}  # when the DAG run has ended
    step = {
        "GET experiments/get-by-name": 1,
        "POST runs/search": 1,
        "GET artifacts/list": 1,
        "POST runs/create": 1,
        "POST runs/log-batch": 1,
        "POST runs/update": 1,
    }
    assert calls.requests(ours=True) == Counter(step) + Counter(closing)
    assert calls.connections[True] == 2


def test_a_changed_file_and_a_new_upstream_run_miss(chain: Chain, tracking_uri: str) -> None:
    chain.run()
    script = chain.project / "make.py"
    script.write_text(script.read_text() + "\n")
    result = chain.run()
    assert chain.ran == 2  # the second because the first is a new run
    assert "changed: code" in result.log
    assert "changed: code, parameters (upstream)" in result.log
    chain.run()
    assert chain.ran == 0
    chain.run(second="changed")
    assert chain.ran == 1


def test_the_dag_run_can_force_its_steps_to_run_and_their_results_are_taken_later(chain: Chain) -> None:
    chain.run()
    forced = chain.run(reuse=False)
    assert chain.ran == 2
    later = chain.run()
    assert chain.ran == 0
    assert [x["run_id"] for x in xcoms(later)] == [x["run_id"] for x in xcoms(forced)]


@pytest.mark.parametrize("gone", ["artifact", "run"])
def test_a_result_that_is_gone_is_made_again(chain: Chain, tracking_uri: str, gone: str) -> None:
    from mlflow import MlflowClient

    run_id = xcoms(chain.run())[1]["run_id"]
    client = MlflowClient(tracking_uri)
    if gone == "run":
        client.delete_run(run_id)
    else:
        experiment = client.get_run(run_id).info.experiment_id
        path = f"mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/made/text.txt"
        assert httpx.delete(f"{tracking_uri}/api/2.0/{path}").status_code == 200
    result = chain.run()
    assert chain.ran == 1
    if gone == "artifact":
        assert f"Run {run_id} has the same key, but lost made/text.txt; it is not reused." in result.log


def test_a_failed_result_is_none(chain: Chain) -> None:
    script = chain.project / "make.py"
    script.write_text(script.read_text() + "sys.exit(os.path.exists(counter + '.fail'))\n")
    flag = Path(f"{chain.counter}.fail")
    flag.write_text("")
    with pytest.raises(AssertionError):
        chain.run()
    flag.unlink()
    chain.run()
    assert chain.ran == 2


def test_a_wrong_argument_is_one_sentence(chain: Chain) -> None:
    with pytest.raises(AssertionError, match="reuse must be True, False or 'wait', not 'maybe'"):
        chain.run(mode="maybe")
