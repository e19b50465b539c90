"""``artifact()`` and ``model()``: what a later step gets of an earlier one, also where one of them is mapped."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest

from tests.conftest import HOME, ROOT
from tests.support.dagruns import DagRunResult, run_dag

pytestmark = pytest.mark.usefixtures("airflow_db")


@pytest.fixture(scope="module")
def store(mlflow_server: str) -> str:
    return mlflow_server


def run(dag_id: str, store: str) -> DagRunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store)
        return run_dag(dag_id)


def params_of(result: DagRunResult, task: str, store: str) -> dict[str, str]:
    from mlflow import MlflowClient

    assert result.tasks[task].state == "success", task
    return dict(MlflowClient(store).get_run(result.tasks[task].xcom["run_id"]).data.params)


@pytest.fixture(scope="module")
def references(airflow_db: None, store: str) -> DagRunResult:
    return run("references", store)


def uri(result: DagRunResult, task: str, path: str) -> str:
    return f"{result.tasks[f'parent.{task}'].xcom['artifact_uri']}/{path}"


@pytest.mark.parametrize("index", range(3))
def test_in_a_mapped_group_the_step_of_the_same_index_is_meant(
    index: int, references: DagRunResult, store: str
) -> None:
    read = params_of(references, f"parent.group.read[{index}]", store)
    assert read["up"] == uri(references, f"group.make[{index}]", "x")
    assert read["text"] == uri(references, f"group.make[{index}]", "y")
    deep = params_of(references, f"parent.group.inner.deep[{index}]", store)
    assert deep["up"] == uri(references, f"group.make[{index}]", "z")
    assert deep["above"] == uri(references, "one", "w")


def test_a_mapped_step_and_a_mapped_group_are_lists_for_those_outside(references: DagRunResult, store: str) -> None:
    both = [uri(references, f"many[{n}]", "x") for n in range(2)]
    read = params_of(references, "parent.reads_many", store)
    assert ast.literal_eval(read["up"]) == ast.literal_eval(read["same"]) == both
    assert ast.literal_eval(params_of(references, "parent.group.mapped[1]", store)["up"]) == both
    after = params_of(references, "parent.after", store)
    assert ast.literal_eval(after["up"]) == [uri(references, f"group.make[{n}]", "x") for n in range(3)]


@pytest.mark.parametrize("index", range(2))
def test_a_mapped_reader_gets_what_one_step_left(index: int, references: DagRunResult, store: str) -> None:
    assert params_of(references, f"parent.mapped_reader[{index}]", store)["up"] == uri(references, "one", "x")


def test_a_logged_model_has_an_address(store: str) -> None:
    result = run("model_references", store)
    models = result.tasks["train"].xcom["models"]
    assert {name: bool(re.fullmatch(r"models:/m-\w+", uri)) for name, uri in models.items()} == {
        "model": True, "other": True,
    }  # fmt: skip
    used = params_of(result, "use", store)
    assert (used["model"], used["text"]) == (models["model"], models["other"])
    assert used["folder"] == f"{result.tasks['train'].xcom['artifact_uri']}/other", (
        "a folder of that name is there too"
    )
    assert params_of(result, "file", store)["up"] == f"{used['folder']}/file.txt"
    assert {result.tasks[f"wrong_{name}"].state for name in ("artifact", "file", "model")} == {"failed"}
    assert result.log.count("MLflow 3 keeps models beside them. Use train.model('model').") >= 2
    assert "Task 'train' logged no model 'modle'; its run has: 'model', 'other'." in result.log


def test_the_dag_of_the_page_on_mapping_does_what_the_page_says(store: str) -> None:
    page = (ROOT / "docs" / "mapping.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    folder = HOME / "dags" / "mapping"
    (folder / "dags").mkdir(parents=True)
    (folder / "dags" / "mapping.py").write_text(text, encoding="utf-8")
    (folder / "sample_projects").symlink_to(ROOT / "sample_projects")
    result = run("mapping", store)
    assert Counter(task.state for task in result.tasks.values()) == {"success": len(result.tasks)}
    both = [f"{result.tasks[f'sweep.many[{n}]'].xcom['artifact_uri']}/downstream" for n in range(2)]
    assert ast.literal_eval(params_of(result, "sweep.show_all", store)["text"]) == both
    for index in range(2):
        made = result.tasks[f"sweep.pair.make[{index}]"].xcom["artifact_uri"]
        assert params_of(result, f"sweep.pair.read[{index}]", store)["text"] == f"{made}/downstream"
        start, echo = (result.tasks[f"group.each.{name}[{index}]"].xcom for name in ("start_run", "echo"))
        assert start["run_name"] == f"each[{index}]"
        assert tags_of(echo, store)["mlflow.parentRunId"] == start["run_id"]


def tags_of(xcom: dict[str, str], store: str) -> dict[str, str]:
    from mlflow import MlflowClient

    return dict(MlflowClient(store).get_run(xcom["run_id"]).data.tags)
