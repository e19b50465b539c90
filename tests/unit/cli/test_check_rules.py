"""Each problem is told with the line that an editor can jump to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.cli import check_rules, main, yaml_lines
from mlflow_projects.cli.check_rules import find_projects, lint_project
from tests.conftest import ROOT

Write = Callable[..., Path]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, **files: str) -> Path:
        root = tmp_path / "project"
        root.mkdir()
        for name, content in {"MLproject": textwrap.dedent(text), "train.py": "import mlflow\n", **files}.items():
            (root / name).write_text(content, encoding="utf-8")
        return root

    return write


def told(root: Path) -> list[str]:
    """Return every finding without the folder's own path."""
    return [str(finding).replace(f"{root}/", "") for finding in lint_project(root).findings]


# id: (MLproject text, beginnings of the findings in order)
PROJECTS: dict[str, tuple[str, list[str]]] = {
    "nothing wrong": (
        """\
        name: good
        entry_points:
          main:
            parameters:
              rows: {type: int, default: 3}
              data: {type: path}
            command: "python train.py --rows {rows} --data {data}"
        """,
        [],
    ),
    "bad YAML": ("name: x\nentry_points: {main: [a\n\n", ["MLproject:2: error: not valid YAML ("]),
    "a list": ("- a\n", ["MLproject:1: error: the file must be a mapping"]),
    "several problems at once": (
        """\
        name: bad
        entry_points:
          main:
            parameters:
              rows: {type: integer}
              rate: {type: float, default: fast}
              seed: {type: int, defualt: 3}
            command: "python train.py --rows {rows} --rate {rate} --seed {seed} --depth {depth}"
          other:
            comand: "python train.py"
          third: python train.py
        """,
        [
            "MLproject:5: warning: 'entry_points.main.parameters.rows' has the unknown type 'integer', which counts "
            "as text; use 'int'.",
            "MLproject:6: warning: the default of 'entry_points.main.parameters.rate': parameter 'rate' must be of "
            "type float, not 'fast'.",
            "MLproject:7: warning: unknown key 'defualt' in 'entry_points.main.parameters.seed', which MLflow",
            "MLproject:8: error: the command uses {depth}, but 'depth' is no parameter of 'main'; declare it,",
            "MLproject:9: error: 'entry_points.other.command' is missing; give the command line to run.",
            "MLproject:10: warning: unknown key 'comand' in 'entry_points.other', which MLflow ignores; do",
            "MLproject:11: error: 'entry_points.third' must be a mapping, not str.",
        ],
    ),
    "a mistyped top key": (
        'entrypoints:\n  main: {command: "python train.py"}\n',
        [
            "MLproject:1: warning: unknown key 'entrypoints', which MLflow ignores; do you mean 'entry_points'?",
            "MLproject:1: warning: no entry point is declared;",
        ],
    ),
    "what MLflow ignores": (
        'owner: ada\nentry_points:\n  main: {command: "python train.py"}\n',
        ["MLproject:1: warning: unknown key 'owner', which MLflow ignores; it knows 'name', 'entry_points',"],
    ),
    "a parameter without effect": (
        'entry_points:\n  main:\n    parameters:\n      rows: int\n    command: "python train.py"\n',
        ["MLproject:4: warning: the command of 'main' does not use the parameter 'rows', so its value has"],
    ),
    "a key given twice": (
        'name: a\nentry_points:\n  main: {command: "python train.py"}\nname: b\n',
        ["MLproject:4: warning: 'name' is given twice (also in line 1); the last one counts."],
    ),
    "a variable of the shell": (
        """entry_points:\n  main:\n    command: python train.py "${HOME}/x"\n""",
        ["MLproject:3: error: the command uses {HOME}, but 'HOME' is no parameter of 'main'; declare it, or write a"],
    ),
    "braces": (
        """entry_points:\n  main:\n    command: "python train.py '{ }}'"\n""",
        ["MLproject:3: error: the command cannot be filled in ("],
    ),
    "a positional brace": (
        """entry_points:\n  main:\n    command: "python train.py {}"\n""",
        ["MLproject:3: error: the command cannot be filled in ("],
    ),
    "missing scripts": (
        """\
        entry_points:
          a: {command: "python -u tain.py --file {{x}}"}
          b: {command: "./start.sh now"}
          c: {command: "cd sub && python unknown.py"}
          d: {command: "python -m package.module; bash -c 'exit 3'; python -c 'print(1)'"}
          e: {command: "FAST=1 python3.11 $HOME/x.py /x/y.py && bash ./run.sh"}
        """,
        [
            "MLproject:2: error: the command runs 'tain.py', but the project holds no such file.",
            "MLproject:3: error: the command runs './start.sh', but the project holds no such file.",
            "MLproject:6: warning: the command runs './run.sh', but the project holds no such file; fine if it is",
        ],
    ),
    "a missing environment file": (
        'name: x\npython_env: env.yaml\nentry_points: {main: {command: "python train.py"}}\n',
        ["MLproject:2: error: 'python_env' names 'env.yaml', but "],
    ),
    "two environments": (
        "python_env: a.yaml\nconda_env: b.yaml\nentry_points: {main: {command: x}}\n",
        ["MLproject:2: error: 'python_env' and 'conda_env' exclude each other; keep one."],
    ),
    "docker_env": (
        "docker_env:\n  volumes: /a:/b\n  imag: x\nentry_points: {main: {command: x}}\n",
        [
            "MLproject:1: error: 'docker_env' needs an 'image'.",
        ],
    ),
    "docker_env that needs a shell": (
        """\
        docker_env:
          image: x
          volumes: [$(pwd):/a, ~/b:/b, $DATA:/c, $(id):/d]
          environment: [ANY, [A, $ANY], [B, "`id`"]]
        entry_points: {main: {command: x}}
        """,
        [
            "MLproject:3: error: 'docker_env.volumes' has '$(id):/d', which asks for a shell; write it out",
            "MLproject:4: error: 'docker_env.environment' has '`id`', which asks for a shell; write it out",
        ],
    ),
    "an empty key": (
        "docker_env:\nentry_points:\n",
        [
            "MLproject:1: warning: no entry point is declared;",
            "MLproject:1: warning: 'docker_env' is empty and counts for nothing",
            "MLproject:2: warning: 'entry_points' is empty and counts for nothing",
        ],
    ),
    "an empty environment": (
        "python_env:\nentry_points: {main: {command: python train.py}}\n",
        ["MLproject:1: warning: 'python_env' is empty and counts for nothing"],
    ),
    "a parameter that is the format of another one": (
        "entry_points: {main: {parameters: {x: float, w: int}, command: 'echo {x:{w}}'}}",
        [],
    ),
    "a script that is written before, by echo": (
        """\
        entry_points:
          main: {command: 'echo "print(1)" > made.py && python made.py'}
          shell: {command: 'bash -s a < run.sh'}
          found: {command: 'bash ls --version'}
        """,
        ["MLproject:2: warning: the command runs 'made.py', but the project holds no such file; fine if"],
    ),
    "placeholders inside of quotes": (
        """\
        entry_points:
          main:
            parameters: {a: string, b: {type: string, description: harmless}, c: string, d: string}
            command: |
              python train.py --a {a} --b="{b}"
              bash -c 'echo {c}' x=\\'{d}\\'
        """,
        [
            "MLproject:4: warning: {b} stands inside of quotes",
            "MLproject:4: warning: {c} stands inside of quotes",
        ],
    ),
    "a placeholder inside of quotes only the second time": (
        """\
        entry_points:
          main:
            parameters: {a: string, b: string, c: string}
            command: |
              # train with {c}
              python train.py {a} {b!s} "{a}" {b:>3} {c} && python -c "print('{b}')"
        """,
        [
            "MLproject:4: warning: {a} stands inside of quotes",
            "MLproject:4: warning: {b} stands in words that another program may run",
        ],
    ),
    "a merged mapping": (
        "x: &same\n  command: python nowhere.py\nentry_points:\n  main:\n    <<: *same\n",
        [
            "MLproject:1: warning: unknown key 'x'",
            "MLproject:4: error: the command runs 'nowhere.py'",
        ],
    ),
    "a parameter that MLflow cannot record": (
        'entry_points:\n  main:\n    parameters: {"a$b": string}\n    command: "python train.py"\n',
        [
            "MLproject:3: error: MLflow does not take the parameter name 'a$b'; take another one.",
            "MLproject:3: warning: the command of 'main' does not use the parameter 'a$b'",
        ],
    ),
}


@pytest.mark.parametrize(("text", "expected"), PROJECTS.values(), ids=PROJECTS.keys())
def test_every_problem_has_its_line(write: Write, text: str, expected: list[str]) -> None:
    found = told(write(text))
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning), found


# Each of them runs, although the project holds none of these files.
RUNS = (
    "python ./train.py", "python -um pkg.mod", "python -W ignore train.py", "python -X dev train.py",
    "python -mpkg.mod",
    "bash -euo pipefail train.py", "bash -lc 'python gone.py'", "(cd sub && python x.py)", "pushd sub && python x.py",
    "python ~/x.py", "git clone u r && python r/t.py", "docker run img python other.py", "python $HOME/x.py",
    "python - < train.py", "python -c 'import x' y.py", "conda run -n x python y.py", "python *.py",
    "wget u; sh x.sh",
    "env A=1 python x.py", "python \"$(ls)\"", "time python x.py", "[ -f x.py ] && python x.py", "python -V",
    "if [ -f x.sh ]; then bash x.sh; fi", "bash -s < x.sh", "python -OO train.py --x y.py", "A=1 python train.py",
)  # fmt: skip


@pytest.mark.parametrize("command", RUNS)
def test_a_command_that_may_run_is_no_error(write: Write, command: str) -> None:
    root = write(f"entry_points:\n  main:\n    command: |\n      {command}\n")
    assert [line for line in told(root) if ": error: " in line] == []


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("python gone.py", "gone.py"),
        ("A=1 python3.11 -u -W ignore gone.py --x {{y}}", "gone.py"),
        ("set -e\n      echo begin && bash -euo pipefail gone.sh", "gone.sh"),
        ("bash -x -- gone.sh", "gone.sh"),
        ("./gone", "./gone"),
        ("python sub/gone.py --a 1 > log && echo done", "sub/gone.py"),
    ],
)
def test_a_file_that_is_surely_missing_is_an_error(write: Write, command: str, script: str) -> None:
    (found,) = told(write(f"entry_points:\n  main:\n    command: |\n      {command}\n"))
    assert found == f"MLproject:3: error: the command runs '{script}', but the project holds no such file."


@pytest.mark.parametrize(
    "command",
    [
        "python gone.py || true", "python gone.py; true", "(python gone.py | tee log)", "python gone.py &",
        "if python gone.py; then true; fi", "f() {{ python gone.py; }}; true", "A=$(python gone.py); true",
        "! python gone.py", "true || python gone.py", "python gone.py\n      true",
    ],
)  # fmt: skip
def test_a_file_that_may_be_missing_is_a_warning(write: Write, command: str) -> None:
    (found,) = told(write(f"entry_points:\n  main:\n    command: |\n      {command}\n"))
    assert found.startswith(
        "MLproject:3: warning: the command runs 'gone.py', but the project holds no such file; fine"
    )


def test_an_image_may_have_the_file_that_the_project_lacks(write: Write) -> None:
    """So it is with `mlflow run` without --build-image, which gives the container no project."""
    text = "docker_env: {image: x}\nentry_points: {a: {command: python gone.py}, b: {command: ./run.sh}}"
    assert told(write(text, **{"run.sh": ""})) == [
        "MLproject:2: warning: the command runs 'gone.py', but the project holds no such file; fine if the image's "
        "WORKDIR has it: backend_config={'docker_workdir': 'image'}.",
        "MLproject:2: warning: the command runs './run.sh', which is not executable; run: chmod +x ./run.sh",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "name: 2020-99-99", "entry_points: {main: {command: x, parameters: {a: {default: !!int abc}}}}",
        "name: !!bool abc", "name: " + "[" * 50,
    ],
)  # fmt: skip
def test_what_yaml_stumbles_over_is_one_finding(write: Write, text: str) -> None:
    (found,) = told(write(text))
    assert "not valid YAML" in found


def test_no_name_or_link_of_a_project_ends_lint(write: Write) -> None:
    root = write(
        f"entry_points: {{main: {{command: python {'x' * 300}.py}}}}", **{"python_env.yaml": "python: '3.11'"}
    )
    (root / "folder.py").mkdir()
    (root / "dangling.py").symlink_to("nowhere.py")
    assert any("holds no such file" in line for line in told(root))


def test_many_unknown_keys_are_looked_for_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write("name: x\nentry_points: {main: {command: a}}\n" + "".join(f"key{n}: 1\n" for n in range(1000)))
    compared, walked = [], []
    monkeypatch.setattr(check_rules.difflib, "get_close_matches", lambda name, *_, **__: compared.append(name))

    class Pairs(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            walked.append(self)
            return super().__iter__()

    compose = yaml_lines.compose_yaml

    def watched(file: Path) -> Any:
        node = compose(file)
        node.value = Pairs(node.value)
        return node

    monkeypatch.setattr(yaml_lines, "compose_yaml", watched)
    findings = told(root)
    assert findings[100] == "MLproject:103: warning: and 900 more unknown keys, which MLflow ignores."
    assert (len(findings), len(compared), len(walked)) == (101, 100, 2)


def test_a_file_that_is_run_itself_must_be_executable(write: Write) -> None:
    root = write("entry_points: {main: {command: ./run.sh}}", **{"run.sh": ""})
    assert told(root) == [
        "MLproject:1: error: the command runs './run.sh', which is not executable; run: chmod +x ./run.sh"
    ]
    (root / "run.sh").chmod(0o755)
    assert told(root) == []


def test_a_template_of_projects_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "{{cookiecutter.name}}"
    folder.mkdir()
    (folder / "MLproject").write_text("name: {{cookiecutter.name}}\n")
    assert main(["check", "--lint-only", str(tmp_path)]) == 0
    assert f"note     {folder} is a template, passed over." in capsys.readouterr().out
    monkeypatch.chdir(folder)
    assert main(["check", "--lint-only"]) == 0
    assert "note     . is a template, passed over." in capsys.readouterr().out


@pytest.mark.parametrize(("name", "encoding"), [(b"proj\xff", "utf-8"), ("projét".encode(), "ascii")])
def test_a_name_that_cannot_be_printed_is_escaped(name: bytes, encoding: str, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(name)
    root.mkdir()
    (root / "MLproject").write_text("name: x\n")
    command = [sys.executable, "-m", "mlflow_projects.cli", "check", "--lint-only", str(tmp_path)]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "proj\\" in done.stdout


def test_a_reader_that_has_enough_is_no_trouble(tmp_path: Path) -> None:
    for number in range(1000):
        folder = tmp_path / f"project{number}"
        folder.mkdir()
        (folder / "MLproject").write_text("owner: ada\nentry_points: {main: {command: x}}\n")
    command = f"{sys.executable} -m mlflow_projects.cli check --lint-only {tmp_path} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert "warning: unknown key 'owner'" in done.stdout
    assert done.stderr == ""


ENVIRONMENTS = {
    "a number for a version": (
        "python: 3.10\ndependencies: [mlflow]\n",
        "env.yaml:1: error: YAML reads 'python: 3.10' as the number 3.1; write it in quotes.",
    ),
    "no YAML": ("python: [\n", "env.yaml:2: error: not valid YAML ("),
    "no list": (
        "dependencies: mlflow\n",
        "env.yaml:1: error: 'dependencies' must be a list of requirements, each a text",
    ),
    "without mlflow": ("dependencies: [numpy]\n", "env.yaml:1: warning: 'mlflow' is missing in 'dependencies'"),
}


@pytest.mark.parametrize(("content", "expected"), ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_the_environment_file_is_read_too(write: Write, content: str, expected: str) -> None:
    text = "python_env: env.yaml\nentry_points: {main: {command: python train.py}}\n"
    (found,) = told(write(text, **{"env.yaml": content}))
    assert found.startswith(expected)


def test_the_samples_of_this_repository_are_clean() -> None:
    roots = find_projects(ROOT / "sample_projects")
    assert len(roots) >= 2
    assert [str(finding) for root in roots for finding in lint_project(root).findings] == []


def test_projects_are_found_below_a_folder_and_by_their_file(tmp_path: Path) -> None:
    for name in ("b", "a", "a/inner", ".hidden", "node_modules/x"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "MLproject").write_text("name: x\n")
    below = [tmp_path / name for name in ("a", "a/inner", "b")]
    assert find_projects(tmp_path) == below
    assert find_projects(tmp_path / "b" / "MLproject") == [tmp_path / "b"]


def test_lint_only_prints_places_and_fails_on_errors_but_not_on_warnings(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write("owner: ada\nentry_points: {main: {command: python nowhere.py}}\n")
    monkeypatch.chdir(root.parent)
    assert main(["check", "--lint-only"]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert re.match(r"project/MLproject:1: warning: unknown key 'owner'", first)
    assert re.match(r"project/MLproject:2: error: the command runs 'nowhere.py'", second)
    assert last == "1 error(s), 1 warning(s)."
    (root / "nowhere.py").touch()
    assert main(["check", "--lint-only", "project"]) == 0
    assert main(["check", "--lint-only", "elsewhere"]) == 1
    assert "elsewhere does not exist." in capsys.readouterr().out
