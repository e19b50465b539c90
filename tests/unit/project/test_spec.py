from __future__ import annotations

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.spec import EntryPoint, Parameter, SpecError, load_project


def test_a_project_is_read_whole(project):
    root = project(
        "name: demo\n"
        "python_env: env.yaml\n"
        "entry_points:\n"
        "  main:\n"
        "    command: python train.py {alpha} {data}\n"
        "    parameters:\n"
        "      alpha: {type: float, default: 0.1}\n"
        "      data: path\n",
        {"env.yaml": "python: '3.11'"},
    )
    found = load_project(root)
    assert (found.name, found.root, found.file) == ("demo", root, root / "MLproject")
    assert (found.environment_kind, found.environment_file) == ("python_env", root / "env.yaml")
    main = found.entry_point("main")
    assert main.command == "python train.py {alpha} {data}"
    assert list(main.parameters.values()) == [Parameter("alpha", "float", 0.1), Parameter("data", "path", None)]


def test_a_folder_without_the_file_runs_its_scripts(project):
    found = load_project(project(None, {"train.py": ""}))
    assert found.file is None
    assert found.entry_point("train.py").command == "python train.py"


# id: (MLproject text, what the sentence says; FILE stands for the file's path)
BROKEN = {
    "YAML": ("name: x\nentry_points: {main: [a\n\n", "FILE:2: not valid YAML", "mend this line"),
    "a quote without end": (
        "name: x\nentry_points:\n  main: 'y\n\nx: 1\n",
        "FILE:3: not valid YAML",
        "mend this line",
    ),
    "a key without colon": ("name: x\nentry_points\nx: 1\n", "FILE:2: not valid YAML", "mend this line"),
    "a wrong indentation": ("a:\n  b: 1\n c: 2\nd: 3\n", "FILE:3: not valid YAML", "mend this line"),
    "a tab": ("name: x\nentry_points:\n\tmain: y\n", "FILE:3: not valid YAML", "mend this line"),
    "a Python tag": ("x: !!python/name:os.system\n", "FILE:1: not valid YAML", "mend this line"),
    "an alias without anchor": ("a: 1\nb: *c\n", "FILE:2: not valid YAML", "mend this line"),
    "a control character": ("name: \x01\n", "FILE", "not valid YAML"),
    "half a character": ('a: {b: ["\\ud83d x"]}', "holds half a character", "write it as it is"),
    "a number of 5000 digits": (
        f"entry_points: {{main: {{parameters: {{a: {{default: 0x{'f' * 5000}}}}}}}}}",
        "more than 300 digits",
        "in quotes",
    ),
    "a list": ("- a\n", "FILE: the file must be a mapping", "lines of 'key: value'"),
    "entry_points": ("entry_points: [main]", "FILE: 'entry_points' must be a mapping", "not list"),
    "entry point": ("entry_points: {main: x}", "FILE: 'entry_points.main' must be a mapping", "not str"),
    "command": ("entry_points: {main: {}}", "FILE: 'entry_points.main.command' is missing", "give the command"),
    "command a list": (
        "entry_points: {main: {command: [python, x.py]}}",
        "FILE: 'entry_points.main.command' is no text (list)",
        "write the command line as one",
    ),
    "parameters": (
        "entry_points: {main: {command: x, parameters: [a]}}",
        "FILE: 'entry_points.main.parameters' must be a mapping",
        "not list",
    ),
    "a parameter": (
        "entry_points: {main: {command: x, parameters: {a: 1}}}",
        "FILE: 'entry_points.main.parameters.a' must be a type or a mapping",
        "'type' and 'default'",
    ),
    "two environments": (
        "python_env: a\nconda_env: b\n",
        "FILE: 'python_env' and 'conda_env' exclude each other",
        "keep one",
    ),
    "missing environment": (
        "conda_env: no.yaml",
        "FILE: 'conda_env' names 'no.yaml'",
        "correct the name, or add the file",
    ),
    "environment a mapping": ("python_env: {python: 3}", "FILE: 'python_env' must be the name of a file", ""),
    "docker without image": ("docker_env: {volumes: []}", "FILE: 'docker_env' needs an 'image'", ""),
    "docker volumes": (
        "docker_env: {image: a, volumes: {/a: /b}}",
        "FILE: 'docker_env.volumes' must be a list of strings",
        "/container/path",
    ),
    "docker environment": (
        "docker_env: {image: a, environment: {A: b}}",
        "FILE: 'docker_env.environment' must be a list",
        "[name, value]",
    ),
    "a Spark job": ("databricks_spark_job: {python_file: a}", "FILE: 'databricks_spark_job'", "'entry_points'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unusable_file_gives_one_sentence_with_file_key_and_remedy(case, project):
    text, where, remedy = BROKEN[case]
    root = project(text)
    with pytest.raises(ProjectError) as caught:
        load_project(root).entry_point("main")
    message = str(caught.value)
    assert where.replace("FILE", str(root / "MLproject")) in message
    assert remedy in message
    assert "\n" not in message


def test_an_entry_point_that_is_wrong_does_not_hinder_another(project):
    text = "entry_points: {main: {command: x}, other: {parameters: [a]}, third: }"
    found = load_project(project(text))
    assert found.entry_point("main").command == "x"
    for name in ("other", "third"):
        with pytest.raises(SpecError, match=f"'entry_points.{name}"):
            found.entry_point(name)


def test_any_type_is_taken(project):
    declared = "{a: bool, b: {type: 'list[int]'}, c: {type: [x]}, d: {type: STRING, default: 1}}"
    entry = load_project(project(f"entry_points: {{main: {{command: x, parameters: {declared}}}}}")).entry_point(
        "main"
    )
    assert [parameter.type for parameter in entry.parameters.values()] == ["bool", "list[int]", "['x']", "STRING"]


def test_an_environment_that_is_left_empty_is_none(project):
    found = load_project(project("docker_env:\n", {"python_env.yaml": "python: '3.11'\n"}))
    assert (found.environment_kind, found.docker_env) == ("python_env", None)


def test_a_file_in_another_encoding_is_said_to_be_unreadable(project):
    root = project("")
    (root / "MLproject").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ProjectError, match=r"MLproject cannot be read: .*utf-8"):
        load_project(root)


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(ProjectError, match=f"{tmp_path}/none is not a folder"):
        load_project(tmp_path / "none")


def test_an_unknown_entry_point_is_answered_with_the_known_ones(project):
    root = project("entry_points: {main: {command: x}, train: {command: y}}")
    with pytest.raises(ProjectError) as caught:
        load_project(root).entry_point("trian")
    assert f"{root}/MLproject has no entry point 'trian' (its entry points: main, train)" in str(caught.value)


def test_an_unknown_entry_point_of_a_folder_without_the_file_says_that(project):
    with pytest.raises(ProjectError, match=r"a folder with no MLproject file\) has no entry point 'main'"):
        load_project(project(None)).entry_point("main")


@pytest.mark.parametrize(
    "name", ["none.py", "../outside.py", "/etc/none.sh", "link.py", "folder.py", "a" * 300 + ".py", "train\0.py"]
)
def test_a_script_must_be_a_file_inside_the_project(name, project, tmp_path):
    root = project("name: x", {"folder.py/x": ""})
    (tmp_path / "outside.py").touch()
    (root / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(ProjectError, match="nor a file in"):
        load_project(root).entry_point(name)


@pytest.mark.parametrize(
    ("case", "key", "line"),
    [
        ("YAML", (), 2),
        ("a tab", (), 3),
        ("an alias without anchor", (), 2),
        ("a control character", (), 1),
        ("a list", (), None),
        ("entry_points", ("entry_points",), None),
        ("entry point", ("entry_points", "main"), None),
        ("command", ("entry_points", "main"), None),
        ("parameters", ("entry_points", "main", "parameters"), None),
        ("a parameter", ("entry_points", "main", "parameters", "a"), None),
        ("two environments", ("conda_env",), None),
        ("missing environment", ("conda_env",), None),
        ("environment a mapping", ("python_env",), None),
        ("docker without image", ("docker_env",), None),
        ("docker volumes", ("docker_env", "volumes"), None),
        ("docker environment", ("docker_env", "environment"), None),
        ("a Spark job", ("databricks_spark_job",), None),
    ],
)
def test_an_error_knows_its_key_or_its_line(case, key, line, project):
    with pytest.raises(SpecError) as caught:
        load_project(project(BROKEN[case][0])).entry_point("main")
    assert (caught.value.key, caught.value.line) == (key, line)


def test_the_file_may_be_spelled_in_any_case_and_a_folder_of_that_name_is_none(project):
    root = project("name: x", name="mlPROJECT")
    (root / "MLproject").mkdir()
    assert load_project(root).file == root / "mlPROJECT"


@pytest.mark.parametrize("text", ["", "# nothing\n", "entry_points:\nname:\n"])
def test_an_empty_file_is_a_project_without_entry_points(text, project):
    found = load_project(project(text))
    assert (found.name, found.entry_points, found.environment_kind, found.docker_env) == (None, {}, None, None)


def test_a_project_without_words_on_it_uses_the_environment_files_that_it_has(project):
    root = project("name: x", {"conda.yaml": ""})
    found = load_project(root)
    assert (found.environment_kind, found.environment_file) == ("conda_env", root / "conda.yaml")
    (root / "python_env.yaml").touch()
    for text in ("name: x", "conda_env: ''", "python_env:"):
        found = load_project(project(text))
        assert (found.environment_kind, found.environment_file) == ("python_env", root / "python_env.yaml")
    found = load_project(project("conda_env: conda.yaml"))
    assert (found.environment_kind, found.environment_file) == ("conda_env", root / "conda.yaml")


def test_an_image_is_kept_as_it_is_written(project):
    declared = "{image: a, volumes: ['/a:/b'], environment: [COPIED, [SET, '1']]}"
    found = load_project(project(f"docker_env: {declared}", {"python_env.yaml": ""}))
    assert (found.environment_kind, found.environment_file) == ("docker_env", None)
    assert found.docker_env == {"image": "a", "volumes": ["/a:/b"], "environment": ["COPIED", ["SET", "1"]]}
    assert load_project(project("docker_env: {image: a, volumes:, environment:}")).docker_env["image"] == "a"


def test_names_of_any_kind_become_text_and_a_type_may_be_left_out(project):
    main = load_project(project("entry_points: {1: {command: x, parameters: {2: {default: 3}}}}")).entry_point("1")
    assert main.parameters == {"2": Parameter("2", "string", 3)}


def test_a_declared_name_wins_over_a_script_and_a_shell_script_runs_in_the_users_shell(project, monkeypatch):
    root = project("entry_points: {train.py: {command: declared}}", {"train.py": "", "a b.sh": "", "c.txt": ""})
    found = load_project(root)
    assert found.entry_point("train.py").command == "declared"
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert found.entry_point("a b.sh") == EntryPoint("a b.sh", "/bin/zsh 'a b.sh'")
    monkeypatch.delenv("SHELL")
    assert found.entry_point("a b.sh").command == "bash 'a b.sh'"
    with pytest.raises(ProjectError) as caught:
        found.entry_point("c.txt")
    assert str(caught.value) == (
        f"{root}/MLproject has no entry point 'c.txt' (its entry points: train.py); name one of these, "
        "or a .py, .sh or .R file of the project."
    )
    with pytest.raises(ProjectError) as caught:
        found.entry_point("no.py")
    assert str(caught.value) == (
        f"Entry point 'no.py' is neither declared (its entry points: train.py) nor a file in {root}."
    )


def test_a_blank_command_is_missing(project):
    with pytest.raises(SpecError, match=r"'entry_points.main.command' is missing; give the command line to run"):
        load_project(project("entry_points: {main: {command: '  '}}")).entry_point("main")
