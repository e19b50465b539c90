"""What stands in a template is never guessed to be a number, whether the DAG renders native objects or not."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from mlflow_projects import MLflowProjectOperator, MLflowRegisterModelOperator, MLflowStartRunOperator
from mlflow_projects.operators.model_base import as_version

PARAMS = {
    "tag": "1.10", "number": 1.5, "count": 3, "null": None, "hex": "0x10", "flag": True, "list": [1, "a"],
    "all": {"a": "007", "b": None}, "date": "2031",
}  # fmt: skip


numbers = itertools.count()


@pytest.fixture(params=[False, True], ids=["text", "native"])
def dag(request: pytest.FixtureRequest) -> DAG:
    return DAG("dag", schedule=None, render_template_as_native_obj=request.param)


def rendered(dag: DAG, **arguments: Any) -> MLflowProjectOperator:
    operator = MLflowProjectOperator(task_id=f"step{next(numbers)}", dag=dag, **{"uri": "project", **arguments})
    context: Any = {"params": PARAMS, "ds": "2026-01-31"}
    operator.render_template_fields(context)
    return operator


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("1.10", "1.10"),
        ("0x10", "0x10"),
        ("{not a template}", "{not a template}"),
        ("[1, 2]", "[1, 2]"),
        ("{{ params.tag }}", "1.10"),
        ("{{- params.tag -}}", "1.10"),
        ("{{ params.hex }}", "0x10"),
        ("{{ params.null }}", None),
        ("{{ params.number }}", 1.5),
        ("{{ params.count | int + 1 }}", 4),
        ("{{ params.flag }}", True),
        ("{{ params.list }}", [1, "a"]),
        ("v{{ params.tag }}", "v1.10"),
        ("{{ params.count }}{{ params.count }}", "33"),
        ("{{ params.count }}-{{ '}}' }}", "3-}}"),
        ("{% if params.flag %}007{% endif %}", "007"),
        ("{# nothing #}", ""),
        (" {{ params.count }}", " 3"),
        ("{{ ds }}", "2026-01-31"),
        ("{{ '1_000' }}", "1_000"),
    ],
)
def test_a_value_stays_what_the_author_or_the_form_gave(template: str, value: Any, dag: DAG) -> None:
    found = rendered(dag, parameters={"x": template, "nested": [template]})
    assert found.parameters == {"x": value, "nested": [value]}
    assert type(found.parameters["x"]) is type(value)
    assert rendered(dag, version=template).version == value


def test_a_template_of_the_whole_mapping_gives_the_mapping(dag: DAG) -> None:
    assert rendered(dag, parameters="{{ params.all }}").mapping("parameters") == {"a": "007", "b": None}


def test_the_text_of_a_mapping_is_read_where_the_dag_asks_for_it(dag: DAG) -> None:
    operator = rendered(dag, parameters='{"n": {{ params.count }}}')
    if dag.render_template_as_native_obj:
        assert operator.mapping("parameters") == {"n": 3}
    else:
        with pytest.raises(AirflowFailException, match="parameters rendered to str, not to a mapping"):
            operator.mapping("parameters")


def test_a_version_that_is_a_fraction_is_refused(dag: DAG) -> None:
    with pytest.raises(AirflowFailException, match=r"version is the number 1.5, .*; write it as text, in quotes\."):
        rendered(dag, version="{{ params.number }}")._version()
    assert rendered(dag, version="{{ params.count }}")._version() == "3"
    assert rendered(dag, version="{{ params.null }}")._version() is None
    with pytest.raises(AirflowFailException, match="version must be a version number"):
        as_version(1.5, "version")


def test_a_wrong_template_is_an_error(dag: DAG) -> None:
    for template in ("{{ 1 / 0 }}", "a{{ 1 / 0 }}"):
        with pytest.raises(ZeroDivisionError):
            rendered(dag, version=template)
    for template in ("{{ params.none_such }}", "a{{ params.none_such }}"):
        with pytest.raises(jinja2.UndefinedError):
            rendered(dag, version=template)
    with pytest.raises(jinja2.TemplateSyntaxError):
        rendered(dag, version="{{ params.")


@pytest.mark.parametrize("left", [None, [{"artifact_uri": "/a"}]])
def test_what_another_task_did_not_leave_is_a_sentence(left: Any, dag: DAG) -> None:
    first = MLflowProjectOperator(task_id="first", dag=dag, uri="project")
    second = MLflowProjectOperator(
        task_id="second", dag=dag, uri="project", parameters={"up": f"{first.artifact('x')}/y"}
    )
    context: Any = {"ti": SimpleNamespace(xcom_pull=lambda **_: left)}
    with pytest.raises(
        AirflowException, match=r"Task 'second': the text .* put that task upstream \(first >> second\)"
    ):
        second.render_template_fields(context)


def test_other_operators_render_alike(dag: DAG) -> None:
    context: Any = {"params": PARAMS}
    start = MLflowStartRunOperator(task_id="a", dag=dag, experiment_name="2031", tags={"v": "{{ params.tag }}"})
    register = MLflowRegisterModelOperator(
        task_id="b", dag=dag, name="{{ params.date }}", run_id="0123e45", alias="1.10"
    )
    for operator in (start, register):
        operator.render_template_fields(context)
    assert (start.experiment_name, start.tags) == ("2031", {"v": "1.10"})
    assert (register.name, register.run_id, register.alias) == ("2031", "0123e45", "1.10")
