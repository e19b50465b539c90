"""The key of a step's content: whatever may change the result changes the key, and nothing else does."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_projects.attempt.reuse import Reuse
from mlflow_projects.backends.contract import Host, Job
from mlflow_projects.backends.local import LocalBackend
from mlflow_projects.backends.local.environments import environment_identity
from mlflow_projects.backends.registry import backend_class
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.operators.reuse_rules import is_abandoned, reuse_mode
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import Parameters
from mlflow_projects.project.spec import load_project
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.record import TaskIdentity
from mlflow_projects.tracking.reuse_key import ReuseKey

QUICK = settings(max_examples=50, deadline=None)
VALUES = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4)
PARTS = st.fixed_dictionaries({"a": VALUES, "b": st.text(max_size=4), "c": st.lists(st.text(max_size=3), max_size=3)})
MLPROJECT = """
name: x
python_env: python_env.yaml
entry_points:
  main:
    parameters:
      data: path
      text: {type: string, default: hello}
    command: "cat {data} {text}"
  other:
    parameters:
      data: path
      text: {type: string, default: hello}
    command: "cat {data} {text}"
"""
SAGEMAKER = {
    "role": "arn:aws:iam::123456789012:role/x", "s3_uri": "s3://bucket/x", "image_uri": "image:1",
    "region_name": "eu-west-1", "tracking_uri": "http://tracking.test",
}  # fmt: skip


@QUICK
@given(parts=PARTS, other=PARTS)
def test_two_keys_are_the_same_only_if_all_parts_are(parts: dict, other: dict) -> None:
    assert (ReuseKey(parts, "t").digest == ReuseKey(other, "t").digest) == (parts == other)


@QUICK
@given(values=VALUES)
def test_the_order_of_parameters_does_not_count(values: dict) -> None:
    backwards = dict(reversed(values.items()))
    assert ReuseKey({"x": values}, "t").digest == ReuseKey({"x": backwards}, "t").digest


@QUICK
@given(name=st.text(max_size=5), value=st.text(max_size=5), cut=st.integers(0, 10))
def test_names_and_values_do_not_run_into_each_other(name: str, value: str, cut: int) -> None:
    whole = name + value
    one, other = {name: value}, {whole[:cut]: whole[cut:]}
    assert (ReuseKey({"p": one}, "t").digest == ReuseKey({"p": other}, "t").digest) == (one == other)


class Content:
    """A project with an input file, and a job on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "project").mkdir()
        self.write("project/MLproject", MLPROJECT)
        self.write("project/python_env.yaml", "python: '3.11'\ndependencies: ['-r ../shared.txt']\n")
        self.write("shared.txt", "numpy==2.0\n")  # outside of the project's folder
        self.write("data.csv", "1,2\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def key(self, *, entry_point: str = "main", backend: str = "local", **changes: Any) -> str:
        project = load_project(self.folder / "project")
        elsewhere = "s3://bucket/data.csv"  # a training job sees no file of the worker
        data = changes.pop("data", elsewhere if backend == "sagemaker" else str(self.folder / "data.csv"))
        declared = {"data": data, "text": changes.pop("text", "hello")}
        job = Job(
            project=project,
            entry_point=project.entry_point(entry_point),
            parameters=Parameters(declared, changes.pop("extra", {})),
            variables={},
            workspace=self.folder,
            cache=Cache(self.folder / "cache"),
            attempt_id="attempt",
        )
        return key_of(replace(job, **changes), backend)


def key_of(job: Job, backend: str) -> str:
    task = TaskIdentity("dag", "run", "task", 1, "attempt")
    reuse = Reuse(client=None, log=print, task=task, look=True, wait=False, task_is_gone=lambda _: False)  # type: ignore
    reuse.identify(backend_class(backend)(Host(print)).prepare(job), backend, job)
    return reuse.key.digest


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Content:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # else boto3 asks the network for credentials
        monkeypatch.setenv(name, "x")
    return Content(tmp_path)


def test_each_part_counts(content: Content) -> None:
    on_sagemaker = {"backend": "sagemaker", "config": SAGEMAKER}
    keys = [
        content.key(),
        content.key(),  # twice the same
        content.key(text="hell0"),
        content.key(extra={"more": "1"}),
        content.key(entry_point="other"),
        content.key(env_manager="local"),
        content.key(env_manager="virtualenv"),
        content.key(**on_sagemaker),
        content.key(backend="sagemaker", config={**SAGEMAKER, "image_uri": "image:2"}),
        content.key(backend="sagemaker", config={**SAGEMAKER, "instance_count": 2}),
        content.key(backend="sagemaker", config={**SAGEMAKER, "channels": {"train": "s3://bucket/data"}}),
    ]
    for name, text in (("data.csv", "1,3\n"), ("shared.txt", "numpy==2.1\n"), ("project/more.py", "")):
        content.write(name, text)
        keys.append(content.key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1


@pytest.mark.parametrize("data", ["../data.csv", "ignored.csv"])
def test_an_input_whose_path_is_relative_to_the_project_counts(content: Content, data: str) -> None:
    content.write("project/.gitignore", "ignored.csv\n")
    keys = []
    for text in ("1", "2"):
        content.write("data.csv", text)
        content.write("project/ignored.csv", text)
        keys.append(content.key(data=data))
    assert keys[0] != keys[1]


def test_what_does_not_change_the_result_does_not_count(content: Content) -> None:
    expected = content.key(backend="sagemaker", config=SAGEMAKER)
    for setting in ({"max_run": 7}, {"use_spot_instances": True, "max_wait": 99999}, {"tags": {"team": "x"}}):
        assert content.key(backend="sagemaker", config={**SAGEMAKER, **setting}) == expected
    assert content.key(config={"grace_seconds": 9}) == content.key()


def test_with_the_workers_python_its_packages_count(content: Content, tmp_path: Path, monkeypatch: Any) -> None:
    import site

    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "site")])
    found = []
    for name in ("", "numpy-2.0.dist-info", "numpy-2.1.dist-info"):
        (tmp_path / "site" / name).mkdir(parents=True)
        found.append(json.dumps(environment_identity(load_project(tmp_path / "project"), "local")))
    assert len(set(found)) == 3
    assert ".".join(map(str, sys.version_info[:3])) in found[0]


@pytest.mark.parametrize(
    ("argument", "params", "expected"),
    [
        (False, {}, None),
        ("False", {"reuse": True}, None),
        (None, {}, None),
        (True, {}, (True, False)),
        ("True", {"reuse": True}, (True, False)),
        ("wait", {}, (True, True)),
        (True, {"reuse": False}, (False, False)),
        ("wait", {"reuse": "off"}, (False, False)),
        (True, {"reuse": None}, (True, False)),
        (True, {"reuse": "something of the user's own"}, (True, False)),
    ],
)
def test_the_argument_and_the_dag_runs_wish(argument: Any, params: dict, expected: Any) -> None:
    assert reuse_mode(argument, params) == expected


def test_another_argument_is_refused() -> None:
    with pytest.raises(ProjectError, match="reuse must be True, False or 'wait', not 'maybe'"):
        reuse_mode("maybe", {})


@pytest.mark.parametrize(
    ("state", "local", "remote"),
    [
        ("running", False, False),
        ("success", True, True),
        ("failed", True, True),
        ("up_for_retry", True, False),
        ("deferred", True, False),
        (None, True, False),
        ("unknown", False, False),
    ],
)
def test_airflow_says_who_is_lost(state: str | None, local: bool, remote: bool) -> None:
    tags = {"airflow.dag_id": "d", "airflow.run_id": "r", "airflow.task_id": "t", "airflow.map_index": "3"}
    asked = []

    def get_task_states(*arguments: Any, **named: Any) -> dict[str, dict[str, str | None]]:
        asked.append((arguments, named))
        return {} if state == "unknown" else {"r": {"t_3": state}}

    ti = SimpleNamespace(get_task_states=get_task_states)
    run = Run("id", "0", "t", "RUNNING", "", tags=tags)
    assert is_abandoned(run, ti) is local
    assert is_abandoned(replace(run, tags={**tags, "mlflow_projects.job": "{}"}), ti) is remote
    assert asked[0] == (("d",), {"map_index": 3, "task_ids": ["t"], "run_ids": ["r"]})
    assert is_abandoned(replace(run, tags={}), ti) is False


def test_a_key_has_parts_that_a_log_line_can_name(content: Content) -> None:
    from mlflow_projects.project.identity import path_hash, tree_hash

    task = TaskIdentity("dag", "run", "task", 1, "attempt", map_index=3)
    reuse = Reuse(client=None, log=print, task=task, look=True, wait=False, task_is_gone=lambda _: False)  # type: ignore
    project = load_project(content.folder / "project")
    data = str(content.folder / "data.csv")
    for value in (data, "s3://bucket/data.csv", str(content.folder / "none.csv")):
        job = Job(
            project=project, entry_point=project.entry_point("main"), variables={}, workspace=content.folder,
            parameters=Parameters({"data": value, "text": data}, {}), cache=Cache(content.folder / "cache"),
            env_manager="local",
        )  # fmt: skip
        launch = LocalBackend(Host(print)).prepare(job)
        reuse.identify(launch, "local", job)
        assert list(reuse.key.parts.items()) == [
            ("code", tree_hash(project.root)),
            ("entry point", "main"),
            ("parameters", {"data": value, "text": data}),
            ("input files", {"data": path_hash(Path(data))} if value == data else {}),
            ("environment", {"backend": "local", **launch.identity()}),
        ]
    assert reuse.key.task == '["dag", "task", 3]'
    assert reuse.tags()[reuse.key.tag] == "running"
