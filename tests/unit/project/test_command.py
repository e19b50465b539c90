from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import (
    build_command,
    check_length,
    check_parameters,
    is_recordable,
)
from mlflow_projects.project.paths import local_path_of
from mlflow_projects.project.spec import EntryPoint, Parameter, load_project

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
    [("x {b}", "KeyError: 'b'"), ("x {", "ValueError"), ("x {}", "IndexError"),
     ("x {a[b]}", "{a[b]}: a value is text"), ("x {a.b}", "{a.b}: a value is text")],
)  # fmt: skip
def test_a_command_that_cannot_be_filled_in_names_the_key(command, words, project):
    text = f"entry_points: {{main: {{command: '{command}', parameters: {{a: string}}}}}}"
    found = load_project(project(text))
    entry = found.entry_point("main")
    with pytest.raises(ProjectError) as caught:
        build_command(found, entry, check_parameters(found, entry, {"a": 1}), lambda *_: "")
    assert f"{found.file}: 'entry_points.main.command' cannot be filled in ({words}" in str(caught.value)
    assert "a literal brace is written twice" in str(caught.value)


@pytest.mark.parametrize("value", ["", "no/such", "file:", "file:///no/such", "x" * 300, "x/" * 3000])
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


@pytest.mark.parametrize("command", ["eval python a.py", "command eval a", "ssh h python a.py", "cat <<END\nbody"])
def test_undeclared_parameters_never_become_shell(command, project):
    found = load_project(project(f"entry_points: {{main: {{command: {json.dumps(command)}}}}}"))
    entry = found.entry_point("main")
    with pytest.raises(ProjectError, match="takes no arguments, so the parameters 'k' would be lost"):
        build_command(found, entry, check_parameters(found, entry, {"k": "$(touch EVIL)"}), lambda *_: "")


@pytest.mark.parametrize(("name", "words"), [("x\n", "at its end"), ("x: y", "at its end")])
def test_the_name_of_an_undeclared_parameter_never_becomes_shell(name, words, project):
    command = 'f() {{ eval "./show $*"; }}; f'
    found = load_project(project(f"entry_points: {{main: {{command: {json.dumps(command)}}}}}"))
    entry = found.entry_point("main")
    with pytest.raises(ProjectError, match=words):
        build_command(found, entry, check_parameters(found, entry, {name: "./evil"}), lambda *_: "")


def test_many_undeclared_parameters_are_taken_up_to_a_size(project):
    found = load_project(project("entry_points: {main: {command: python a.py}}"))
    entry = found.entry_point("main")
    given = {f"値{number}": f"a {number}" for number in range(400)}
    built = build_command(found, entry, check_parameters(found, entry, given), lambda *_: "")
    assert shlex.split(built)[2:6] == ["--値0", "a 0", "--値1", "a 1"]
    more = {f"n{number}": "a b" for number in range(1001)}
    with pytest.raises(ProjectError, match=r"too many parameters that it does not declare \(1001\)"):
        build_command(found, entry, check_parameters(found, entry, more), lambda *_: "")


def test_half_a_character_is_refused(project):
    found = load_project(project("entry_points: {main: {command: x}}"))
    with pytest.raises(ProjectError, match="parameter 'k' holds half a character"):
        check_parameters(found, found.entry_point("main"), {"k": "\ud800"})


def test_a_command_is_filled_in_with_every_value_quoted(loaded):
    found, entry = loaded
    (found.root / "in").mkdir()
    entry = replace(entry, command="run {text} {alpha} {{x}} {data}")
    checked = check_parameters(found, entry, {"text": "a'b; c", "data": "in/../in", "--x y": "1 2", "last": 7})
    expected = f"""run 'a'"'"'b; c' 1e-5 {{x}} {found.root}/in --'--x y' '1 2' --last 7"""
    assert build_command(found, entry, checked, lambda *_: "") == expected


def test_a_relative_path_is_in_the_project_and_nowhere_else(loaded, tmp_path, monkeypatch):
    found, entry = loaded
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "params.yaml").touch()
    monkeypatch.chdir(tmp_path / "worker")
    checked = check_parameters(found, replace(entry, command="x {data}"), {"text": 1, "data": "params.yaml"})
    with pytest.raises(ProjectError, match=rf"'data' is the path 'params.yaml', but .* exists in {found.root};"):
        build_command(found, entry, checked, lambda *_: "")
    (found.root / "params.yaml").touch()
    assert build_command(found, replace(entry, command="x {data}"), checked, lambda *_: "") == (
        f"x {found.root}/params.yaml"
    )


def test_a_value_that_is_none_is_not_given(loaded):
    checked = check_parameters(*loaded, {"text": "a", "alpha": None, "more": None})
    assert (checked.declared["alpha"], checked.extra) == ("1e-5", {})
    with pytest.raises(ProjectError, match="no value for the parameter 'text'"):
        check_parameters(*loaded, {"text": None})


def test_a_default_is_the_authors_text_whatever_its_type(project):
    found = load_project(
        project("entry_points: {main: {command: 'x {n}', parameters: {n: {type: int, default: None}}}}")
    )
    assert check_parameters(found, found.entry_point("main"), {}).declared == {"n": "None"}


@pytest.mark.parametrize("default", ["//[b", "http://[b"])
def test_a_default_that_is_no_address_is_refused_before_anything_starts(default, project):
    text = f"entry_points: {{main: {{command: 'x {{p}}', parameters: {{p: {{type: path, default: '{default}'}}}}}}}}"
    found = load_project(project(text))
    with pytest.raises(ProjectError, match="parameter 'p' is no valid path"):
        check_parameters(found, found.entry_point("main"), {})


@pytest.mark.parametrize(
    ("command", "built"),
    [
        ("python x.py\n", "python x.py --n 7"),
        ("set -e\npython x.py \\\n  --a 1 \\\n\n", "set -e\npython x.py \\\n  --a 1 --n 7"),
        ("python x.py \\\n  --a 1 \\  \n", "python x.py \\\n  --a 1 \\  --n 7"),  # the space is a word
        ("python x.py a\\\\\n", "python x.py a\\\\ --n 7"),
        ("python x.py \\", "python x.py --n 7"),
        ("python x.py > log\n", "python x.py > log --n 7"),
        ("python x.py ", "python x.py  --n 7"),
        ("a | b", "a | b --n 7"),
    ],
)
def test_more_arguments_go_to_the_last_program_of_a_block(command, built, loaded):
    entry = EntryPoint("main", command)
    assert build_command(loaded[0], entry, check_parameters(loaded[0], entry, {"n": 7}), lambda *_: "") == built


@pytest.mark.parametrize(
    "command",
    ["cat <<EOF\nx\nEOF\n", "python x.py  # why", "python x.py;", "python x.py &", "(cd a; b)", "if a; then b; fi"],
)
def test_more_arguments_that_would_be_lost_are_refused(command, loaded):
    entry = EntryPoint("main", command)
    with pytest.raises(
        ProjectError, match=r"'entry_points.main.command' ends with .* the parameters 'n' would be lost"
    ):
        build_command(loaded[0], entry, check_parameters(loaded[0], entry, {"n": 7}), lambda *_: "")


def test_a_path_elsewhere_is_downloaded_and_a_local_one_may_be_put_elsewhere(project):
    text = "entry_points: {main: {command: 'x {a} {b} {c}', parameters: {a: string, b: path, c: path}}}"
    found = load_project(project(text))
    entry = found.entry_point("main")
    checked = check_parameters(found, entry, {"a": "s3://b/a", "b": "s3://b/b", "c": "/no such"})
    asked = []

    def download(uri, folder):
        asked.append((uri, folder))
        return "/got it"

    def localize(name, value):
        asked.append((name, value))
        return f"/mnt{value}"

    assert build_command(found, entry, checked, download, localize) == "x s3://b/a '/got it' '/mnt/no such'"
    assert asked == [("s3://b/b", "param_1"), ("c", "/no such")]


def test_linux_takes_less_than_128_kib_which_are_bytes(loaded):
    check_length(loaded[1], "x" * (128 * 1024 - 1))
    for command in ("x" * 128 * 1024, "é" * 64 * 1024):
        with pytest.raises(ProjectError) as caught:
            check_length(loaded[1], command)
        assert str(caught.value) == (
            "The command of entry point 'main' has 131072 bytes; Linux takes at most 131072. "
            "Put long values into a file and pass its path."
        )


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ("a", True), ("a/b", True), ("a b-c_d.e:f/1", True), ("é", True), ("k" * 250, True),
        ("k" * 251, False), ("", False), (".", False), ("..", False), ("..a", False), ("/a", False), ("a/", False),
        ("a//b", False), ("a/./b", False), ("a/../b", False), ("./a", False), ("a;b", False), ("a\nb", False),
    ],
)  # fmt: skip
def test_a_name_that_mlflow_takes(key, taken):
    assert is_recordable(key) is taken


def test_a_missing_value_is_said_in_one_sentence_for_a_folder_without_the_file_too(project):
    root = project(None)
    entry = EntryPoint("main", "x", {"a": Parameter("a"), "b": Parameter("b", default="")})
    with pytest.raises(ProjectError) as caught:
        check_parameters(load_project(root), entry, {})
    assert str(caught.value) == (
        f"{root}, entry point 'main': no value for the parameter 'a'; pass it in the operator's 'parameters' or "
        "give it a default in the MLproject."
    )


def test_names_and_values_are_cut_to_a_hundred_characters_where_they_are_said(loaded):
    for given, words in (
        ({"text": 1, "steps": "x" * 101}, f"not {'x' * 100!r}."),
        ({"text": 1, "where": "x" * 101}, f"not {'x' * 100!r}."),
        ({"text": 1, "where": "//[" + "x" * 101}, f": {'//[' + 'x' * 97!r}."),
        ({"text": 1, "k" * 251: 1}, f"the parameter name {'k' * 100!r}; use letters"),
        ({"text": 1, "k" * 251: "\0"}, f"parameter {'k' * 100!r} holds a NUL"),
    ):
        with pytest.raises(ProjectError) as caught:
            check_parameters(*loaded, given)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        'main() {{ eval "python train.py $*"; }}; main',
        """bash -c 'eval "x $*"' _""",
        'f() {{ bash -c "echo $2"; }}; f',
    ],
)
def test_an_undeclared_parameter_that_would_be_run_is_refused(command, project):
    found = load_project(project(f"entry_points: {{main: {{command: {command!r}}}}}".replace("\\'", "''")))
    entry = found.entry_point("main")
    with pytest.raises(ProjectError, match="the undeclared parameter 'lr' cannot be passed safely at its end"):
        build_command(found, entry, check_parameters(found, entry, {"lr": "$(touch EVIL)"}), lambda *_: "")
    assert build_command(found, entry, check_parameters(found, entry, {"lr": "1"}), lambda *_: "").endswith(" --lr 1")
