"""The model registry: register once, find again, move an alias."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.tracking.registration import (
    WantedVersion,
    addresses_of_models,
    find_source,
    move_alias,
    number,
    register,
    versions_of,
)
from tests.contract.store import Store


def test_a_logged_model_is_registered_once(store: Store) -> None:
    run = store.run(loss=0.5)
    made = register(store.client, store.name, run, "model", tags={"team": "blue"}, description="why")
    again = register(store.client, store.name, run, "model", tags={"team": "blue", "more": "1"}, description="else")
    assert (made.version, again.version, made.uri) == (1, 1, f"models:/{store.name}/1")
    [version] = store.versions()
    assert (version.run_id, version.status) == (run.run_id, "READY")
    assert version.tags == {"team": "blue", "more": "1"}
    assert register(store.client, store.name, store.run(), "model").version == 2


def test_the_versions_that_a_run_made_are_found(store: Store) -> None:
    run, other = store.run(), store.run()
    names = [store.name, f"{store.name} too"]
    for name in names:
        register(store.client, name, run, "model")
    register(store.client, store.name, other, "model")
    assert [found.uri for found in versions_of(store.client, run.run_id)] == [f"models:/{name}/1" for name in names]
    assert [found.version for found in versions_of(store.client, other.run_id)] == [2]


def test_the_newest_model_of_that_name_in_the_run_counts(store: Store) -> None:
    run = store.run(None)
    other = store.run()
    store.writer.log_model(run)
    newest = store.writer.log_model(run)
    store.writer.log_model(run, status="FAILED")
    store.writer.log_model(run, "another")
    assert find_source(store.client, run, "model").model_id == newest
    assert find_source(store.client, other, "model").model_id != newest


def test_the_models_of_a_run_have_addresses(store: Store) -> None:
    run = store.run(None)
    assert addresses_of_models(store.client, run) == {}
    store.writer.log_model(run)
    newest, other = store.writer.log_model(run), store.writer.log_model(run, "another")
    addresses = {"model": f"models:/{newest}", "another": f"models:/{other}"}
    assert addresses_of_models(store.client, store.client.get_run(run.run_id)) == addresses


def test_a_logged_model_that_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(TrackingError) as caught:
        store.client.logged_model(f"m-{'0' * 32}")
    assert caught.value.code == "RESOURCE_DOES_NOT_EXIST"


def test_a_model_among_the_artifacts_is_registered(store: Store) -> None:
    run = store.run(None)
    store.writer.log_text(run.run_id, "flavors: {}", "a/folder/MLmodel")
    assert register(store.client, store.name, run, "a/folder/").source == f"{run.artifact_uri}/a/folder"
    assert register(store.client, store.name, run, "a/folder").version == 1


def test_a_run_without_the_model_is_named(store: Store) -> None:
    run = store.run("another")
    store.writer.log_text(run.run_id, "no model", "model/file.txt")
    with pytest.raises(ProjectError, match=rf"Run {run.run_id} \(step\) has no model 'model'; log one"):
        register(store.client, store.name, run, "model")


@pytest.mark.parametrize("name", ["with/slash", "with:colon"])
def test_a_name_that_mlflow_refuses_needs_no_retry(store: Store, name: str) -> None:
    with pytest.raises(ProjectError, match="name"):
        register(store.client, name, store.run(), "model")


def test_aliases_move_and_what_is_missing_is_none(store: Store) -> None:
    assert store.client.version_by_alias(store.name, "champion") is None
    assert store.client.model_version(store.name, 1) is None
    for _ in range(2):
        register(store.client, store.name, store.run(), "model")
    assert store.client.version_by_alias(store.name, "champion") is None
    assert store.client.model_version(store.name, 3) is None
    for number_ in (1, 2):
        move_alias(store.client, store.name, "champion", number_)
        holder = store.client.version_by_alias(store.name, "champion")
        assert holder is not None
        assert (holder.version, holder.aliases) == (number_, ("champion",))
    with pytest.raises(ProjectError, match="alias"):
        move_alias(store.client, store.name, "v1", 1)


def test_models_are_found_with_their_aliases_and_newest_version(store: Store) -> None:
    query = f"name = '{store.name}'"
    assert store.client.search_models(query) == []
    store.client.ensure_model(store.name)
    [model] = store.client.search_models(query)
    assert (model.name, model.aliases, model.latest) == (store.name, {}, ())
    runs = [store.run(), store.run()]
    for run in runs:
        register(store.client, store.name, run, "model", tags={"team": "blue"})
    move_alias(store.client, store.name, "champion", 1)
    move_alias(store.client, store.name, "newest", 2)
    for found in (store.client.search_models(query), store.client.search_models()):
        [again] = [one for one in found if one.name == store.name]
        assert (again.aliases, again.created) == ({"champion": 1, "newest": 2}, model.created)
        [latest] = again.latest
        assert (latest.version, latest.run_id, latest.status) == (2, runs[1].run_id, "READY")
        assert latest.tags == {"team": "blue"}


def test_versions_are_found_by_a_tag(store: Store) -> None:
    for _ in range(3):
        register(store.client, store.name, store.run(), "model")
    store.client.set_version_tag(store.name, 2, "is it good: a-b_c", "yes")
    store.client.set_version_tag(store.name, 3, "is it good: a-b_c", "")
    store.client.set_version_tag(store.name, 1, "another", "yes")
    for only in (f"name = '{store.name}' and ", ""):
        found = store.client.search_versions(f"{only}tags.`is it good: a-b_c` LIKE '%'")
        tagged = {one.version: one.tags["is it good: a-b_c"] for one in found if one.name == store.name}
        assert tagged == {2: "yes", 3: ""}


def test_wanted_versions(store: Store) -> None:
    def found(**wanted: Any) -> int | None:
        version = WantedVersion(store.name, **wanted).find(store.client)
        return version.version if version else None

    assert found() is None
    for _ in range(11):
        register(store.client, store.name, store.run(), "model")
    move_alias(store.client, store.name, "champion", 2)
    assert found() == found(newer_than=10) == 11
    assert found(newer_than=11) is None
    assert (found(version=3), found(version=12)) == (3, None)
    assert (found(alias="champion"), found(alias="other")) == (2, None)
    assert (found(alias="champion", newer_than=1), found(alias="champion", newer_than=2)) == (2, None)
    assert (found(alias="champion", version=2), found(alias="champion", version=3)) == (2, None)
    assert (found(alias="champion", other_than=3), found(alias="champion", other_than=2)) == (2, None)
    assert (found(other_than=2), found(other_than=11)) == (11, None)


def test_only_real_numbers_are_compared(store: Store) -> None:
    run = store.run(None)
    for key, value in {"good": 1.0, "bad": float("nan"), "high": float("inf"), "low": float("-inf")}.items():
        store.writer.log_metric(run.run_id, key, value)
    metrics = store.client.get_run(run.run_id).metrics
    assert [number(metrics, key) for key in ("good", "bad", "high", "low", "none", None)] == [1.0, *[None] * 5]
    assert number({"x": sys.float_info.max}, "x") is None
