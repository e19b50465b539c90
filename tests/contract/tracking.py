"""Runs: written, read back, found, listed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.tracking import kinds_missing_from
from mlflow_projects.tracking.client import LoggedDataset, Run, now, quoted
from mlflow_projects.tracking.closing import close_open_descendants
from mlflow_projects.tracking.lookup import NOT_CLOSED
from mlflow_projects.tracking.record import Outcome, SourceTags, TaskIdentity, resolve_experiment
from mlflow_projects.tracking.run_files import run_files
from mlflow_projects.tracking.tree import run_tree
from tests.contract.store import Store


def test_a_record_is_written_and_read_back(store: Store) -> None:
    name = f"written/and read {store.name}"
    experiment = resolve_experiment(store.client, name)
    assert resolve_experiment(store.client, name) == experiment
    assert experiment in store.client.experiment_ids()
    parameters = {f"p{n}": "値" * n for n in range(250)}
    many_tags = {f"t{n}": str(n) for n in range(150)}
    opened = store.record(
        experiment_id=experiment, parameters=parameters, more_tags={**many_tags, "long": "x" * 9000}
    )
    run = opened.open()
    assert (run.status, run.name, run.experiment_id, run.end_time) == ("RUNNING", "step", experiment, None)
    assert opened.find().run_id == run.run_id  # type: ignore[union-attr]
    assert store.client.get_run(run.run_id).status == "RUNNING"
    store.client.log_batch(run.run_id, params={"p1": "the project's own"})
    opened.close(Outcome("FAILED", "why", "last words", 3))
    read = store.client.get_run(run.run_id)
    assert read.status == "FAILED"
    assert read.end_time is not None
    assert read.start_time is not None
    assert read.start_time <= read.end_time
    assert read.params == {**parameters, "p1": "the project's own"}
    assert many_tags.items() <= read.tags.items()
    assert len(read.tags["long"]) == 8000
    assert {"mlflow_projects.reason": "why", "mlflow_projects.output_tail": "last words"}.items() <= read.tags.items()


def test_datasets_that_a_run_logged_are_read(store: Store) -> None:
    run = store.run(None)
    assert store.client.logged_datasets(run.run_id) == []
    red = LoggedDataset("red", "d1", '{"uri": "s3://lake/red.csv"}', '{"mlflow_colspec": []}')
    white = LoggedDataset("white", "d2", "{}")
    store.writer.log_dataset(run.run_id, red)
    store.writer.log_dataset(run.run_id, white)
    assert sorted(store.client.logged_datasets(run.run_id), key=lambda one: one.name) == [red, white]


def test_a_parameter_never_changes_and_a_tag_does(store: Store) -> None:
    run = store.run(None)
    store.client.log_batch(run.run_id, params={"p": "1"}, tags={"t": "1"})
    store.client.log_batch(run.run_id, params={"p": "1"}, tags={"t": "2"})
    with pytest.raises(TrackingError, match="p") as caught:
        store.client.log_batch(run.run_id, params={"p": "2"})
    assert caught.value.code == "INVALID_PARAMETER_VALUE"
    read = store.client.get_run(run.run_id)
    assert (read.params["p"], read.tags["t"]) == ("1", "2")


def test_a_status_alone_leaves_the_end_as_it_was(store: Store) -> None:
    run = store.run(None)
    store.client.update_run(run.run_id, "FINISHED", 2_000_000_000_000)
    store.client.update_run(run.run_id, "RUNNING")
    read = store.client.get_run(run.run_id)
    assert (read.status, read.end_time) == ("RUNNING", 2_000_000_000_000)
    store.client.update_run(run.run_id, "KILLED", 2_000_000_000_001)
    read = store.client.get_run(run.run_id)
    assert (read.status, read.end_time) == ("KILLED", 2_000_000_000_001)


def test_a_search_reads_tags_and_statuses_in_the_order_asked_for(store: Store) -> None:
    client, moment = store.client, now()
    runs = [
        client.create_run(store.experiment, name, moment + n, {"colour": colour})
        for n, (name, colour) in enumerate([("a", "red"), ("b", "blue"), ("c", "red")])
    ]
    another = client.create_experiment(f"another of {store.name}")
    client.create_run(another, "elsewhere", moment + 9, {"colour": "red"})
    client.update_run(runs[0].run_id, "FINISHED", now())

    def names(query: str, **options: object) -> list[str]:
        return [run.name for run in client.search_runs([store.experiment], query, **options)]  # type: ignore[arg-type]

    assert names("") == ["a", "b", "c"]
    assert names("", newest_first=True) == ["c", "b", "a"]
    assert names("", newest_first=True, limit=1) == ["c"]
    assert names("tags.`colour` = 'red'") == names(f"tags.`colour` = {quoted('red')}") == ["a", "c"]
    assert names("tags.`colour` != 'red'") == ["b"]
    assert names("tags.`no such` != ''") == []
    assert names("attributes.status = 'FINISHED' and tags.`colour` = 'red'") == ["a"]
    assert names(NOT_CLOSED) == ["b", "c"]
    assert names("tags.colour = 'blue'") == ["b"]
    listed = ", ".join(quoted(run.run_id) for run in (runs[0], runs[2]))
    assert names(f"attributes.run_id IN ({listed}, 'none')") == ["a", "c"]
    assert names(f"tags.`colour` != '' and attributes.start_time >= {moment + 1}") == ["b", "c"]
    both = client.search_runs([store.experiment, another], "tags.`colour` = 'red'")
    assert [run.name for run in both] == ["a", "c", "elsewhere"]
    quote = "it's"
    client.log_batch(runs[1].run_id, tags={"quote": quote})
    assert names(f"tags.`quote` = {quoted(quote)}") == ["b"]


def test_a_deleted_run_is_read_but_neither_found_nor_written(store: Store) -> None:
    run = store.run(None)
    store.writer.delete_run(run.run_id)
    assert store.client.get_run(run.run_id).run_id == run.run_id
    assert store.client.search_runs([store.experiment], "") == []
    with pytest.raises(TrackingError, match="must be in the 'active' state"):
        store.client.log_batch(run.run_id, tags={"a": "b"})
    with pytest.raises(TrackingError, match="must be in the 'active' state"):
        store.client.update_run(run.run_id, "KILLED", now())


def test_a_metrics_history_is_read_in_order_and_bounded(store: Store) -> None:
    run = store.record().open()
    for step in range(5):
        store.writer.log_metric(run.run_id, "loss", 1 / (step + 1), timestamp=1000 + step, step=step)
    store.writer.log_metric(run.run_id, "loss", float("nan"), timestamp=2000, step=5)
    points = store.client.metric_history(run.run_id, "loss")
    assert [(point.step, point.timestamp) for point in points] == [*((n, 1000 + n) for n in range(5)), (5, 2000)]
    assert [point.value for point in points[:2]] == [1.0, 0.5]
    assert points[5].value != points[5].value, "NaN"
    assert store.client.metric_history(run.run_id, "loss", limit=2) == points[:2]
    assert store.client.metric_history(run.run_id, "never logged") == []


def test_the_last_value_of_a_metric_is_the_runs(store: Store) -> None:
    run = store.run(None, cost=0.5)
    store.writer.log_metric(run.run_id, "loss", 0.1, step=2, timestamp=5)
    store.writer.log_metric(run.run_id, "loss", 0.9, step=1, timestamp=6)
    assert store.client.get_run(run.run_id).metrics == {"cost": 0.5, "loss": 0.1}


def test_the_files_of_a_run_are_listed_and_bounded(store: Store) -> None:
    run = store.record().open()
    for path in ("a.txt", "model/b.txt", "model/deep/c.txt"):
        store.writer.log_text(run.run_id, path, path)
    assert [(file.path, file.size) for file in run_files(store.client, run.run_id)] == [
        ("a.txt", 5), ("model/b.txt", 11), ("model/deep/c.txt", 16),
    ]  # fmt: skip
    assert [(entry.path, entry.is_dir) for entry in store.client.list_artifacts(run.run_id, "model")] == [
        ("model/b.txt", False), ("model/deep", True),
    ]  # fmt: skip
    assert [file.path for file in run_files(store.client, run.run_id, limit=2)] == ["a.txt", "model/b.txt"]
    assert [file.path for file in run_files(store.client, run.run_id, max_folders=1)] == ["a.txt"]


def test_a_tree_holds_no_run_of_another_dag(store: Store) -> None:
    task = TaskIdentity("mine", f"run {store.name}", "step", 1, store.name)
    step = store.record(task=task).open()
    nested = store.client.create_run(store.experiment, "nested", now(), {"mlflow.parentRunId": step.run_id})
    store.record(parent_run_id=step.run_id, task=replace(task, dag_id="theirs")).open()
    tree = run_tree(store.client, "mine", task.run_id)
    assert [(depth, node.run.run_id) for depth, node in tree[0].walk()] == [(0, step.run_id), (1, nested.run_id)]
    assert len(run_tree(store.client, "mine", task.run_id, limit=1, with_files=False)[0].children) == 0


def test_what_is_not_there_is_an_error_with_mlflows_code(store: Store) -> None:
    with pytest.raises(TrackingError) as caught:
        store.client.get_run("0" * 32)
    assert caught.value.code == "RESOURCE_DOES_NOT_EXIST"
    assert store.client.experiment_id("no such experiment") is None
    with pytest.raises(TrackingError) as caught:
        store.client.create_run("987654321", "x", now(), {})
    assert caught.value.code == "RESOURCE_DOES_NOT_EXIST"


def test_an_experiment_is_made_once(store: Store) -> None:
    store.client.create_experiment(store.name)
    with pytest.raises(TrackingError) as caught:
        store.client.create_experiment(store.name)
    assert caught.value.code == "RESOURCE_ALREADY_EXISTS"


def test_text_that_a_database_refuses_is_written_all_the_same(store: Store) -> None:
    record = replace(store.record(more_tags={"odd": "a\0b"}), name="n\0m")
    run = record.open()
    store.client.log_batch(run.run_id, params={"p": "\ud83d|\0"}, tags={"late": "\0"})
    kept = store.client.get_run(run.run_id)
    assert (kept.name, kept.tags["odd"], kept.tags["late"], kept.params["p"]) == ("n␀m", "a␀b", "␀", "?|␀")


def test_a_deleted_experiment_is_named_with_the_remedy(store: Store) -> None:
    experiment = resolve_experiment(store.client, store.name)
    store.writer.delete_experiment(experiment)
    assert experiment not in store.client.experiment_ids()
    with pytest.raises(ProjectError, match="was deleted, so this attempt has no run in MLflow; restore it"):
        resolve_experiment(store.client, store.name)
    # An id may come from a parent run or from MLFLOW_EXPERIMENT_ID.
    with pytest.raises(ProjectError, match=f"restore --experiment-id {experiment}\\)"):
        replace(store.record(), experiment_id=experiment).open()
    with pytest.raises(ProjectError, match="There is no experiment with the id '987654321'"):
        replace(store.record(), experiment_id="987654321").open()


def test_an_experiment_that_is_deleted_under_a_run_is_named_when_it_ends(store: Store) -> None:
    record = replace(store.record(), experiment_id=resolve_experiment(store.client, store.name))
    record.open()
    store.writer.delete_experiment(record.experiment_id)
    with pytest.raises(ProjectError, match=r"was deleted, so the end of this attempt \(FINISHED\) is not in MLflow;"):
        record.close(Outcome("FINISHED"))


def test_stragglers_below_a_run_are_killed_lowest_first(store: Store) -> None:
    client = store.client
    root = store.record("root").open()
    child = store.record("child", parent_run_id=root.run_id).open()
    grandchild = store.record("grandchild", parent_run_id=child.run_id).open()
    finished = store.record("finished", parent_run_id=root.run_id).open()
    client.update_run(finished.run_id, "FINISHED", now())
    below_finished = store.record("below", parent_run_id=finished.run_id).open()
    stranger = store.record("stranger").open()
    stopped: list[Run] = []
    closed = close_open_descendants(client, root, "the end", stopped.append)
    assert {run.run_id for run in stopped} == {run.run_id for run in closed}
    assert {run.run_id for run in closed} == {child.run_id, grandchild.run_id, below_finished.run_id}
    states = [client.get_run(run.run_id).status for run in (root, child, grandchild, below_finished, stranger)]
    assert states == ["RUNNING", "KILLED", "KILLED", "KILLED", "RUNNING"]
    ends = [client.get_run(run.run_id).end_time or 0 for run in (grandchild, child)]
    assert ends == sorted(ends)


def test_the_kinds_that_a_run_lacks_are_read(store: Store) -> None:
    record = store.record(source=SourceTags("src", commit="abc"), parameters={"alpha": "1"})
    run = record.open()
    assert kinds_missing_from(store.client, run.run_id) == ["times", "params", "metrics", "artifacts"]
    record.close(Outcome("FINISHED", metrics={"loss": 0.0}))
    assert kinds_missing_from(store.client, run.run_id) == ["artifacts"]
    store.writer.log_model(run, "model")
    assert kinds_missing_from(store.client, run.run_id) == []
