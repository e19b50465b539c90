"""Lines of requirements as an installer reads them, and the files that they may name."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.python_environment import PythonEnvironment, read_python_environment
from mlflow_projects.project.requirements_files import local_package, names_files
from mlflow_projects.project.spec import load_project


def declared(root: Path, *lines: str, **files: str) -> PythonEnvironment:
    """Read a project with these lines, and files whose names have "__" for "/" and end with ".txt"."""
    for name, text in files.items():
        file = root / f"{name.replace('__', '/')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "python_env.yaml").write_text(yaml.safe_dump({"dependencies": list(lines)}))
    return read_python_environment(load_project(root))


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


@pytest.mark.parametrize("line", [
    "-ra.txt", "-r a.txt", "-r   a.txt", "--requirement a.txt", "--requirement=a.txt", "-r a.txt # why",
    "  -r a.txt  ", "-r './a.txt'", '-r "a.txt"', "-r ./a.txt", "-r sub/../a.txt",
])  # fmt: skip
def test_every_form_of_an_included_file(line: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert declared(tmp_path, line, "six", a="tiny\n\n# no\n").requirements == ("tiny", "six")


@pytest.mark.parametrize("line", ["-c{}", "-c {}", "--constraint {}", "--constraint={}", "-c '{}'", "-c ./{}"])
def test_every_form_of_a_constraint_stays_a_line(line: str, tmp_path: Path) -> None:
    found = declared(tmp_path, line.format("a.txt"), "six", a="six<2\n")
    assert found.requirements == ("-c a.txt", "six")
    again = declared(tmp_path, line.format("a.txt"), "six", a="six<3\n")
    assert again.requirements == found.requirements
    assert again.constraints != found.constraints


def test_files_are_relative_to_the_one_that_names_them(tmp_path: Path) -> None:
    found = declared(
        tmp_path,
        "-r a/one.txt",
        a__one="-r b/two.txt\n-c limits.txt\n-r ../top.txt\n",
        a__b__two="-c ../limits.txt\n--constraint=own limits.txt\nthree\n",
        a__limits="three<3\n",
        top="four\n",
        **{"a__b__own limits": "three<2\n"},
    )
    lines = ["-c a/limits.txt", "-c 'a/b/own limits.txt'", "three", "-c a/limits.txt", "four"]
    assert list(found.requirements) == lines
    for line in (line for line in lines if line.startswith("-c")):
        assert (tmp_path / shlex.split(line)[1]).is_file()


def test_a_file_that_is_missing_is_looked_for_beside_the_one_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        declared(tmp_path, "-r a/one.txt", a__one="-c limits.txt\n", limits="six\n")
    assert str(caught.value) == f"{tmp_path}/a/one.txt: '-c limits.txt' cannot be read: No such file or directory."


@pytest.mark.parametrize("changed", ["limits", "a__deep", "a__b__deepest"])
def test_the_content_of_every_nested_constraint_counts(changed: str, tmp_path: Path) -> None:
    files = {"limits": "-c a/deep.txt\nsix<9\n", "a__deep": "-r b/deepest.txt\n", "a__b__deepest": "tiny<9\n"}
    first = declared(tmp_path, "-c limits.txt", "six", **files)
    assert declared(tmp_path, "-c limits.txt", "six", **files) == first
    assert first.requirements == ("-c limits.txt", "six")
    second = declared(
        tmp_path, "-c limits.txt", "six", **files | {changed: files[changed].replace("9", "8") + "x<8\n"}
    )
    assert second.requirements == first.requirements
    assert second.constraints != first.constraints


def test_constraints_of_other_lines_are_another_hash(tmp_path: Path) -> None:
    first = declared(tmp_path, "-c one.txt", "-c two.txt", one="a\n", two="b\n").constraints
    assert declared(tmp_path, "-c one.txt", "-c two.txt", one="b\n", two="a\n").constraints != first
    assert declared(tmp_path, "-c one.txt", one="a\nb\n").constraints != declared(tmp_path).constraints


HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_hashes_on_lines_that_go_on_stay_with_their_package(end: str, tmp_path: Path) -> None:
    text = end.join(
        [f"tiny==1.0 \\{end}    {HASH} \\{end}    {HASH}  # by pip-compile", "    # via six", "six==1.17.0"]
    )
    (tmp_path / "a.txt").write_bytes(text.encode())
    lines = declared(tmp_path, "-r a.txt").requirements
    assert [line.split() for line in lines] == [["tiny==1.0", HASH, HASH], ["six==1.17.0"]]


def test_a_line_of_yaml_may_hold_many(tmp_path: Path) -> None:
    assert declared(tmp_path, "six\ntiny \\\n >=1\n\n# no\n-r a.txt", a="x").requirements == ("six", "tiny  >=1", "x")


@pytest.mark.parametrize("line", [
    "tiny; python_version < '3.8'", 'tiny[a]>=1 ; sys_platform == "win32" and extra == "x"', "-e .", "-e ./pkg[dev]",
    "./pkg[extra]", "pkg @ file:./x", "tiny @ https://h.example/t.zip#sha256=0", "git+https://h.example/t#egg=t",
    "--extra-index-url https://h.example/simple", "--index-url=https://h.example", "-i https://h.example", "--pre",
    "--no-binary :all:", "--find-links https://h.example/wheels", "-f wheels", "tiny==1.0+cu118", "${OWN}/x.whl",
])  # fmt: skip
def test_a_line_stays_as_it_is_written(line: str, tmp_path: Path) -> None:
    assert declared(tmp_path, line, "-r a.txt", a=f"{line}  # why\n").requirements == (line, line)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name in ("pkg", "my pkg", "sub/pkg"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "setup.py").write_text("")
    for name in ("setup.py", "tiny-1.0-py3-none-any.whl"):
        (tmp_path / name).write_text("")
    (tmp_path / "no-package").mkdir()
    return tmp_path


# A line, its path, and the line with the path /copy.
LOCAL = {
    "-e .": (".", "-e /copy"),
    "-e.": (".", "-e/copy"),
    "-e .[dev]": (".", "-e /copy[dev]"),
    '-e ".[dev]"': (".", "-e /copy[dev]"),
    "-e '.[a, b]'": (".", "-e /copy[a, b]"),
    "-e './my pkg'": ("my pkg", "-e /copy"),
    '-e "./my pkg"[dev]': ("my pkg", "-e /copy[dev]"),
    "-e ./pkg#egg=pkg": ("pkg", "-e /copy#egg=pkg"),
    "-e file:pkg": ("pkg", "-e file:///copy"),
    "--editable ./pkg": ("pkg", "--editable /copy"),
    "--editable=./pkg[dev]": ("pkg", "--editable=/copy[dev]"),
    '--editable="./pkg"': ("pkg", "--editable=/copy"),
    ".": (".", "/copy"),
    ".[dev]": (".", "/copy[dev]"),
    "./pkg": ("pkg", "/copy"),
    "./pkg/": ("pkg", "/copy"),
    "./my pkg": ("my pkg", "/copy"),
    "sub/pkg": ("sub/pkg", "/copy"),
    "./pkg[extra]": ("pkg", "/copy[extra]"),
    "./pkg[a,b]; python_version > '3'": ("pkg", "/copy[a,b]; python_version > '3'"),
    "./pkg ; python_version > '3'": ("pkg", "/copy ; python_version > '3'"),
    "pkg @ file:./pkg": ("pkg", "pkg @ file:///copy"),
    "pkg@file:pkg": ("pkg", "pkg@file:///copy"),
    "pkg[dev] @ file:pkg ; python_version > '3'": ("pkg", "pkg[dev] @ file:///copy ; python_version > '3'"),
    "pkg @ file://HERE/pkg": ("pkg", "pkg @ file:///copy"),
    "file://HERE/pkg": ("pkg", "file:///copy"),
    "file:pkg": ("pkg", "file:///copy"),
    "HERE/pkg": ("pkg", "/copy"),
    "tiny-1.0-py3-none-any.whl": ("tiny-1.0-py3-none-any.whl", "/copy"),
    "./tiny-1.0-py3-none-any.whl[a]": ("tiny-1.0-py3-none-any.whl", "/copy[a]"),
}


@pytest.mark.parametrize("line", LOCAL)
def test_a_package_of_this_machine(line: str, here: Path) -> None:
    path, copied = LOCAL[line]
    found = local_package(line.replace("HERE", str(here)), here)
    assert found
    assert found.path.resolve() == (here / path).resolve()
    assert found.is_editable is line.startswith("-")
    assert found.line_for(Path("/copy")) == copied


@pytest.mark.parametrize(("line", "copied"), [
    ("-e ./pkg[dev]", "-e file:///a%20copy[dev]"), ("--editable=./pkg", "--editable=file:///a%20copy"),
    ("pkg @ file:pkg", "pkg @ file:///a%20copy"), ("./pkg[dev]", "/a copy[dev]"),
])  # fmt: skip
def test_a_copy_with_a_blank_in_its_path(line: str, copied: str, here: Path) -> None:
    """uv takes no quotes behind -e."""
    found = local_package(line, here)
    assert found
    assert found.line_for(Path("/a copy")) == copied


@pytest.mark.parametrize("line", [
    "pkg", "tiny==1.0", "./missing", "-e ./missing", "-c pkg", "-f pkg", "-r pkg", "-e git+https://h.example/pkg",
    "git+ssh://git@h.example/pkg", "pkg @ https://h.example/pkg.zip", "pkg @ file:missing", f"./{'x' * 300}", "",
    "-e", "tiny==1.0; python_version > './pkg'", "./no-package", "-e /", "-e /proc/self", "./setup.py",
])  # fmt: skip
def test_what_is_no_package_of_this_machine(line: str, here: Path) -> None:
    assert local_package(line, here) is None


def test_a_packages_hash_is_that_of_its_files(here: Path) -> None:
    def hashed(line: str) -> str:
        found = local_package(line, here)
        assert found
        return found.hash()

    first, archive = hashed("./pkg"), hashed("./tiny-1.0-py3-none-any.whl")
    os.utime(here / "pkg" / "setup.py", (1, 1))
    assert hashed("-e pkg[dev]") == first
    (here / "pkg" / "setup.py").write_text("#")
    (here / "tiny-1.0-py3-none-any.whl").write_text("#")
    assert hashed("./pkg") != first
    assert hashed("./tiny-1.0-py3-none-any.whl") != archive


@pytest.mark.parametrize(("line", "read"), [
    ("--find links", ("--find-links links",)), ("--index=https://h.example/x", ("--index-url=https://h.example/x",)),
    ("--edit ./pkg", ("--editable ./pkg",)), ("--requirem more.txt", ("tiny",)),
    ("--const ./more.txt", ("-c more.txt",)), ("-r more.txt -r more.txt", ("tiny", "tiny")),
    ("--pre --edit ./pkg -f links", ("--pre", "--editable ./pkg", "-f links")), ("--pre", ("--pre",)),
    ("tiny --hash=sha256:aa --hash=sha256:bb", ("tiny --hash=sha256:aa --hash=sha256:bb",)),
    ("-e ./pkg --config-settings a=--pre", ("-e ./pkg --config-settings a=--pre",)), ("--e ./pkg", ("--e ./pkg",)),
    ("-e './a --pre'", ("-e './a --pre'",)), ("tiny --pre", ("tiny --pre",)),
])  # fmt: skip
def test_options_are_read_as_pip_reads_them(line: str, read: tuple[str, ...], tmp_path: Path) -> None:
    """By their beginnings, and several in a line; uv takes neither."""
    assert declared(tmp_path, line, more="tiny\n").requirements == read


@pytest.mark.parametrize(("content", "read"), [
    (b"# a note \\\nsix\n", ("six",)), (b"six \\\n# note \\\n==1.0\n", ("six", "==1.0")),
    (b"six==1.0\\", ("six==1.0",)),
    (b"a\\\r\n==1 # b \\\r\n c\r\nd", ("a==1", "d")), (b"# \\\n # \\\nsix", ("six",)),
    (b"# -*- coding: latin-1 -*-\n# \xe9\nsix\n", ("six",)), (b"#\n# coding=latin-1 \xe9\nsix\n", ("six",)),
])  # fmt: skip
def test_lines_are_joined_and_decoded_as_pip_does(content: bytes, read: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    assert declared(tmp_path, "-r x.txt").requirements == read


@pytest.mark.parametrize(("line", "content", "words"), [
    ("-r x.txt", b"# \xe9\nsix\n", "'-r x.txt' cannot be read: .* byte 0xe9 .*; save it as UTF-8."),
    ("-r x.txt", b"# coding: no-such\nsix\n", "unknown encoding: no-such; save it as UTF-8."),
    ("-r", b"", "'-r' names no file; write it behind the option."),
    ("--constraint=", b"", "'--constraint=' names no file; write it behind the option."),
])  # fmt: skip
def test_what_pip_cannot_read_either_is_one_sentence(line: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(ProjectError, match=words):
        declared(tmp_path, line)


@pytest.mark.parametrize("line", [
    "-f https://download.example/whl/torch_stable.html", "--find-links=https://h.example/x", "-fhttps://h.example/x",
    "-e git+https://h.example/pkg#egg=pkg", "--editable=git+ssh://git@h.example/x", "-c https://h.example/c.txt",
    "tiny@https://h.example/tiny.whl", '-f "https://h.example/x"', "--extra-index-url=https://h.example/x",
])  # fmt: skip
def test_what_is_elsewhere_is_no_file_of_the_project(line: str) -> None:
    """Else each commit of a project would build its environment anew."""
    assert not names_files([line])


@pytest.mark.parametrize("line", ["-f file:wheels", "-f file:///wheels", "file:///pkg", "-f=wheels", "-e HTTPS"])
def test_files_by_address(line: str) -> None:
    assert names_files([line])
