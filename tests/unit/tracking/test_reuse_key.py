"""Which finished run is a result that a step may take over, and whether all of it is still there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from mlflow_projects.exceptions import TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.client import Run, now
from mlflow_projects.tracking.reuse_key import (
    ARTIFACTS,
    ReuseKey,
    completion_tags,
    lost_artifacts,
    maker_of,
    with_models,
)
from tests.support.memory_tracking import MemoryClient

KEY = ReuseKey({"code": {"b": 1, "a": "ü"}, "image": None}, "dag.train")
DIGEST = hashlib.sha256(b'{"code":{"a":"\\u00fc","b":1},"image":null,"version":1}').hexdigest()
TAG = f"mlflow_projects.reuse.{DIGEST}"
PARTS = f"mlflow_projects.reuse_parts.{hashlib.sha256(b'dag.train').hexdigest()[:24]}"


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


def run_of(client: MemoryClient, name: str, start: int, state: str, status: Any = "FINISHED", **tags: str) -> Run:
    run = client.create_run("0", name, start, {**KEY.tags(state), **tags})
    if status != "RUNNING":
        client.update_run(run.run_id, status, now())
    return client.get_run(run.run_id)


def test_a_key_is_written_so_that_later_versions_find_it() -> None:
    assert KEY.digest == DIGEST
    assert KEY.tag == TAG
    code = hashlib.sha256(b'{"a":"\\u00fc","b":1}').hexdigest()[:12]
    image = hashlib.sha256(b"null").hexdigest()[:12]
    assert KEY.tags("running") == {TAG: "running", PARTS: json.dumps({"code": code, "image": image})}


def test_a_part_that_json_cannot_hold_is_no_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        _ = ReuseKey({"a": float("nan")}, "t").digest


def test_only_complete_and_finished_runs_are_results_the_newest_first(client: MemoryClient) -> None:
    for number in range(7):
        run_of(client, f"complete {number}", 100 + number, "complete")
    run_of(client, "at work", 200, "running", "RUNNING")
    run_of(client, "reused", 201, "reused")
    run_of(client, "failed", 202, "complete", "FAILED")
    client.create_run("0", "of another key", 300, ReuseKey({"code": 2}, "dag.train").tags("complete"))
    client.create_run(client.create_experiment("another"), "elsewhere", 300, KEY.tags("complete"))
    client.calls.clear()
    found = KEY.complete_runs(client, "0")
    assert [run.name for run in found] == [f"complete {number}" for number in (6, 5, 4, 3, 2)]
    every = KEY.every_run(client, "0")
    assert [run.name for run in every[:4]] == ["failed", "reused", "at work", "complete 6"]
    assert len(every) == 10
    assert client.calls == ["search_runs"] * 2


def test_of_very_many_runs_the_newest_hundred_are_looked_at(client: MemoryClient) -> None:
    for number in range(101):
        run_of(client, str(number), number, "running", "RUNNING")
    assert [run.name for run in KEY.every_run(client, "0")] == [str(number) for number in range(100, 0, -1)]


@pytest.mark.parametrize(
    ("state", "status", "ago", "complete", "at_work"),
    [
        ("complete", "FINISHED", 0, True, False),
        ("complete", "FAILED", 0, False, False),
        ("running", "RUNNING", None, False, True),
        ("running", "SCHEDULED", None, False, True),
        ("running", "FAILED", 0, False, False),
        ("running", "KILLED", None, False, False),
        # A project that wrote FINISHED may still work.
        ("running", "FINISHED", 60_000, False, True),
        ("running", "FINISHED", 300_000, False, True),
        ("running", "FINISHED", 900_000, False, False),
        ("running", "FINISHED", None, False, True),
        ("waiting", "RUNNING", None, False, False),
        ("reused", "FINISHED", 0, False, False),
    ],
)
def test_a_run_tells_whether_it_is_a_result_or_becomes_one(
    client: MemoryClient, state: str, status: Any, ago: int | None, complete: bool, at_work: bool
) -> None:
    run = run_of(client, "run", 1, state, "RUNNING")
    run = replace(run, status=status, end_time=None if ago is None else now() - ago)
    assert (KEY.is_complete(run), KEY.is_at_work(run)) == (complete, at_work)
    other = ReuseKey({}, "dag.train")
    assert (other.is_complete(run), other.is_at_work(run)) == (False, False)


def test_what_has_changed_since_the_tasks_last_run_is_named(client: MemoryClient) -> None:
    assert KEY.differences(client, "0") is None
    old = {"code": {"b": 1, "a": "ü"}, "image": "1", "gone": 1}
    client.create_run("0", "older", 1, KEY.tags("complete"))
    newest = client.create_run("0", "newest", 2, ReuseKey(old, "dag.train").tags("complete"))
    client.create_run("0", "another task", 3, ReuseKey({"code": 7}, "dag.other").tags("complete"))
    assert KEY.differences(client, "0") == (newest, ["image"])
    assert ReuseKey({**old, "new": 1, "code": 2}, "dag.train").differences(client, "0") == (newest, ["code", "new"])


@pytest.mark.parametrize("text", ["no JSON", "[]"])
def test_a_list_of_parts_that_cannot_be_read_tells_nothing(client: MemoryClient, text: str) -> None:
    client.create_run("0", "odd", 1, {PARTS: text})
    assert KEY.differences(client, "0") is None


# --- the artifacts of a result ---


def test_a_run_with_a_key_becomes_a_result_with_the_list_of_what_it_made(client: MemoryClient) -> None:
    run = run_of(client, "run", 1, "running", team="running")
    for path in ("b.txt", "model/a.bin"):
        client.log_text(run.run_id, path, path)
    model = client.log_model(run)
    client.log_model(client.create_run("0", "another", 1, {}))
    listed = {"files": {"b.txt": 5, "model/a.bin": 11}, "models": [model]}
    tags = completion_tags(client, run)
    assert tags == {TAG: "complete", ARTIFACTS: json.dumps(listed)}
    # As a search returns it: the models are in the tags only.
    assert with_models(replace(run, tags=tags, model_ids=())).model_ids == (model,)
    assert with_models(replace(run, tags={ARTIFACTS: "cut"}, model_ids=())).model_ids == ()


@pytest.mark.parametrize("state", ["waiting", "complete", "reused"])
def test_a_run_that_makes_no_result_gets_no_tags(client: MemoryClient, state: str) -> None:
    run = run_of(client, "run", 1, state)
    client.calls.clear()
    assert completion_tags(client, run) == {}
    assert client.calls == []


@pytest.mark.parametrize("method", ["list_artifacts", "logged_models"])
def test_a_run_whose_artifacts_cannot_be_listed_is_no_result(client: MemoryClient, method: str) -> None:
    run = run_of(client, "run", 1, "running")

    def before(called: str, _: Any) -> None:
        if called == method:
            raise TrackingUnavailableError("away")

    client.before = before
    assert completion_tags(client, run) == {}


def test_a_list_that_is_too_long_for_a_tag_is_cut(client: MemoryClient) -> None:
    run = run_of(client, "run", 1, "running")
    for number in range(60):
        client.log_text(run.run_id, "x", f"{number:03}{'y' * 97}")
    listed = json.loads(completion_tags(client, run)[ARTIFACTS])
    assert listed["models"] == []
    assert len(listed["files"]) == 37, "of 107 characters each: half of a tag, the rest is for the models"
    assert next(iter(listed["files"])) == f"000{'y' * 97}"
    for _ in range(101):
        client.log_model(run)
    assert len(json.loads(completion_tags(client, run)[ARTIFACTS])["models"]) == 100


def test_of_very_many_files_a_hundred_are_listed_from_twenty_folders(client: MemoryClient) -> None:
    run = run_of(client, "run", 1, "running")
    for number in range(120):
        client.log_text(run.run_id, "x", f"{number:03}")
    assert len(json.loads(completion_tags(client, run)[ARTIFACTS])["files"]) == 100
    run = run_of(client, "another", 1, "running")
    for number in range(30):
        client.log_text(run.run_id, "x", f"{number:03}/f")
    assert len(json.loads(completion_tags(client, run)[ARTIFACTS])["files"]) == 19


def noted(client: MemoryClient, files: dict[str, int], models: list[str]) -> Run:
    run = client.create_run("0", "result", 1, {ARTIFACTS: json.dumps({"files": files, "models": models})})
    client.log_text(run.run_id, "12345", "a.txt")
    client.log_text(run.run_id, "123", "model/b.bin")
    client.log_text(run.run_id, "", "model/empty")
    return run


def test_what_is_gone_or_has_another_size_is_named(client: MemoryClient) -> None:
    there = {"a.txt": 5, "model/b.bin": 3, "model/empty": 0}
    run = noted(client, {**there, "model/b.bin": 4, "c.txt": 1, "model": 0}, [])
    client.calls.clear()
    assert lost_artifacts(client, run) == ["model/b.bin", "c.txt", "model"]
    assert client.calls == ["list_artifacts", "list_artifacts"], "one request for each folder"
    assert lost_artifacts(client, noted(client, there, [])) == []


def test_models_are_looked_for_too(client: MemoryClient) -> None:
    made = client.create_run("0", "maker", 1, {})
    model = client.log_model(made)
    listed = {"files": {"a.txt": 1}, "models": [model, "m-gone"]}
    run = replace(made, tags={ARTIFACTS: json.dumps(listed)})
    client.calls.clear()
    assert lost_artifacts(client, run) == ["a.txt", "m-gone"]
    assert client.calls == ["list_artifacts", "logged_models"]
    client.calls.clear()
    assert lost_artifacts(client, replace(run, tags={ARTIFACTS: '{"files": {}, "models": []}'})) == []
    assert client.calls == []


@pytest.mark.parametrize(
    "text", [None, "no JSON", "[]", '{"files": {}}', '{"models": []}', '{"files": 1, "models": []}']
)
def test_a_result_without_a_list_that_can_be_read_is_lost(client: MemoryClient, text: str | None) -> None:
    run = client.create_run("0", "result", 1, {} if text is None else {ARTIFACTS: text})
    assert lost_artifacts(client, run) == ["the list of its artifacts"]


def test_an_original_that_is_gone_leaves_the_run_itself(client: MemoryClient) -> None:
    plain = run_of(client, "plain", 1, "complete")
    reused = run_of(client, "reused", 2, "reused", **{"mlflow_projects.reused_from": "f" * 32})
    assert maker_of(client, plain) == plain.run_id
    assert maker_of(client, reused) == reused.run_id

    def away(method: str, _: Any) -> None:
        raise TrackingUnavailableError("away")

    client.before = away
    with pytest.raises(TrackingError, match="away"):
        maker_of(client, reused)
