"""Our command line against MLflow's own code, byte for byte."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.projects import _project_spec
from mlflow.tracking import artifact_utils
from mlflow.utils.validation import _validate_param

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.command import build_command, check_parameters, is_recordable
from mlflow_projects.project.spec import load_project


def main(command: str, **parameters: Any) -> str:
    """Return an MLproject text with one entry point."""
    return yaml.safe_dump({"entry_points": {"main": {"command": command, "parameters": parameters}}})


HOSTILE = {
    "single quote": "it's",
    "double quote": 'say "hi"',
    "both quotes": """'"'"'""",
    "command substitution": "$(touch PWNED)",
    "backticks": "`touch PWNED`",
    "variable": "$HOME ${PATH}",
    "newline": "first\nsecond; touch PWNED\n",
    "carriage return and tab": "a\r\tb",
    "japanese": "日本語のテキスト",
    "korean": "한국어 텍스트",
    "emoji": "🚀 é ß ½",
    "right-to-left": "\u202eevil",
    "leading dash": "-rf",
    "leading dashes": "--help",
    "empty": "",
    "space": " ",
    "inner spaces": "a  b   c",
    "semicolon": "; touch PWNED",
    "and": "&& touch PWNED &",
    "pipe": "| tee PWNED",
    "redirect": "> PWNED",
    "glob": "*?[a-z]",
    "backslash": "\\",
    "backslashes": "a\\b\\\\'",
    "braces": "{x} {{y}} {0} {}",
    "brace expansion": "{a,b}{1..3}",
    "percent": "%s %(x)s 100%",
    "tilde": "~root",
    "history": "!!",
    "comment": "# nothing",
    "jinja": "{{ ds }}",
}

# id: (MLproject text, entry point, parameters)
CASES: dict[str, tuple[str | None, str, dict[str, Any]]] = {
    f"hostile value: {name}": (
        main("run {a} --b={b}", a="string", b={"type": "string", "default": value}),
        "main",
        {"a": value},
    )
    for name, value in HOSTILE.items()
}
CASES |= {
    f"hostile extra parameter: {name}": (main("run"), "main", {"extra": value}) for name, value in HOSTILE.items()
}
CASES |= {
    f"extra key {key!r}": (main("run {a}", a="string"), "main", {"a": 1, key: "v"})
    for key in ("-x", "--long", "with space", "a.b", "a/b", "a:b", "日本", "it-s", "_", "7", "x" * 250)
}
CASES |= {
    f"default {text}": (
        f"entry_points: {{main: {{command: 'run {{a}}', parameters: {{a: {{default: {text}}}}}}}}}",
        "main",
        {},
    )
    for text in (
        "0", "-1", "007", "0x1F", "1_000", "1:30", "1.0", "1e-5", "1.0e-5", ".5", ".inf", "-.inf", ".nan", "false",
        "true", "no", "'yes'", "''", '"a\\nb"', "[1,a]", "[]", "{}", "2024-01-31", "2024-01-31T10:00:00Z",
        "12345678901234567890123", "!!str 5", "!!binary aGk=",
    )
}  # fmt: skip
CASES |= {
    "default mapping": (main("run {a}", a={"default": {"k": [1, None]}}), "main", {}),
    "default of type int": (main("run {a}", a={"type": "int", "default": 0}), "main", {}),
    "default of type float": (main("run {a}", a={"type": "float", "default": 1e-05}), "main", {}),
    "given float": (main("run {a}", a="float"), "main", {"a": 0.00001}),
    "given float as text": (main("run {a}", a="float"), "main", {"a": "0.00001"}),
    "given int": (main("run {a}", a="int"), "main", {"a": -3}),
    "given bool": (main("run {a}", a="string"), "main", {"a": True}),
    "given list": (main("run {a}", a="string"), "main", {"a": ["x", 1, None]}),
    "given empty beats default": (main("run {a}", a={"default": 1}), "main", {"a": ""}),
    "two parameters, both orders": (main("run {b} {a} {b}", a="string", b="string"), "main", {"b": 1, "a": 2}),
    "extras keep their order": (main("run"), "main", {"z": 1, "a": 2, "m": 3}),
    "parameter that the command does not use": (main("run", a="string"), "main", {"a": "x"}),
    "parameter name with a dash": (main("run {a-b}", **{"a-b": "string"}), "main", {"a-b": "x y"}),
    "parameter name with a space": (main("run {a b}", **{"a b": "string"}), "main", {"a b": "x"}),
    "parameter name in Japanese": (main("run {名}", 名="string"), "main", {"名": "値"}),
    "parameter named true": (
        "entry_points: {main: {command: 'run {True}', parameters: {on: {default: x}}}}", "main", {},
    ),
    "doubled braces": (main("awk '{{print $1}}' {f}", f="string"), "main", {"f": "x"}),
    "doubled braces around a name": (main("echo {{{a}}}", a="string"), "main", {"a": "x"}),
    "format width": (main("echo {a:>5}", a="string"), "main", {"a": "x"}),
    "format conversion": (main("echo {a!r}", a="string"), "main", {"a": "x.y"}),
    "inside of quotes, a value that needs none": (main("run \"{a}\" '--b={a}'", a="string"), "main", {"a": "s3://b/c"}),
    "between escaped quotes": (main("run x=\\'{a}\\' $(echo {a})", a="string"), "main", {"a": "x y"}),
    "unknown type": (main("x {a} {b} {c} {d}", a="str", b={"type": "bool"}, c={"type": ["int"]}, d={"type": None}),
                     "main", {"a": 1, "b": True, "c": "x", "d": "y z"}),
    "int whose default is none": (main("x {a}", a={"type": "int", "default": "None"}), "main", {}),
    "int whose default is empty": (main("x {a}", a={"type": "int", "default": ""}), "main", {}),
    "extras after a space": (main("run "), "main", {"a": 1}),
    "percent in the command": (main("date +%Y {a}", a="string"), "main", {"a": "%d"}),
    "shell in the command is the author's": (main("A=$(ls) && echo $A `id` {a}", a="string"), "main", {"a": "x"}),
    "folded command": (
        "entry_points:\n  main:\n    command: >\n      run\n      {a}\n    parameters: {a: string}\n",
        "main",
        {"a": "x"},
    ),
    "literal command": (
        "entry_points:\n  main:\n    command: |\n      one\n      two {a}\n    parameters: {a: string}\n",
        "main",
        {"a": "x"},
    ),
    "values that name the variable of the command's own text": (
        main("run {a} {b}", a="string", b="string"), "main",
        {"a": "BASH_COMMAND", "b": "the BASH_COMMAND", "k": "v w", "l": "$BASH_COMMAND"},
    ),
    "second entry point": ("entry_points: {main: {command: one}, other: {command: two}}", "other", {"x": 1}),
    "entry point with a script's name": ("entry_points: {run.py: {command: echo declared}}", "run.py", {}),
    "anchors": ("x: &p {a: {default: 1}}\nentry_points: {main: {command: 'run {a}', parameters: *p}}", "main", {}),
    "unknown keys": ("entry_points: {main: {command: run, description: d}}\nmaintainer: x", "main", {}),
    "uri parameter": (main("run {u}", u="uri"), "main", {"u": "s3://bucket/a b;c"}),
    "uri parameter of a file": (main("run {u}", u="uri"), "main", {"u": "file:///no/such"}),
    "uri default": (main("run {u}", u={"type": "uri", "default": "dbfs:/x"}), "main", {}),
    "path, relative": (main("run {p}", p="path"), "main", {"p": "data.csv"}),
    "path, relative with dots": (main("run {p}", p="path"), "main", {"p": "./sub/../data.csv"}),
    "path, with a space": (main("run {p}", p="path"), "main", {"p": "with space.csv"}),
    "path, a folder with a slash": (main("run {p}", p="path"), "main", {"p": "sub/"}),
    "path, a default": (main("run {p}", p={"type": "path", "default": "data.csv"}), "main", {}),
    "path, percent-encoded": (main("run {p}", p="path"), "main", {"p": "with%20space.csv"}),
    "path, absolute": (main("run {p}", p="path"), "main", {"p": "ROOT/data.csv"}),
    "path, file: URI": (main("run {p}", p="path"), "main", {"p": "file://ROOT/with%20space.csv"}),
    "path, file: URI with one slash": (main("run {p}", p="path"), "main", {"p": "file:ROOT/data.csv"}),
    "path, remote": (main("run {p}", p="path"), "main", {"p": "s3://bucket/model.pkl"}),
    "path, remote with hostile name": (main("run {p}", p="path"), "main", {"p": "s3://bucket/$(id) 'x'.pkl"}),
    "path, file: URI of another host": (main("run {p}", p="path"), "main", {"p": "file://host/data.csv"}),
    "path, the third of three": (
        main("run {a} {b} {c}", a="string", b="path", c="path"),
        "main",
        {"c": "http://h/c.txt", "b": "runs:/0123/b", "a": "x"},
    ),
    "script .py": (None, "train.py", {}),
    "script .sh": (None, "run.sh", {}),
    "script .R": (None, "train.R", {"alpha": "0 1"}),
    "script with a space": (None, "train it.py", {"alpha": "0 1"}),
    "script with a quote": (None, "it's.sh", {}),
    "script in a folder": (main("run"), "sub/deep.py", {"x": ""}),
}  # fmt: skip

FILES = {
    "data.csv": "1", "with space.csv": "1", "sub/deep.py": "", "train.py": "", "run.sh": "", "train it.py": "",
    "it's.sh": "", "train.R": "",
}  # fmt: skip


class Downloads:
    """Stand in for the download of remote artifacts, for both sides alike."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage
        self.asked: list[tuple[str, str]] = []

    def theirs(self, artifact_uri: str, output_path: str) -> str:
        self.asked.append((artifact_uri, Path(output_path).name))
        return str(Path(output_path) / artifact_uri.rpartition("/")[2])

    def ours(self, uri: str, folder: str) -> str:
        (self.storage / folder).mkdir()
        return self.theirs(uri, str(self.storage / folder))


def both(root: Path, entry_point: str, parameters: dict[str, Any], storage: Path, monkeypatch) -> tuple[str, str]:
    """Return (MLflow's command, our command) and check that both downloaded the same."""
    downloads = Downloads(storage), Downloads(storage)
    monkeypatch.setattr(artifact_utils, "_download_artifact_from_uri", downloads[0].theirs)
    commands = []
    for ours in (False, True):
        shutil.rmtree(storage, ignore_errors=True)
        storage.mkdir()
        if ours:
            project = load_project(root)
            entry = project.entry_point(entry_point)
            commands.append(
                build_command(project, entry, check_parameters(project, entry, parameters), downloads[1].ours)
            )
        else:
            entry = _project_spec.load_project(str(root)).get_entry_point(entry_point)
            commands.append(entry.compute_command(parameters, str(storage)))
    assert downloads[0].asked == downloads[1].asked
    return commands[0], commands[1]


@pytest.mark.parametrize("case", CASES)
def test_the_command_is_the_one_that_mlflow_builds(case, project, tmp_path, monkeypatch):
    text, entry_point, parameters = CASES[case]
    root = project(text, FILES)
    monkeypatch.chdir(root)
    given = {
        key: value.replace("ROOT", str(root)) if isinstance(value, str) else value
        for key, value in parameters.items()
    }
    theirs, ours = both(root, entry_point, given, tmp_path / "storage", monkeypatch)
    assert ours == theirs


def test_the_table_is_large_enough():
    assert len(CASES) >= 60


def test_a_download_goes_into_the_folder_of_the_parameters_position(project, tmp_path, monkeypatch):
    root = project(main("run {a} {b} {c}", a="string", b="path", c="path"))
    given = {"a": 1, "b": "s3://bucket/b.csv", "c": "s3://bucket/c.csv"}
    _, ours = both(root, "main", given, tmp_path / "storage", monkeypatch)
    assert ours == f"run 1 {tmp_path}/storage/param_1/b.csv {tmp_path}/storage/param_2/c.csv"


def test_a_path_that_is_a_link_stays_a_link(project, tmp_path, monkeypatch):
    root = project(main("run {p}", p="path"), {"data.csv": ""})
    (root / "link.csv").symlink_to("data.csv")
    theirs, ours = both(root, "main", {"p": str(root / "link.csv")}, tmp_path / "storage", monkeypatch)
    assert ours == theirs == f"run {root}/link.csv"


@pytest.mark.parametrize("shell", ["/bin/zsh", "", None])
def test_a_shell_script_runs_in_the_same_shell_as_with_mlflow(shell, project, tmp_path, monkeypatch):
    if shell is None:
        monkeypatch.delenv("SHELL", raising=False)
    else:
        monkeypatch.setenv("SHELL", shell)
    root = project(None, {"run me.sh": ""})
    theirs, ours = both(root, "run me.sh", {"k": "v w"}, tmp_path / "storage", monkeypatch)
    assert ours == theirs == f"{'bash' if shell is None else shell} 'run me.sh' --k 'v w'"


@pytest.mark.parametrize("name", ["MLproject", "mlproject", "mlPROJECT", "MLPROJECT"])
def test_the_file_may_be_written_in_any_case_of_letters(name, project, tmp_path, monkeypatch):
    root = project(main("run {a}", a="string"), name=name)
    theirs, ours = both(root, "main", {"a": "x y"}, tmp_path / "storage", monkeypatch)
    assert ours == theirs == "run 'x y'"


# --- the same, over generated values --------------------------------------------------------------

values = st.text(
    st.one_of(
        st.sampled_from("'\"`$(){}[]<>|&;*?!#~%\\\n\r\t -=,:/日한🚀é"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=30,
)
keys = st.text(st.sampled_from("ab.-_ :日7"), min_size=1, max_size=8).filter(is_recordable)
scalars = st.one_of(values, st.integers(), st.floats(), st.booleans(), st.lists(values, max_size=2))
names = st.sampled_from(["a", "b-c", "d e", "値"])
counter = itertools.count()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    defaults=st.dictionaries(names, scalars, max_size=4),
    given_values=st.dictionaries(st.one_of(names, keys), scalars, max_size=5),
    # Not the name of a program that runs its words, of which Hypothesis finds some in our own source.
    literal=values.filter(lambda text: not re.fullmatch(r"[a-z][\w.-]*", text) and "BASH_COMMAND" not in text),
)
def test_any_values_give_mlflows_command(defaults, given_values, literal, tmp_path, monkeypatch):
    root = tmp_path / f"generated-{next(counter)}"
    root.mkdir()
    literal = "run " + shlex.quote(literal).replace("{", "{{").replace("}", "}}")
    command = " ".join([literal, *(f"--x={{{name}}}" for name in defaults)])
    text = main(command, **{name: {"default": value} for name, value in defaults.items()})
    (root / "MLproject").write_text(text, encoding="utf-8")
    theirs, ours = both(root, "main", given_values, tmp_path / "storage", monkeypatch)
    assert ours == theirs


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values, key=keys, extra=values)
def test_bash_hands_any_value_to_the_program_unchanged(value, key, extra, project, tmp_path):
    project_ = load_project(project(main("printf '%s\\0' {v}", v="string")))
    entry = project_.entry_point("main")
    command = build_command(project_, entry, check_parameters(project_, entry, {"v": value, key: extra}), no_download)
    work = tmp_path / "empty"
    work.mkdir(exist_ok=True)
    printed = subprocess.run(["bash", "-c", command], cwd=work, capture_output=True, check=True).stdout
    assert printed.decode().split("\0") == [value, f"--{key}", extra, ""]
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_starts_nothing_in_bash(name, project, tmp_path):
    value = HOSTILE[name]
    root = project(main("printf '%s\\0' {a}", a="string"))
    project_ = load_project(root)
    entry = project_.entry_point("main")
    command = build_command(project_, entry, check_parameters(project_, entry, {"a": value, "k": value}), no_download)
    ran = subprocess.run(["bash", "-c", command], cwd=root, capture_output=True, check=True)
    assert ran.stdout.decode().split("\0") == [value, "--k", value, ""]
    assert [file.name for file in root.iterdir()] == ["MLproject"]


def test_a_hostile_key_never_reaches_the_shell(project):
    project_ = load_project(project(main("true")))
    with pytest.raises(ProjectError, match="does not take the parameter name"):
        check_parameters(project_, project_.entry_point("main"), {"x $(touch PWNED)": 1})


def no_download(uri: str, folder: str) -> str:
    raise AssertionError(f"{uri} must not be downloaded")


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("a.-_ :/日é\n$'"), max_size=6) | st.sampled_from(["x" * 250, "x" * 251]))
def test_a_key_is_recordable_exactly_where_mlflow_takes_it(key):
    try:
        _validate_param(key, "value")
        taken = True
    except Exception:
        taken = False
    assert is_recordable(key) == taken


# --- environments ---------------------------------------------------------------------------------

ENVIRONMENTS = {
    "nothing": ("name: x", []),
    "no MLproject file": (None, []),
    "python_env": ("python_env: my.yaml", ["my.yaml", "python_env.yaml", "conda.yaml"]),
    "python_env in a folder": ("python_env: sub/my.yaml", ["sub/my.yaml"]),
    "conda_env": ("conda_env: my.yaml", ["my.yaml", "python_env.yaml"]),
    "docker_env": ("docker_env: {image: a, volumes: ['/a:/b'], environment: [A, [B, c]]}", ["python_env.yaml"]),
    "default python_env file": ("name: x", ["python_env.yaml", "conda.yaml"]),
    "default conda file": ("name: x", ["conda.yaml"]),
    "default file, no MLproject file": (None, ["python_env.yaml"]),
    "empty python_env falls back": ("python_env:", ["conda.yaml"]),
    "empty conda_env falls back": ("conda_env: ''", []),
    "empty docker_env falls back": ("docker_env:", ["python_env.yaml"]),
    "docker_env without content falls back": ("docker_env: {}", []),
    "wrong suffix is no default": ("name: x", ["python_env.yml", "conda.yml"]),
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_the_environment_is_the_one_that_mlflow_finds(case, project):
    text, files = ENVIRONMENTS[case]
    root = project(text, dict.fromkeys(files, "python: '3.11'\n"))
    theirs, ours = _project_spec.load_project(str(root)), load_project(root)
    assert (str(ours.environment_file) if ours.environment_file else None) == theirs.env_config_path
    assert ours.docker_env == theirs.docker_env
    # MLflow says "python_env" also where there is none at all.
    assert (ours.environment_kind or "python_env") == theirs.env_type
    assert ours.name == theirs.name


# --- where MLflow raises --------------------------------------------------------------------------

RAISES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "broken YAML": ("entry_points: {main: [", "main", {}),
    "a tab": ("entry_points:\n\tmain: x", "main", {}),
    "a list": ("- a", "main", {}),
    "plain text": ("just text", "main", {}),
    "a tag that runs Python": ("x: !!python/object/apply:os.getcwd []", "main", {}),
    "two environments": ("python_env: a\nconda_env: b", "main", {}),
    "python_env file missing": ("python_env: no.yaml\n" + main("x"), "main", {}),
    "conda_env file missing": ("conda_env: no.yaml\n" + main("x"), "main", {}),
    "docker_env without image": ("docker_env: {volumes: []}", "main", {}),
    "docker volumes no list": ("docker_env: {image: a, volumes: '/a:/b'}\n" + main("x"), "main", {}),
    "docker volumes of numbers": ("docker_env: {image: a, volumes: [1]}\n" + main("x"), "main", {}),
    "docker environment no list": ("docker_env: {image: a, environment: {A: b}}\n" + main("x"), "main", {}),
    "docker environment of numbers": ("docker_env: {image: a, environment: [1]}\n" + main("x"), "main", {}),
    "docker_env a text": ("docker_env: image\n" + main("x"), "main", {}),
    "entry_points a list": ("entry_points: [main]", "main", {}),
    "entry point a text": ("entry_points: {main: python x.py}", "main", {}),
    "entry point empty": ("entry_points: {main: }", "main", {}),
    "parameters a list": ("entry_points: {main: {command: x, parameters: [a]}}", "main", {}),
    "parameter empty": ("entry_points: {main: {command: x, parameters: {a: }}}", "main", {}),
    "parameter a number": ("entry_points: {main: {command: x, parameters: {a: 1}}}", "main", {}),
    "no command": ("entry_points: {main: {parameters: {a: string}}}", "main", {"a": 1}),
    "command a list": ("entry_points: {main: {command: [a, b]}}", "main", {}),
    "unknown entry point": (main("x"), "other", {}),
    "entry point of another suffix": (main("x"), "other.txt", {}),
    "slash after a script's name": (main("x"), "train.py/", {}),
    "missing parameter": (main("x {a}", a="string"), "main", {}),
    "default null": (main("x {a}", a={"default": None}), "main", {}),
    "undeclared placeholder": (main("x {b}", a="string"), "main", {"a": 1}),
    "extra parameter as placeholder": (main("x {b}"), "main", {"b": 1}),
    "empty placeholder": (main("x {}"), "main", {}),
    "numbered placeholder": (main("x {0}", **{"0": "string"}), "main", {"0": 1}),
    "single brace": (main("awk '{ print }'"), "main", {}),
    "brace not closed": (main("x {a", a="string"), "main", {"a": 1}),
    "attribute": (main("x {a.b}", a="string"), "main", {"a": 1}),
    "text as index": (main("x {a[b]}", a="string"), "main", {"a": 1}),
    "wrong format": (main("x {a:d}", a="string"), "main", {"a": 1}),
    "script's name with braces": (main("x"), "tr{a}in.py", {}),
    "uri without scheme": (main("x {u}", u="uri"), "main", {"u": "/a/b"}),
    "uri that cannot be parsed": (main("x {u}", u="uri"), "main", {"u": "http://[x"}),
    "path that does not exist": (main("x {p}", p="path"), "main", {"p": "no/such"}),
    "path in the home folder": (main("x {p}", p="path"), "main", {"p": "~"}),
    "file: URI that does not exist": (main("x {p}", p="path"), "main", {"p": "file:///no/such"}),
    "path that cannot be parsed": (main("x {p}", p="path"), "main", {"p": "//["}),
    "Spark job with docker_env": ("databricks_spark_job: {python_file: a}\ndocker_env: {image: x}", "main", {}),
}


@pytest.mark.parametrize("case", RAISES)
def test_where_mlflow_raises_there_is_a_project_error(case, project, tmp_path):
    text, entry_point, parameters = RAISES[case]
    root = project(text, {"train.py": "", "tr{a}in.py": ""})
    with pytest.raises(Exception):  # noqa: B017  (MLflow raises many kinds)
        _project_spec.load_project(str(root)).get_entry_point(entry_point).compute_command(parameters, str(tmp_path))
    with pytest.raises(ProjectError):
        run_ours(root, entry_point, parameters)


STRICTER: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "format index": (main("echo {a[0]}", a="string"), "main", {"a": "xyz"}, "a value is text, without attributes"),
    "format of more than 3 digits": (main("x {a:>1000}", a="string"), "main", {"a": 1}, "at most 3 digits"),
    "int that is none": (main("x {a}", a="int"), "main", {"a": "abc"}, "must be of type int"),
    "int with a fraction": (main("x {a}", a="int"), "main", {"a": "1.5"}, "must be of type int"),
    "format conversion": (
        main("echo {a!r}", a="string"),
        "main",
        {"a": "$(id)"},
        "changes the value of parameter 'a'",
    ),
    "format width": (main("echo {a:.3}", a="string"), "main", {"a": "; id;"}, "changes the value"),
    "float that is none": (main("x {a}", a="float"), "main", {"a": "1,5"}, "must be of type float"),
    "blank command": ("entry_points: {main: {command: ' '}}", "main", {}, "command' is missing"),
    "unrecordable extra key": (main("x"), "main", {"a=b": 1}, "does not take the parameter name 'a=b'"),
    "key too long": (main("x"), "main", {"k" * 251: 1}, "at most 250"),
    "unrecordable declared key": (main("x", **{"a$": "string"}), "main", {"a$": 1}, r"'a\$'"),
    "NUL in a declared value": (main("x {a}", a="string"), "main", {"a": "a\0b"}, "'a' holds a NUL"),
    "NUL in an extra value": (main("x"), "main", {"k": "a\0b"}, "'k' holds a NUL"),
    "empty path (MLflow copies the working folder)": (main("x {p}", p="path"), "main", {"p": ""}, "no such file"),
    "script that is not there": (main("x"), "none.py", {}, "nor a file in"),
    "script outside": (main("x"), "../out.py", {}, "nor a file in"),
    "R script with a quote": (main("x"), "it's.R", {}, "name the file with letters"),
    "environment file that is a folder": ("python_env: sub\n" + main("x"), "main", {}, "does not exist"),
    "Spark job": ("databricks_spark_job: {}\n" + main("x"), "main", {}, "Databricks only"),
}


@pytest.mark.parametrize("case", STRICTER)
def test_ours_is_stricter_on_purpose(case, project, tmp_path, monkeypatch):
    text, entry_point, parameters, words = STRICTER[case]
    root = project(text, {"it's.R": "", "sub/x": ""})
    (tmp_path / "out.py").touch()
    monkeypatch.chdir(root)
    downloads = Downloads(tmp_path / "storage")
    downloads.storage.mkdir()
    monkeypatch.setattr(artifact_utils, "_download_artifact_from_uri", downloads.theirs)
    theirs = _project_spec.load_project(str(root)).get_entry_point(entry_point)
    assert theirs.compute_command(parameters, str(downloads.storage)).strip() or "blank" in case
    with pytest.raises(ProjectError, match=words):
        run_ours(root, entry_point, parameters)


KINDER: dict[str, tuple[str, str, dict[str, Any]]] = {
    "empty file": ("", "train.py", {}),
    "entry_points left empty": ("entry_points:\n", "train.py", {}),
    "parameters left empty": ("entry_points: {main: {command: python train.py, parameters: }}", "main", {}),
    "entry point named by a number": ("entry_points: {1: {command: python train.py}}", "1", {}),
}


@pytest.mark.parametrize("case", KINDER)
def test_ours_takes_what_makes_mlflow_stumble(case, project, tmp_path):
    text, entry_point, parameters = KINDER[case]
    root = project(text, {"train.py": ""})
    with pytest.raises(Exception):  # noqa: B017  (MLflow raises many kinds)
        _project_spec.load_project(str(root)).get_entry_point(entry_point).compute_command(parameters, str(tmp_path))
    assert run_ours(root, entry_point, parameters) == "python train.py"


def run_ours(root: Path, entry_point: str, parameters: dict[str, Any]) -> str:
    project = load_project(root)
    entry = project.entry_point(entry_point)
    return build_command(project, entry, check_parameters(project, entry, parameters), no_download)
