"""What a project says of its Python environment, and the sentence for what cannot be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.python_environment import names_files, read_python_environment
from mlflow_projects.project.spec import load_project

WRONG = {
    "a list": ("- a list", "must be a mapping"),
    "no list": ("dependencies: tiny", "'dependencies' must be a list"),
    "a date among them": ("dependencies: [2021-02-03]", "'dependencies' must be a list"),
    "what belongs into a conda.yaml": (
        "dependencies: [pip, {pip: [mlflow]}]",
        "each a text such as 'numpy>=2', and not \"{'pip': ['mlflow']}\"; 'pip:' belongs into a conda.yaml.",
    ),
    "a file that is not there": ("dependencies: [-r missing.txt]", "'-r missing.txt' cannot be read: No such file"),
    "a name that no file can have": (f"dependencies: [-r {'x' * 300}]", "cannot be read: File name too long"),
    "a file that is no text": ("dependencies: [-r binary.txt]", "'-r binary.txt' cannot be read: 'utf-8'"),
    "a name with a NUL": ('dependencies: ["-r a\\0"]', "embedded null"),
    "a file that includes itself": ("dependencies: [-r self.txt]", "'-r ../self.txt' makes self.txt include itself"),
    "no YAML": ("python: '3.11'\ndependencies: [", "env.yaml:2: not valid YAML"),
    "no date": ("python: 2021-13-45", "not valid YAML"),
    "no version": ("python: [3, 11]", "'python' must be a version in quotes"),
    "a version that YAML cuts": ("python: 3.10", "YAML reads 'python: 3.10' as the number 3.1; write it in quotes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_definition_is_one_sentence_with_the_file(case: str, tmp_path: Path) -> None:
    content, words = WRONG[case]
    (tmp_path / "MLproject").write_text("python_env: env.yaml")
    (tmp_path / "env.yaml").write_text(content)
    (tmp_path / "binary.txt").write_bytes(b"\xff\xff")
    (tmp_path / "sub").mkdir()
    (tmp_path / "self.txt").write_text("-r sub/other.txt\n")
    (tmp_path / "sub" / "other.txt").write_text("-r ../self.txt\n")
    with pytest.raises(ProjectError) as caught:
        read_python_environment(load_project(tmp_path))
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_requirements_of_other_files_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: '3.11'\ndependencies: [-r a.txt, -r a.txt, six]")
    (tmp_path / "a.txt").write_text("# twice is no circle\ntiny\n")
    assert read_python_environment(load_project(tmp_path)).requirements == ("tiny", "tiny", "six")


def test_requirements_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    lines = [
        "-r a.txt  # a note",
        "--requirement=b.txt",
        "-r 'c d.txt'",
        "-r https://h/r.txt",
        "x # y",
    ]
    (tmp_path / "python_env.yaml").write_text(yaml.safe_dump({"dependencies": lines}))
    (tmp_path / "a.txt").write_text("a\r\n", encoding="utf-16")  # by PowerShell
    (tmp_path / "b.txt").write_text("b # why\n", encoding="utf-8-sig")
    (tmp_path / "c d.txt").write_text("c@git+https://h/c#egg=c")
    expected = ("a", "b", "c@git+https://h/c#egg=c", "-r https://h/r.txt", "x")
    assert read_python_environment(load_project(tmp_path)).requirements == expected


def test_a_version_that_is_merged_in_is_read(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("b: &b {python: 3.11}\n<<: *b\n")
    assert read_python_environment(load_project(tmp_path)).python == "3.11"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("dependencies: [python=3.11, numpy=2]", "'numpy=2' is a conda package; use env_manager 'conda' for it"),
        ("dependencies: 3", "'dependencies' must be a list of packages"),
    ],
)
def test_what_needs_conda_says_so(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text(content)
    with pytest.raises(ProjectError, match=words):
        read_python_environment(load_project(tmp_path))


SETTINGS = "[core]\nfernet_key = s3cret=\n"
OUTSIDE = ["-r ../airflow.cfg", "-r /proc/self/environ", "-r link.txt", "-c ../airflow.cfg", "--requirement=../.env",
           "-r file:///etc/passwd", "-r ${HOME}/x", "-c../.env", "--constraint ../airflow.cfg"]  # fmt: skip


@pytest.mark.parametrize("line", OUTSIDE)
def test_no_other_file_is_read_that_did_not_come_with_the_project(line: str, tmp_path: Path) -> None:
    """An installer prints the lines that it does not understand, such as Airflow's secrets."""
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "airflow.cfg").write_text(SETTINGS)
    (tmp_path / ".env").write_text("KEY=s3cret\n")
    (project / "link.txt").symlink_to(tmp_path / "airflow.cfg")
    (project / "MLproject").write_text("python_env: env.yaml\n")
    (project / "env.yaml").write_text(f"dependencies: ['{line}']\n")
    with pytest.raises(ProjectError, match=r"env\.yaml: .* names a file outside of the project with more") as caught:
        read_python_environment(load_project(project))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["build_dependencies", "dependencies", "pip"])
@pytest.mark.parametrize("lines", [
    ["-r ../airflow.cfg"], ["six\n-r ../airflow.cfg"], ["--pre -c ../airflow.cfg"], ["--constr=../airflow.cfg"],
    ["--requirem=../airflow.cfg"], ["-c \\", "../airflow.cfg"], ["-\\", "c ../airflow.cfg"],
    ["six -c ../airflow.cfg"], ['-"c" ../airflow.cfg'],
])  # fmt: skip
def test_no_spelling_of_an_option_reads_such_a_file(key: str, lines: list[str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "airflow.cfg").write_text(SETTINGS)
    (project / "MLproject").write_text(f"{'conda_env' if key == 'pip' else 'python_env'}: env.yaml\n")
    content = {"dependencies": [{"pip": lines}]} if key == "pip" else {key: lines}
    (project / "env.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ProjectError, match=r"outside of the project with more|and nothing else in its line"):
        read_python_environment(load_project(project))


PLAIN = """\
# shared by all projects
tiny==1.0 \\
    --hash=sha256:00
Tiny.two[a, b] >= 1, < 2 ; python_version > "3"
three
four (~=1.0)
five @ https://h.example/five.whl
--extra-index-url https://h.example
"""


@pytest.mark.parametrize("line", ["-r ../base.txt", "-c ../base.txt"])
def test_requirements_that_projects_share_are_read(line: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "base.txt").write_text(PLAIN)
    (project / "MLproject").write_text("python_env: env.yaml\n")
    (project / "env.yaml").write_text(f"dependencies: ['{line}']\n")
    assert read_python_environment(load_project(project)).requirements


def test_the_same_option_in_another_folder_is_another_file(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "a").mkdir(parents=True)
    (tmp_path / "limits.txt").write_text(SETTINGS)
    (project / "limits.txt").write_text("six\n")
    (project / "a" / "r.txt").write_text("-c ../limits.txt\n")
    (project / "MLproject").write_text("python_env: env.yaml\n")
    (project / "env.yaml").write_text("dependencies: ['-r a/r.txt', '-c ../limits.txt']\n")
    with pytest.raises(ProjectError, match="names a file outside of the project"):
        read_python_environment(load_project(project))


def test_a_file_of_the_projects_repository_is_read(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "base.txt").write_text("tiny = 1 = 2\n")
    (project / "MLproject").write_text("python_env: env.yaml\n")
    (project / "env.yaml").write_text("dependencies: ['-r ../base.txt', '-r https://h.example/x.txt']\n")
    expected = ("tiny = 1 = 2", "-r https://h.example/x.txt")
    assert read_python_environment(replace(load_project(project), top=tmp_path)).requirements == expected
    (tmp_path / ".git").mkdir()
    assert read_python_environment(load_project(project)).requirements == expected


@pytest.mark.parametrize(("line", "expected"), [
    ("-e .", True), ("./pkg", True), ("pkg/tiny", True), ("tiny @ file:pkg", True), ("file:pkg", True),
    ("tiny-1.0-py3-none-any.whl", True), ("-c limits.txt", True), ("--find-links wheels", True), ("-f wheels", True),
    ("tiny", False), ("tiny==1.0", False), ("tiny[a]>=1; python_version > '3'", False),
    ("git+https://h/x/y", False), ("tiny @ https://h/x.whl", False), ("--extra-index-url https://h/x", False),
])  # fmt: skip
def test_requirements_that_name_files_of_the_project(line: str, expected: bool) -> None:
    assert names_files(["six", line]) is expected
