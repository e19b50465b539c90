from __future__ import annotations

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command, check_parameters, local_path_of
from mlflow_projects.project.spec import load_project

TEXT = """
entry_points:
  main:
    command: run {text} {alpha} {steps}
    parameters:
      text: string
      alpha: {type: float, default: 1e-5}
      steps: {type: int, default: 3}
      where: {type: uri, default: "s3://b"}
      data: {type: path, default: .}
"""


@pytest.fixture
def loaded(project):
    found = load_project(project(TEXT))
    return found, found.entry_point("main")


def test_declared_and_extra_parameters_are_told_apart(loaded):
    checked = check_parameters(*loaded, {"more": 1, "text": "a b", "alpha": 0.5})
    assert checked.declared == {"text": "a b", "alpha": 0.5, "steps": 3, "where": "s3://b", "data": "."}
    assert checked.extra == {"more": 1}


def test_the_record_holds_every_parameter_as_text(loaded):
    record = check_parameters(*loaded, {"text": "", "more": [1]}).as_record()
    assert record == {
        "text": "", "alpha": "1e-5", "steps": "3", "where": "s3://b", "data": ".", "more": "[1]",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no value for the parameter 'text'; pass it in the operator's 'parameters' or give it a default"),
        ({"text": 1, "steps": "abc"}, "parameter 'steps' must be of type int, not 'abc'"),
        ({"text": 1, "steps": None}, "parameter 'steps' must be of type int, not 'None'"),
        ({"text": 1, "alpha": "much"}, "parameter 'alpha' must be of type float, not 'much'"),
        ({"text": 1, "where": "b/c"}, "parameter 'where' must be a URI with a scheme such as s3://, not 'b/c'"),
        ({"text": 1, "where": "http://[b"}, "parameter 'where' is no valid uri"),
        ({"text": 1, "data": "//[b"}, "parameter 'data' is no valid path"),
        ({"text": "a\0"}, "parameter 'text' holds a NUL character; remove it"),
        ({"text": 1, "x": "a\0"}, "parameter 'x' holds a NUL character; remove it"),
        ({"text": 1, "a;b": 1}, "does not take the parameter name 'a;b'; use letters, digits"),
        ({"text": 1, "../b": 1}, "does not take the parameter name '../b'"),
    ],
)
def test_a_wrong_parameter_gives_one_sentence_with_file_entry_point_and_remedy(given, words, loaded):
    with pytest.raises(ProjectError) as caught:
        check_parameters(*loaded, given)
    assert str(caught.value).startswith(f"{loaded[0].file}, entry point 'main': ")
    assert words in str(caught.value)


def test_all_missing_parameters_are_named_at_once(project):
    found = load_project(project("entry_points: {main: {command: x, parameters: {a: string, b: int}}}"))
    with pytest.raises(ProjectError, match="'a', 'b'"):
        check_parameters(found, found.entry_point("main"), {})


def test_a_long_value_is_cut_in_the_message(loaded):
    with pytest.raises(ProjectError) as caught:
        check_parameters(*loaded, {"text": 1, "steps": "9x" * 10_000})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("command", "words"),
    [("x {b}", "KeyError: 'b'"), ("x {", "ValueError"), ("x {}", "IndexError"), ("x {a[b]}", "TypeError"),
     ("x {a.b}", "AttributeError")],
)  # fmt: skip
def test_a_command_that_cannot_be_filled_in_names_the_key(command, words, project):
    text = f"entry_points: {{main: {{command: '{command}', parameters: {{a: string}}}}}}"
    found = load_project(project(text))
    entry = found.entry_point("main")
    with pytest.raises(ProjectError) as caught:
        build_command(found, entry, check_parameters(found, entry, {"a": 1}), lambda *_: "")
    assert f"{found.file}: 'entry_points.main.command' cannot be filled in ({words}" in str(caught.value)
    assert "a literal brace is written twice" in str(caught.value)


@pytest.mark.parametrize("value", ["", "no/such", "file:", "file:///no/such"])
def test_a_path_that_is_not_there_is_named(value, loaded):
    checked = check_parameters(*loaded, {"text": 1, "data": value})
    with pytest.raises(ProjectError, match=f"Parameter 'data' is the path '{value}', but no such file"):
        build_command(*loaded, checked, lambda *_: "")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("a/b", "a/b"),
        ("/a b", "/a b"),
        ("file:///a%20b", "/a b"),
        ("file:/a", "/a"),
        ("file://host/a", None),
        ("s3://b/c", None),
        ("runs:/1/x", None),
    ],
)
def test_only_plain_paths_and_file_uris_are_local(uri, path):
    assert local_path_of(uri) == path
