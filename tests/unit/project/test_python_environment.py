"""What a project says of its Python environment, and the sentence for what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.python_environment import read_python_environment
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


def test_a_version_that_is_merged_in_is_read(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("b: &b {python: 3.11}\n<<: *b\n")
    assert read_python_environment(load_project(tmp_path)).python == "3.11"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("dependencies: ['numpy[x]==1']", "'numpy.x.==1'; move it into the list of 'pip:' there"),
        ("dependencies: ['= 1']", "'= 1' is no package such as 'numpy=1.26'"),
        ("dependencies: ['numpy=1.b.c']", "pip has no such version as that of 'numpy=1.b.c'"),
        ("channels: {a: b}", "'channels' must be a list of names or addresses"),
    ],
)
def test_a_conda_file_of_another_form_is_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text(content)
    with pytest.raises(ProjectError, match=words):
        read_python_environment(load_project(tmp_path))
