"""Conda packages as packages of pip: only names that are known, and versions in pip's words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import conda_to_pip
from mlflow_projects.project.conda_to_pip import pip_name, translate
from mlflow_projects.project.python_environment import read_python_environment
from mlflow_projects.project.spec import load_project

FILE = Path("/project/conda.yaml")
TABLE = Path(conda_to_pip.__file__).with_name("conda_names.txt")


@pytest.mark.parametrize(("conda", "pip"), [
    ("pytorch", "torch"), ("pytorch-cpu", "torch"), ("opencv", "opencv-python-headless"),
    ("py-opencv", "opencv-python-headless"), ("matplotlib-base", "matplotlib"), ("pytables", "tables"),
    ("msgpack-python", "msgpack"), ("python-dateutil", "python-dateutil"), ("numpy", "numpy"), ("pip", "pip"),
    ("scikit-learn", "scikit-learn"), ("py-xgboost", "xgboost"), ("tensorflow-gpu", "tensorflow"),
    ("PyYAML", "pyyaml"), ("conda-forge::numpy", "numpy"), ("pytorch/label/nightly::pytorch", "torch"),
    ("conda-forge/linux-64::numpy", "numpy"), ("https://mirror.example/t/x/conda-forge::numpy", "numpy"),
])  # fmt: skip
def test_a_known_name_is_taken(conda: str, pip: str) -> None:
    assert translate(FILE, [conda]) == ("", (pip,), ())


@pytest.mark.parametrize(
    "name", ["cudatoolkit", "gcc", "libgcc-ng", "openjdk", "mkl_random_of_nobody", "_libgcc_mutex"]
)
def test_an_unknown_name_is_never_installed_by_guess(name: str) -> None:
    assert pip_name(name) is None
    for spec in (name, f"{name}=1.2=h0_0", f"conda-forge::{name}>=9", f"{name} 1_2_!", f"{name}[build=x]"):
        assert translate(FILE, [spec]) == ("", (), (name,)), spec


def test_one_warning_names_all_that_is_dropped(tmp_path: Path) -> None:
    dependencies = [
        "python=3.11",
        "cudatoolkit=11.3",
        "numpy=1.26",
        "nvidia::cuda-nvcc-of-nobody",
        {"pip": ["six"]},
        "gcc",
    ]
    (tmp_path / "conda.yaml").write_text(yaml.safe_dump({"dependencies": dependencies}))
    declared = read_python_environment(load_project(tmp_path))
    assert declared.python == "3.11"
    assert declared.requirements == ("numpy==1.26.*", "six")
    assert declared.dropped == ("cudatoolkit", "cuda-nvcc-of-nobody", "gcc")
    assert "known to be the same: cudatoolkit, cuda-nvcc-of-nobody, gcc. If" in declared.warning
    assert "'pip' section" in declared.warning
    assert "env_manager 'conda'" in declared.warning
    assert "numpy" not in declared.warning


@pytest.mark.parametrize("place", ["https://h.example/conda-forge/linux-64/", "./built/", ""])
@pytest.mark.parametrize("suffix", [".conda", ".tar.bz2#0123456789abcdef"])
def test_a_package_by_its_address_is_named_as_what_it_is(place: str, suffix: str) -> None:
    known, unknown = f"{place}python-dateutil-2.8.1-py_0{suffix}", f"{place}_libgcc_mutex-0.1-main{suffix}"
    assert translate(FILE, [known, unknown]) == ("", ("python-dateutil==2.8.1",), ("_libgcc_mutex",))
    assert translate(FILE, [f"{place}python-3.10.4-h12debd9_0{suffix}"]) == ("3.10.4", (), ())


def test_without_such_a_package_there_is_no_warning(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text("dependencies: [python, numpy]")
    assert read_python_environment(load_project(tmp_path)).warning == ""


VERSIONS = {
    "": "",
    "=1.2": "==1.2.*",
    "= 1.2": "==1.2.*",
    " =1.2": "==1.2.*",
    "=1": "==1.*",
    "==1.2": "==1.2",
    " == 1.2": "==1.2",
    " 1.2": "==1.2",
    " 1.2.*": "==1.2.*",
    "=1.2.*": "==1.2.*",
    "==1.2.*": "==1.2.*",
    "=1.2*": "==1.2.*",
    ">=1,<2": ">=1,<2",
    " >= 1 , < 2": ">=1,<2",
    ">1,!=1.5,<=2": ">1,!=1.5,<=2",
    ">=1.2.*": ">=1.2",
    "<2.0.*": "<2.0",
    "!=1.2": "!=1.2",
    "!=1.2.*": "!=1.2.*",
    "~=1.2": "~=1.2",
    "===1.2": "===1.2",
    "*": "",
    "=*": "",
    # builds
    "=1.2=build": "==1.2.*",
    "=1.2=py310h1_0": "==1.2.*",
    "=1.2=*cuda*": "==1.2.*",
    " =1.2 =0": "==1.2.*",
    "==1.2=build_0": "==1.2",
    "==1.2 build_0": "==1.2",
    " 1.2 build": "==1.2",
    " 1.2 *_cuda": "==1.2",
    " 1.2=build": "==1.2",
    ">=1.2=build": ">=1.2",
    " >=1.2 py310_0": ">=1.2",
    " >=1,<2 *cuda*": ">=1,<2",
    "=*=*cuda*": "",
    " * *cuda*": "",
    # in brackets
    "[version='>=1']": ">=1",
    '[version=">=1,<2", build=x]': ">=1,<2",
    "[build=*cuda*, version='1.2.*']": "==1.2.*",
    "[version=1.2]": "==1.2",
    "[build=x]": "",
    "=1.2[build=x]": "==1.2.*",
    # alternatives: pip has one
    "=1.2|1.4": "==1.4",
    " 1.2.*|1.4.*": "==1.4.*",
    ">=1,<2|>=3,<4": ">=3,<4",
    "[version='1.2|1.4']": "==1.4",
    # of these there are no others
    "=1.2.post1": "==1.2.post1",
    " 1.2.post1": "==1.2.post1",
    "=1.2rc1": "==1.2rc1",
    "=1!2.0": "==1!2.0",
    # in parentheses, and with a comment
    " (>=1.2)": ">=1.2",
    " (>=1,<2)": ">=1,<2",
    "=1.2 # why": "==1.2.*",
    "=1.2  # [linux]": "==1.2.*",
    " # why": "",
}


@pytest.mark.parametrize("text", VERSIONS)
def test_versions_in_pips_words(text: str) -> None:
    assert translate(FILE, [f"numpy{text}"]) == ("", (f"numpy{VERSIONS[text]}",), ())
    Requirement(f"numpy{VERSIONS[text]}")


@pytest.mark.parametrize("text", ["=1_2", "=>1.2", "@1.2", "=1.b.c", "~=1", "==1.2==0", ">=1,,what now", "=1,<"])
def test_a_version_that_pip_has_not_is_one_sentence(text: str) -> None:
    with pytest.raises(ProjectError) as caught:
        translate(FILE, ["six", f"numpy{text}"])
    assert re.fullmatch(
        rf"{FILE}: pip has no such version as that of '{re.escape(f'numpy{text}')}'; write one such as .*'conda'\.",
        str(caught.value),
    )


@pytest.mark.parametrize("package", ["numpy[x]==1", "-r x.txt", "", "# only", "=1.2", "numpy[version='1'", "./pkg"])
def test_what_is_no_package_is_one_sentence(package: str) -> None:
    with pytest.raises(ProjectError) as caught:
        translate(FILE, [package])
    assert str(caught.value) == (
        f"{FILE}: {package!r} is no package such as 'numpy=1.26'; correct it, or use env_manager 'conda'."
    )


def test_a_sentence_holds_no_long_text() -> None:
    with pytest.raises(ProjectError) as caught:
        translate(FILE, ["[" * 100_000])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("text", "expected"), [
    ("python", ""), ("python *", ""), ("python=3", "3"), ("python=3.10", "3.10"), ("python 3.10", "3.10"),
    ("python==3.10", "3.10"), ("python=3.10.*", "3.10"), ("python 3.10.*", "3.10"), ("python==3.10.4", "3.10.4"),
    ("python=3.7.11=h6244533_0", "3.7.11"), ("python=3.10=*_cpython", "3.10"), ("python 3.10.4 h_0", "3.10.4"),
    ("python>=3.8", ">=3.8"), ("python >=3.8, <3.9", ">=3.8,<3.9"), ("python>=3.8,<3.9", ">=3.8,<3.9"),
    ("python~=3.8", "~=3.8"), ("python!=3.9", "!=3.9"), ("python=3.8|3.9", "3.9"),
    ("python=3.10.0rc1", "==3.10.0rc1"),
    ("conda-forge::python=3.10", "3.10"), ("Python=3.10", "3.10"), ("python[version='>=3.8']", ">=3.8"),
    ("python=3.10 # as in production", "3.10"), ("python (3.10)", "3.10"),
])  # fmt: skip
def test_pythons_versions(text: str, expected: str) -> None:
    assert translate(FILE, [text, "six"]) == (expected, ("six",), ())


def test_python_named_again_without_a_version_keeps_its_version() -> None:
    assert translate(FILE, ["python=3.10", "python"])[0] == "3.10"
    assert translate(FILE, [])[0] == ""


def test_a_python_that_is_none_is_one_sentence() -> None:
    with pytest.raises(ProjectError, match=r"conda\.yaml: pip has no such version as that of 'python=x\.y'"):
        translate(FILE, ["python=x.y"])


def test_the_table_has_its_form() -> None:
    head, *lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert head.startswith("# ")
    assert "tools/conda_names.py" in head
    assert len(lines) > 10_000
    words = [line.split(" ") for line in lines]
    assert not [line for line, parts in zip(lines, words, strict=True) if len(parts) not in (1, 2)]
    conda = [parts[0] for parts in words]
    assert conda == sorted(set(conda))
    for parts in words:
        assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]*", parts[0]), parts
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", parts[-1]) or parts[0] == parts[-1], parts
        assert len(parts) == 1 or parts[0] != parts[1], parts


def test_every_name_of_the_table_can_be_written_in_a_conda_file() -> None:
    names = [line.split()[0] for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    _, requirements, dropped = translate(FILE, [name for name in names if name != "python"])
    assert dropped == ()
    assert all(map(Requirement, requirements))
