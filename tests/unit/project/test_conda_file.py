"""A conda.yaml as people write it, and the sentence for what cannot be read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.conda_file import CondaFile, read_conda_file
from mlflow_projects.project.spec import load_project


def read(root: Path, text: str, name: str = "conda.yaml") -> CondaFile:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    (root / "MLproject").write_text(f"conda_env: {name}\n")
    return read_conda_file(load_project(root))


def test_a_whole_file(tmp_path: Path) -> None:
    text = """
        name: wine
        prefix: /home/ann/miniconda3/envs/wine
        channels:
          - conda-forge
          - https://mirror.example/own
          - nodefaults
        dependencies:
          - python=3.10.4=h0_0
          - conda-forge::numpy>=1.20
          - pip
          - pip:
            - mlflow>=2
            - --extra-index-url https://index.example
          - scipy
        variables:
          OMP_NUM_THREADS: 4
          RATE: 0.5
          DEBUG: true
          EMPTY:
          TEXT: "07"
    """
    assert read(tmp_path, text) == CondaFile(
        channels=("conda-forge", "https://mirror.example/own", "nodefaults"),
        packages=("python=3.10.4=h0_0", "conda-forge::numpy>=1.20", "pip", "scipy"),
        pip=("mlflow>=2", "--extra-index-url https://index.example"),
        constraints=read(tmp_path, "").constraints,
        variables={"OMP_NUM_THREADS": "4", "RATE": "0.5", "DEBUG": "True", "EMPTY": "", "TEXT": "07"},
    )


@pytest.mark.parametrize(("text", "channels"), [
    ("channels: conda-forge", ("conda-forge",)), ("channels: [' a ', b]", ("a", "b")), ("channels:", ()),
    ("channels: []", ()), ("channels:\n- conda-forge\n-\n", ("conda-forge",)), ("channels: ''", ()), ("name: x", ()),
])  # fmt: skip
def test_forms_of_channels(text: str, channels: tuple[str, ...], tmp_path: Path) -> None:
    assert read(tmp_path, text).channels == channels


@pytest.mark.parametrize(("text", "packages", "pip"), [
    ("name: x", (), ()), ("", (), ()), ("dependencies:", (), ()), ("dependencies: numpy", ("numpy",), ()),
    ("dependencies:\n- numpy\n-\n- ' six '\n- ''\n", ("numpy", "six"), ()), ("dependencies: [pip:]", (), ()),
    ("dependencies: [pip: []]", (), ()), ("dependencies: [pip: six]", (), ("six",)),
    ("dependencies:\n- pip:\n  - six\n  -\n", (), ("six",)),
    ("dependencies: [a, pip: [x], b, pip: [y]]", ("a", "b"), ("x", "y")),
])  # fmt: skip
def test_forms_of_dependencies(text: str, packages: tuple[str, ...], pip: tuple[str, ...], tmp_path: Path) -> None:
    found = read(tmp_path, text)
    assert (found.packages, found.pip) == (packages, pip)


@pytest.mark.parametrize("pip", ["pip: -r more.txt", "pip: [-r more.txt]", "pip: ['six\n\n  -r more.txt']"])
def test_files_of_the_pip_section_are_beside_the_file(pip: str, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("not this one\n")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "more.txt").write_text("six\ntiny  # why\n-c limits.txt\n")
    (tmp_path / "env" / "limits.txt").write_text("six<2\n")
    first = read(tmp_path, f"dependencies:\n- {pip}\n", "env/conda.yaml")
    assert first.pip[-3:] == ("six", "tiny", "-c limits.txt")
    (tmp_path / "env" / "limits.txt").write_text("six<3\n")
    second = read(tmp_path, f"dependencies:\n- {pip}\n", "env/conda.yaml")
    assert second.pip == first.pip
    assert second.constraints != first.constraints


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_file_of_powershell_is_read_as_conda_reads_it(encoding: str, tmp_path: Path) -> None:
    """``conda env export > conda.yaml`` writes UTF-16 there (conda/conda#13882)."""
    expected = read(tmp_path, text := "# 環境\ndependencies:\n- python=3.10\n- pip:\n  - six\n")
    (tmp_path / "conda.yaml").write_bytes(f"\ufeff{text}".replace("\n", "\r\n").encode(encoding))
    assert read_conda_file(load_project(tmp_path)) == expected


@pytest.mark.parametrize(("system", "expected"), [
    ("linux", ("a", "b=1", "c", "u", "v")), ("darwin", ("a", "c", "m", "u", "v")),
])  # fmt: skip
def test_what_is_for_another_system_is_left_out(
    system: str, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        dependencies:
          - a
          - sel(linux): b=1
          - c
          - {sel(win): w, sel(osx): m}
          - sel(unix): [u, v]
    """
    read(tmp_path, text)
    project = load_project(tmp_path)
    monkeypatch.setattr(sys, "platform", system)
    assert read_conda_file(project).packages == expected


@pytest.mark.parametrize(("written", "expected"), [
    ("python=>3.12", "python>=3.12"), ("numpy => 1.20", "numpy >= 1.20"), ("conda-forge::coffea=>2025.3.0",
    "conda-forge::coffea>=2025.3.0"), ("numpy>=1", "numpy>=1"), ("numpy==>1", "numpy==>1"),
])  # fmt: skip
def test_an_equals_sign_before_a_greater_one_is_read_as_conda_reads_it(
    written: str, expected: str, tmp_path: Path
) -> None:
    assert read(tmp_path, f"dependencies: ['{written}']").packages == (expected,)


WRONG = {
    "a selector of no system": ("dependencies: [sel(bsd): x]", "; an item is the text of a package"),
    "no mapping": ("- numpy", "the file must be a mapping"),
    "no YAML": ("dependencies: [", "not valid YAML"),
    "a number": ("dependencies: 3", "'dependencies' must be a list of packages."),
    "a mapping": ("dependencies: {numpy: 1}", "'dependencies' must be a list of packages."),
    "a number as package": ("dependencies: [3]", "'dependencies' holds '3'; an item is the text of a package"),
    "a package as mapping": ("dependencies: [numpy: 1.2]", "'dependencies' holds \"{'numpy': 1.2}\"; an item is"),
    "pip beside another": ("dependencies: [{pip: [x], conda: [y]}]", "; an item is the text of a package"),
    "pip of a number": ("dependencies: [pip: 3]", "'dependencies.pip' must be a list of requirements, "),
    "pip of mappings": ("dependencies: [pip: [{a: b}]]", "'dependencies.pip' must be a list of requirements, "),
    "a missing file": ("dependencies: [pip: [-r no.txt]]", "'-r no.txt' cannot be read: No such file"),
    "channels as mapping": ("channels: {a: b}", "'channels' must be a list of names or addresses"),
    "a channel as number": ("channels: [3]", "'channels' must be a list of names or addresses"),
    "variables as list": ("variables: [a]", "'variables' must be a mapping of names to texts."),
    "variables of lists": ("variables: {a: [b]}", "'variables' must be a mapping of names to texts."),
    "a variable of no name": ("variables: {'a b': 1}", "'variables' holds 'a b', which is no name of a variable."),
    "a variable for a shell": ("variables: {'a;id': 1}", "'variables' holds 'a;id', which is no name of a variable."),
    "a zero byte": ('variables: {A: "x\\0"}', "'variables' holds 'A' with a zero byte; remove it."),
    "a variable that is a number": ("variables: {1: a}", "'variables' holds '1', which is no name of a variable."),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_form_is_one_sentence_with_the_file(case: str, tmp_path: Path) -> None:
    text, words = WRONG[case]
    with pytest.raises(ProjectError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'conda.yaml'}:")
    assert words in said


def test_a_sentence_holds_no_long_item(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        read(tmp_path, yaml.safe_dump({"dependencies": [{"x" * 50_000: "y"}]}))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("line", [
    "-r requirements.txt", "-e .", "--pre", "./pkg", "/srv/pkg", "../pkg", "git+https://h.example/x",
    "uvicorn[standard]", "fastapi[standard]==0.1",
])  # fmt: skip
def test_what_only_pip_reads_is_sent_to_its_list(line: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"'dependencies' holds .*; move it into the list of 'pip:' there\."):
        read(tmp_path, f"dependencies: ['{line}']")


@pytest.mark.parametrize("line", [
    "./own::tiny", "/srv/channel::tiny", "numpy[version='>=1']", "tiny[build=0]", "https://h.example/x-1-0.conda",
    "/srv/x-1-0.tar.bz2",
])  # fmt: skip
def test_what_only_conda_reads_stays(line: str, tmp_path: Path) -> None:
    assert read(tmp_path, f'dependencies: ["{line}"]').packages == (line,)
