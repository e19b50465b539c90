"""A project's files cost bounded memory and time; what is odd in them is one sentence (issue 22, rows 5 and 6)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects import exceptions
from mlflow_projects.cli import check_rules
from mlflow_projects.cli import main as command_line
from mlflow_projects.cli.check_rules import lint_project
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import quoting, shell_syntax, yaml_files
from mlflow_projects.project.command import build_command, check_parameters
from mlflow_projects.project.python_environment import read_python_environment
from mlflow_projects.project.spec import EntryPoint, Parameter, Project, load_project

GROWING = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
MERGING = "".join(f"a{n}: &a{n} {{k{n}: 1, <<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30))
CHAIN = "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 500))
BOMBS = {
    "aliases": f"a0: &a0 x\n{GROWING}",
    "merge keys": f"a0: &a0 {{x: 1}}\n{MERGING}",
    "a long text many times": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n",
    "an alias within itself": "a: &a [*a]\n",
    "aliases within aliases": f"a0: &a0 x\n{CHAIN}",
    "many values": "a: [" + "1, " * 10_000 + "]\n",
    "deep lists": "a: " + "[" * 200,
    "deep mappings": "a: " + "{a: " * 50_000,
    "deep blocks": "- " * 50_000 + "a\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def sentence_of(error: pytest.ExceptionInfo[ProjectError], file: Path) -> str:
    text = str(error.value)
    assert str(file) in text
    assert "\n" not in text
    assert len(text) < 700
    return text


@pytest.mark.parametrize("name", BOMBS)
def test_a_yaml_bomb_is_refused_with_its_line_wherever_yaml_is_read(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_files, "MAX_NODES", 2000)  # to be quick; the next test knows the real one
    (root / "MLproject").write_text(BOMBS[name])
    with pytest.raises(ProjectError) as caught:
        load_project(root)
    text = sentence_of(caught, root / "MLproject:")
    assert "the file holds" in text
    assert "put data into other files" in text
    (found,) = lint_project(root).findings
    assert "the file holds" in found.message
    for kind, file in (("python_env", "e.yaml"), ("conda_env", "e.yaml")):
        (root / "MLproject").write_text(f"{kind}: {file}\n")
        (root / file).write_text(BOMBS[name])
        with pytest.raises(ProjectError) as caught:
            read_python_environment(load_project(root))
        assert "the file holds" in sentence_of(caught, root / file)


def test_what_people_write_is_within_the_limits(root: Path) -> None:
    steps = "".join(
        f"  step{n}:\n    parameters: {{<<: *all, n: {{type: int, default: {n}}}}}\n    command: x {{n}}\n"
        for n in range(200)
    )
    common = "".join(f"  p{n}: {{type: float, default: 0.{n}}}\n" for n in range(20))
    (root / "MLproject").write_text(f"common: &all\n{common}entry_points:\n{steps}")
    found = load_project(root)
    assert len(found.entry_points) == 200
    assert found.entry_points["step7"].parameters["p3"] == Parameter("p3", "float", 0.3)


def test_a_large_file_is_refused_before_it_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLproject", "conda.yaml", "python_env.yaml"):
        with (root / name).open("wb") as file:
            file.truncate(50 * 2**20)
    monkeypatch.setattr(yaml_files.os, "read", lambda *_: pytest.fail("it is read"))
    with pytest.raises(ProjectError, match=f"MLproject has more than {2**20} bytes"):
        load_project(root)
    (found,) = lint_project(root).findings
    assert "has more than" in found.message
    (root / "MLproject").unlink()
    with pytest.raises(ProjectError, match=r"python_env.yaml has more than"):
        read_python_environment(load_project(root))


def test_no_more_is_read_than_that_also_of_a_file_that_does_not_say_its_size(root: Path) -> None:
    with pytest.raises(ProjectError, match="has more than 10 bytes"):
        yaml_files.read_text(Path("/proc/self/environ"), max_bytes=10)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_pipe_or_device_is_not_waited_for(kind: str, root: Path) -> None:
    odd = root / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    else:
        odd.mkdir()
    with pytest.raises(ProjectError, match="is no file but a folder, pipe or device"):
        yaml_files.read_yaml(odd)
    (root / "python_env.yaml").write_text("dependencies: [-r odd]")
    with pytest.raises(ProjectError, match="is no file but a folder, pipe or device"):
        read_python_environment(load_project(root))
    if kind == "folder":
        return
    (root / "MLproject").symlink_to(odd)
    with pytest.raises(ProjectError, match="MLproject is no file but"):
        load_project(root)
    assert command_line(["check", "--lint-only", str(root)]) == 1


ODD = {
    "a day that is none": ("name: 2024-13-45", "'2024-13-45' is no timestamp: month must be in 1..12; write"),
    "an hour that is none": ("name: 2024-01-01 99:99:99", "in quotes"),
    "no number": ("name: !!int foo", "in quotes"),
    "nothing for a number": ("name: !!int ''", "in quotes"),
    "no fraction": ("name: !!float foo", "in quotes"),
    "no truth": ("name: !!bool foo", "'foo' is no bool; write what is no number or date in quotes"),
    "no time": ("name: !!timestamp foo", "'foo' is no timestamp; write what is no number or date in quotes"),
    "a number of 6,000 digits": ("name: " + "1" * 6000, "more than 300 digits; write it in quotes"),
    "a number of 400 digits": ("name: " + "1" * 400, "more than 300 digits; write it in quotes"),
    "a hexadecimal number of 6,000 digits": ("name: 0x" + "f" * 6000, "more than 300 digits; write it in quotes"),
    "a number of base 60": ("name: 1" + ":59" * 2000, "more than 300 digits; write it in quotes"),
    "a fraction of base 60": ("name: 1" + ":59" * 300 + ".5", "in quotes"),
    "half a character": ('name: "\\ud800"', "holds half a character"),
    "half a character as a key": ('entry_points: {"\\ud800": {command: x}}', "holds half a character"),
    "a NUL": ("name: a\0b", "mend this line"),
    "a long tag": (f"%TAG !e! !{'x' * 300}\n---\nname: !e!x a\n", "a tag has more than 200 characters; write"),
    "a number in a mapping": ('name: !!int {=: "1:59"}', "a mapping or list is no int; write the value by itself"),
    "a date in a list": ("name: !!timestamp [2024-01-01]", "a mapping or list is no timestamp; write"),
    "a large number as a key": ("1234567890123456: x", "a whole number as a key has more than 15 characters; write"),
    "a large number in a set": ("name: !!set {1234567890123456}", "a whole number as a key has more than 15"),
    "a long name of an alias": ("name: *" + "A" * 900_000, "undefined alias"),
    "a list as a key": ("? [a]\n: b\n", "mend this line"),
    "another encoding": ("name: é".encode("latin-1"), "save it as UTF-8"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_scalar_is_one_sentence_with_file_and_remedy(name: str, root: Path) -> None:
    content, remedy = ODD[name]
    data = content if isinstance(content, bytes) else content.encode()
    for file in ("MLproject", "python_env.yaml", "conda.yaml"):
        (root / file).write_bytes(data)
        with pytest.raises(ProjectError) as caught:
            read_python_environment(load_project(root))
        text = sentence_of(caught, root / file)
        assert remedy in text
        assert re.search(r":\d+: |UTF-8", text)
        (root / "MLproject").write_text("entry_points: {main: {command: x}}")
        if file != "MLproject":
            (root / file).unlink()
    (root / "MLproject").write_bytes(data)
    assert command_line(["check", "--lint-only", str(root)]) == 1


def test_a_long_name_of_a_file_is_cut(root: Path) -> None:
    (root / "MLproject").write_text("python_env: " + "A" * 900_000)
    with pytest.raises(ProjectError, match="does not exist") as caught:
        load_project(root)
    sentence_of(caught, root / "MLproject:")


def test_an_error_of_any_length_is_cut_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(ProjectError("x" * 10**6)) == "x" * 20_000
    read: list[str] = []
    monkeypatch.setattr(exceptions, "public_text", lambda text: read.append(text) or "")
    ProjectError("x" * 10**6)
    assert list(map(len, read)) == [40_000]


def test_a_name_commands_no_terminal(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(ProjectError("a\x1b[2J\x9b\r\0b\n\tc")) == "a\\x1b[2J\\x9b\\x0d\\x00b\n\tc"
    (root / "MLproject").write_text('entry_points: {"a\\e[2J\\nFAKE: fine": {command: 3}}')
    assert command_line(["check", "--lint-only", str(root)]) == 1
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "'entry_points.a\\x1b[2J\\nFAKE: fine.command' is no text" in said


def test_a_byte_order_mark_and_other_ends_of_lines_are_read_as_ever(root: Path) -> None:
    (root / "MLproject").write_bytes(b"\xef\xbb\xbfname: |\r\n  a\r\n  b\r\n")
    assert load_project(root).name == "a\nb\n"


@pytest.mark.parametrize("case", ["twice", "deep", "circle of links"])
def test_requirements_that_include_each_other_are_bounded(case: str, root: Path) -> None:
    (root / "python_env.yaml").write_text("dependencies: [-r r0.txt]")
    for n in range(60):
        (root / f"r{n}.txt").write_text(f"-r r{n + 1}.txt\n" * (2 if case == "twice" else 1))
    (root / "r60.txt").write_text("six\n")
    words = "put them into one"
    if case == "circle of links":
        (root / "r0.txt").unlink()
        (root / "r0.txt").symlink_to("r0.txt")
        words = "cannot be read"
    with pytest.raises(ProjectError, match=words):
        read_python_environment(load_project(root))


def build(command: str, given: dict[str, Any] | None = None, **defaults: Any) -> str:
    names = {**defaults, **(given or {})}
    parameters = {
        name: Parameter(name, "string", defaults.get(name)) for name in names if not name.startswith("extra")
    }
    project, entry_point = (
        Project(Path("/p"), Path("/p/MLproject"), None, {}),
        EntryPoint("main", command, parameters),
    )
    return build_command(project, entry_point, check_parameters(project, entry_point, given or {}), lambda *_: "")


FORMATS = {
    "{x:>999999999}": "is no width of at most 3 digits",
    "{x:.9999}": "is no width of at most 3 digits",
    "{x:{y}}": "is no width of at most 3 digits",
    "{x:{y:>9999}}": "is no width of at most 3 digits",
    "{x:>{y}{y}}": "is no width of at most 3 digits",
    "{x.__class__}": r"a value is text, without attributes and items; write \{x\}",
    "{x[0]}": r"a value is text, without attributes and items; write \{x\}",
    "{x:{y[0]}}": r"a value is text, without attributes and items; write \{y\}",
    "{x}" * 2000: "more than 1000 placeholders",
    "{x:" + "{y:" * 50 + "}" * 51: "cannot be filled in",
}


@pytest.mark.parametrize("command", FORMATS)
def test_a_format_makes_nothing_large_of_a_value(command: str, root: Path) -> None:
    with pytest.raises(ProjectError, match=FORMATS[command]) as caught:
        build(f"run {command}", {"x": "1", "y": "99999"})
    sentence_of(caught, Path("/p/MLproject"))
    parameters = "parameters: {x: {default: a}, y: {default: 1}}"
    (root / "MLproject").write_text(f"entry_points: {{main: {{command: 'run {command}', {parameters}}}}}")
    is_of_the_value = command in ("{x:{y}}", "{x:>{y}{y}}")
    assert command_line(["check", "--lint-only", str(root)]) == (0 if is_of_the_value else 1)


def test_formats_that_people_write_are_those_of_mlflow() -> None:
    values = {"x": "abc", "y": "7"}
    for command in ("{x:>12} {x:.2} {x!r} {x:{y}}", "{x:>999}"):
        assert build(command, values) == command.format(**values)


LONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "the command": ("x" * 128 * 1024, {}, "Linux takes at most 131072"),
    "many values": ("{x}" * 900, {"x": "y" * 20_000}, "at most 16777216 are taken"),
    "quotes": ("{x}" * 30, {"x": "'" * 1_000_000}, "at most 16777216 are taken"),
}


@pytest.mark.parametrize("name", LONG)
def test_a_command_that_would_fill_the_memory_is_refused(name: str) -> None:
    command, values, words = LONG[name]
    with pytest.raises(ProjectError, match=rf"{words}\. Put long values into a file"):
        build(command, values)


def test_a_training_job_may_get_more_than_linux_takes_in_one_argument() -> None:
    """Its runner reads the command from a file; what runs here is measured by check_length()."""
    assert len(build("run {x}", {"x": "a" * 500_000, **{f"extra{n}": "a" * 50_000 for n in range(10)}})) > 1_000_000


VALUES = {
    "a number of 6,000 digits": (10**6000, "cannot become text"),
    "a list of it": ([10**6000], "cannot become text"),
    "a large list": ([0] * 500_000, "has 1500000 characters; at most 1048576 are taken"),
    "half a character": ("\ud800", "holds half a character"),
    "a NUL": ("a\0", "holds a NUL character"),
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("name", VALUES)
def test_an_odd_value_is_one_sentence(name: str, declared: bool) -> None:
    value, words = VALUES[name]
    with pytest.raises(ProjectError, match=words) as caught:
        build("run {x}" if declared else "run", {"x" if declared else "extra": value})
    sentence_of(caught, Path("/p/MLproject"))


def test_a_value_within_itself_is_one_sentence() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ProjectError, match="'x' is nested too deeply; pass it as text"):
        build("run {x}", {"x": value})
    while value:  # Python would free it level by level, on the stack
        value = value.pop()


MANY = 100_000
SCRIPTS = {
    "parentheses": "(" * MANY,
    "substitutions": "$(" * (MANY // 2),
    "double parentheses": "$((" * (MANY // 3),
    "backquotes": "`" * MANY,
    "quotes": '"' * MANY,
    "here-documents": "cat <<A\n" * (MANY // 8),
    "pipes": "a | " * (MANY // 4),
    "functions": "f() " * (MANY // 4),
    "lists": "a && " * (MANY // 5),
    "commands": "a;" * (MANY // 2),
    "conditions": "if a; then " * (MANY // 11),
    "backslashes": "\\\n" * (MANY // 2) + "\\ x",
    "marks": "mlflowvalue" + "x" * MANY,
    "words": "env " * (MANY // 4),
    "words of a script": f"bash -c '{'env ' * (MANY // 4)}",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_too_long_to_be_judged_takes_plain_values_only(name: str, root: Path) -> None:
    end = "'" if name == "words of a script" else ""
    command = SCRIPTS[name] + " {x}" + end
    assert build(command, {"x": "plain"}) == command.format(x="plain")
    assert build(SCRIPTS[name] + end, {"extra": "plain"}).endswith(" --extra plain")
    assert build(command, x="it's") == command.format(x="'it'\"'\"'s'"), "the author's own value, as MLflow has it"
    for asked, values in ((command, {"x": "it's"}), (SCRIPTS[name] + end, {"extra": "it's"})):
        with pytest.raises(ProjectError) as caught:
            build(asked, values)
        assert "too long or nested too deeply to be judged" in sentence_of(caught, Path("/p/MLproject"))


def test_spaces_before_a_block_command_take_no_time_by_the_square() -> None:
    command = " " * 120_000 + "a \\\n"
    assert build(f"{command} \n\\\n", {"extra": "b"}) == " " * 120_000 + "a --extra b"


def test_lint_says_what_it_does_not_judge(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "a; " * 5000 + "echo {x}"
    (root / "MLproject").write_text(f"entry_points: {{main: {{command: '{command}', parameters: {{x: string}}}}}}")
    assert command_line(["check", "--lint-only", str(root)]) == 0
    said = capsys.readouterr().out
    assert (
        "nothing can be said of what stands in a command that is too long or nested too deeply to be judged" in said
    )


def test_lint_looks_into_so_many_commands_of_a_file(root: Path) -> None:
    """Each of them is small, and could take half a second."""
    body = "".join(f"  e{n:02}: {{command: '{'a; ' * 3000}'}}\n" for n in range(20))
    (root / "MLproject").write_text(f"entry_points:\n{body}")
    said = [found for found in lint_project(root).findings if "it is not looked into" in found.message]
    assert [found.line for found in said] == [*range(5, 22)]


def test_lint_reads_the_beginning_of_a_script_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "MLproject").write_text("name: x\npython_env: e.yaml\n")
    (root / "e.yaml").write_text("python: '3.11'\n")
    (root / "a.py").write_text("import mlflow\n" + "#" * 100)
    assert any("'mlflow' is missing" in found.message for found in lint_project(root).findings)
    (root / "a.py").write_text("#" * 100 + "\nimport mlflow\n")
    monkeypatch.setattr(check_rules, "MAX_BYTES", 100)
    assert not any("'mlflow' is missing" in found.message for found in lint_project(root).findings)


def test_many_places_times_many_words_are_not_judged() -> None:
    marks = [f"mark{n}z" for n in range(900)]
    (place, *_) = quoting.places(" ".join(["run", *marks[:250], "\nrun", *marks[250:500], "\nrun"]), marks[:500])
    with pytest.raises(quoting.PlaceError, match="too long or nested too deeply"):
        place.write("it's")


def test_a_long_value_in_a_short_command_is_judged() -> None:
    value = "it's $(x) " * 5000
    assert build("run {x}", {"x": value}) == "run '" + value.replace("'", "'\"'\"'") + "'"
    assert shell_syntax.shape("run '" + "$( x" * 20_000 + "'") == ["program", "command", "command_name"]
