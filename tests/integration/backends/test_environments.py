"""Environments are built once per content, also by two at once; everything here works without a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_projects.backends.local.environments import Activation, EnvironmentBuilder
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.python_environment import choose_env_manager, read_python_environment
from mlflow_projects.project.spec import Project, load_project
from mlflow_projects.project.uv import uv_settings_from_pip
from tests.support.own_package import write_package


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package of one module, as a wheel file."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny.py", "ANSWER = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def project(folder: Path, python_env: str) -> Project:
    folder.mkdir(exist_ok=True)
    (folder / "MLproject").write_text("python_env: env.yaml\nentry_points: {main: {command: python -V}}")
    (folder / "env.yaml").write_text(python_env)
    return load_project(folder)


def builder(tmp_path: Path, lines: list[str]) -> EnvironmentBuilder:
    return EnvironmentBuilder(Cache(tmp_path / "cache"), dict(os.environ), lines.append)


def answer(activation: Activation) -> str:
    """Run a command in the environment and return what it says."""
    command = f"{activation.prefix}python -c 'import sys, tiny; print(tiny.ANSWER, sys.prefix)'"
    environment = {**os.environ, **activation.variables}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("manager", ["uv", pytest.param("virtualenv", marks=pytest.mark.nightly)])
def test_two_projects_with_a_package_of_one_name_share_no_environment(
    manager: str, tmp_path: Path, wheel: Path
) -> None:
    for name, number in (("first", 42), ("second", 43)):
        wanted = project(tmp_path / name, f"dependencies:\n- ./{wheel.name}\n")
        with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(wanted.root / wheel.name, "w") as copy:
            for member in source.namelist():
                copy.writestr(member, source.read(member).replace(b"42", str(number).encode()))
        with builder(tmp_path, []).activation(wanted, manager) as activation:
            assert answer(activation).split()[0] == str(number)


@pytest.mark.parametrize("manager", ["uv", "virtualenv"])
def test_an_environment_is_built_once_and_holds_its_packages(manager: str, tmp_path: Path, wheel: Path) -> None:
    lines: list[str] = []
    wanted = project(tmp_path / "project", "dependencies:\n- -r requirements.txt\n")
    (wanted.root / "requirements.txt").write_text(f"# a comment\n{wheel}\n")
    prefixes = []
    for _ in range(2):
        with builder(tmp_path, lines).activation(wanted, manager) as activation:
            number, _, prefix = answer(activation).partition(" ")
            assert number == "42"
            prefixes.append(prefix)
    assert prefixes[0] == prefixes[1]
    assert prefixes[0] != sys.prefix
    assert sum("Building the" in line for line in lines) == 1


@pytest.mark.parametrize(("line", "manager"), [
    ("./pkg", "uv"), ("-e ./pkg", "uv"), ("own-package @ file:./pkg", "uv"), ("own-package @ ./pkg", "uv"),
    ("-e ../outside", "uv"), ("-e ./pkg", "virtualenv"),
])  # fmt: skip
def test_packages_of_the_project_count_by_their_content(line: str, manager: str, tmp_path: Path) -> None:
    """uv takes a folder that it has built once as built; and a remote project's folder is gone with its attempt."""
    folders = set()
    for value in (3, 4):
        wanted = project(tmp_path / "project", f"dependencies: ['{line}', '--no-index']\n")
        for package in (wanted.root / "pkg", tmp_path / "outside"):
            write_package(package, value)
        for is_there in (True, False):
            with builder(tmp_path, []).activation(wanted, manager) as activation:
                folders.add(activation.folder)
                if not is_there:
                    (tmp_path / "outside").rename(tmp_path / "away")
                    wanted.root.rename(tmp_path / "gone")
                environment = {**os.environ, **activation.variables}
                command = ["python", "-c", "import own_package; print(own_package.VALUE)"]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
                assert done.stdout.strip() == str(value), done.stderr
        shutil.rmtree(tmp_path / "away")
        shutil.rmtree(tmp_path / "gone")
    assert len(folders) == 2


def test_an_environment_whose_python_was_removed_is_made_again(tmp_path: Path, wheel: Path) -> None:
    wanted = project(tmp_path / "project", f"dependencies: ['{wheel}']\n")
    with builder(tmp_path, []).activation(wanted, "uv") as activation:
        assert activation.folder
        (activation.folder / "bin" / "python").unlink()
    with builder(tmp_path, []).activation(wanted, "uv") as activation:
        assert answer(activation).startswith("42 ")


def test_files_that_requirements_name_are_found_from_where_they_are_named(tmp_path: Path, wheel: Path) -> None:
    root = project(tmp_path / "project", "dependencies: ['-rmore/list.txt', '--no-index']\n").root
    (root / "more").mkdir()
    (root / "more" / "list.txt").write_text(f"tiny \\\n  ==1.0  # pinned\n-c limits/one.txt\n-f {wheel.parent}\n")
    (root / "more" / "limits").mkdir()
    (root / "more" / "limits" / "one.txt").write_text("-c two.txt\n")
    for limit in ("tiny==1.0", "tiny<1"):
        (root / "more" / "limits" / "two.txt").write_text(f"{limit}\n")
        for manager in ("uv", "virtualenv"):
            refused = pytest.raises(ProjectError, match=r"env\.yaml: .* tiny")
            with (
                refused if limit == "tiny<1" else contextlib.nullcontext(),
                builder(tmp_path, []).activation(load_project(root), manager) as activation,
            ):
                assert answer(activation).startswith("42 ")


def test_two_steps_that_need_a_new_environment_at_once_share_one(tmp_path: Path, wheel: Path) -> None:
    lines: list[str] = []
    wanted = project(tmp_path / "project", f"dependencies: ['{wheel}']\n")

    def step(_: int) -> str:
        with builder(tmp_path, lines).activation(wanted, "uv") as activation:
            return answer(activation)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(step, range(4)))) == 1
    assert sum("Building the" in line for line in lines) == 1


def test_a_changed_requirement_is_another_environment(tmp_path: Path, wheel: Path) -> None:
    prefixes = set()
    for content in (f"{wheel}\n", f"{wheel}\n--no-index\n"):
        (tmp_path / "requirements.txt").write_text(content)
        wanted = project(tmp_path, "dependencies:\n- -r requirements.txt\n")
        with builder(tmp_path, []).activation(wanted, "uv") as activation:
            prefixes.add(answer(activation))
    assert len(prefixes) == 2


def test_uv_finds_packages_where_pip_was_told_to_look(tmp_path: Path, wheel: Path) -> None:
    wanted = project(tmp_path / "project", "dependencies: ['tiny==1.0', '--no-index']\n")
    told = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_FIND"))}
    told["PIP_FIND_LINKS"] = f"{tmp_path / 'project'} {wheel.parent}"
    with EnvironmentBuilder(Cache(tmp_path / "cache"), told, [].append).activation(wanted, "uv") as activation:
        assert answer(activation).startswith("42 ")


def test_what_is_set_for_uv_itself_is_kept() -> None:
    told = {
        "PIP_FIND_LINKS": "/a  /b",
        "PIP_INDEX_URL": "https://packages.example.com/simple",
        "PIP_EXTRA_INDEX_URL": "https://one.example.com https://two.example.com",
        "PIP_CERT": "/etc/ssl/company.pem",
    }
    assert uv_settings_from_pip(told) == {
        "UV_FIND_LINKS": "/a,/b",
        "UV_DEFAULT_INDEX": told["PIP_INDEX_URL"],
        "UV_INDEX": told["PIP_EXTRA_INDEX_URL"],
        "SSL_CERT_FILE": told["PIP_CERT"],
    }
    own = {"UV_FIND_LINKS": "/c", "UV_INDEX_URL": "x", "UV_EXTRA_INDEX_URL": "y", "SSL_CERT_FILE": "/z"}
    assert uv_settings_from_pip({**told, **own}) == {}
    assert uv_settings_from_pip({"PIP_FIND_LINKS": " "}) == {}


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    wanted = project(tmp_path / "project", "dependencies: ['no-such-package==1', '--no-index']\n")
    with (
        pytest.raises(ProjectError, match=r"env\.yaml: No solution found .*no-such-package==1.* unsatisfiable"),
        builder(tmp_path, lines).activation(wanted, "uv"),
    ):
        pass
    assert any("no-such-package" in line for line in lines)
    assert not list((tmp_path / "cache" / "environments").glob("*.ready"))
    assert not [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()]


def test_the_project_decides_when_no_env_manager_is_asked_for(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    assert choose_env_manager(load_project(plain), None) == "local"
    assert choose_env_manager(project(tmp_path / "uv", ""), None) == "uv"
    (plain / "conda.yaml").write_text("dependencies: [python=3.11, {pip: [tiny]}]")
    conda = load_project(plain)
    assert choose_env_manager(conda, None) == "conda"
    assert choose_env_manager(conda, "local") == "local"
    environment = read_python_environment(conda)
    assert (environment.python, environment.requirements) == ("3.11", ("tiny",))


@pytest.mark.parametrize(("manager", "version", "words"), [
    ("virtualenv", "3.5.1", r"finds no Python 3\.5\.1 on this worker; install it"),
    ("uv", "3.12.99", r"No interpreter found for Python 3\.12\.99 .*; install that Python, or change the version"),
    ("uv", ">=9", "No interpreter found for Python >=9 .*; install that Python, or change the version"),
    ("uv", "latest", "'latest' is no version of Python; write one such as '3.11'"),
])  # fmt: skip
def test_a_python_that_is_not_there_is_named(manager: str, version: str, words: str, tmp_path: Path) -> None:
    wanted = project(tmp_path, f"python: '{version}'\n")
    told = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    making = EnvironmentBuilder(Cache(tmp_path / "cache"), told, [].append)
    with pytest.raises(ProjectError, match=rf"env\.yaml: .*{words}"), making.activation(wanted, manager):
        pass


def test_a_project_cannot_say_beside_its_definition_whence_packages_come(tmp_path: Path, wheel: Path) -> None:
    """Its settings of uv are no part of the key: another project with the same lines would get its packages."""
    wanted = project(tmp_path / "project", "dependencies: [--no-index, tiny]")
    (wanted.root / "uv.toml").write_text(f'[pip]\nfind-links = ["{tmp_path}"]\n')
    with pytest.raises(ProjectError, match="tiny was not found"), builder(tmp_path, []).activation(wanted, "uv"):
        pass


def test_pips_packages_go_nowhere_else_and_no_module_of_the_project_runs_meanwhile(
    tmp_path: Path, wheel: Path
) -> None:
    elsewhere = {"PIP_USER": "true", "PIP_TARGET": str(tmp_path / "target"), "PIP_DRY_RUN": "1"}
    wanted = project(tmp_path / "project", f"dependencies: [--no-index, '{wheel}']")
    for module in ("venv", "pip", "colorsys"):
        (wanted.root / f"{module}.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n")
    making = EnvironmentBuilder(Cache(tmp_path / "cache"), {**os.environ, **elsewhere}, print)
    with making.activation(wanted, "virtualenv") as activation:
        assert answer(activation).startswith("42")
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "target").exists()


def test_a_package_is_copied_as_far_as_it_counts(tmp_path: Path) -> None:
    """Else a file that git ignores would be installed, and two projects that differ in it share an environment."""
    wanted = project(tmp_path / "project", "dependencies: [-e ./pkg, --no-index]")
    package = wanted.root / "pkg"
    write_package(package, 3)
    (package / ".gitignore").write_text("ignored.py\n")
    (package / "editable" / "ignored.py").touch()
    (package / "empty-of-all-that-counts").mkdir()
    os.mkfifo(package / "empty-of-all-that-counts" / "pipe")
    with builder(tmp_path, []).activation(wanted, "uv") as activation:
        assert activation.folder is not None
        (copy,) = (activation.folder / "editable").glob("*/pkg")
    # The package's own build ran there, and may have left its compiled self.
    found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if "__pycache__" not in path.parts}
    assert found == {
        ".gitignore", "pyproject.toml", "backend.py", "source.py", "editable", "editable/own_package.py"
    }  # fmt: skip


def test_packages_of_uv_stay_while_an_environment_is_built(tmp_path: Path, wheel: Path) -> None:
    wanted = project(tmp_path / "project", f"dependencies: ['{wheel}', --no-index]")
    cache = Cache(tmp_path / "cache")
    removed: list[Path] = []
    elsewhere = {"XDG_CACHE_HOME": "/proc"}  # another file system
    variables = {name: value for name, value in os.environ.items() if name != "UV_CACHE_DIR"}
    during = EnvironmentBuilder(
        cache, {**variables, **elsewhere}, lambda line: removed.extend(cache.prune("uv_packages", 0))
    )
    with during.activation(wanted, "uv"):
        assert removed == []
        assert [entry.folder.name for entry in cache.entries("uv_packages")] == ["shared"]


def test_an_option_counts_for_the_packages_that_it_is_for(tmp_path: Path, wheel: Path) -> None:
    """Those of ``build_dependencies`` are installed by themselves."""
    folders = set()
    for content in (f"build_dependencies: [--no-index]\ndependencies: ['{wheel}']",
                    f"build_dependencies: [--no-index, '{wheel}']"):  # fmt: skip
        with builder(tmp_path, []).activation(project(tmp_path / "project", content), "uv") as activation:
            folders.add(activation.folder)
    assert len(folders) == 2


def test_a_package_that_changes_during_the_build_makes_no_environment(tmp_path: Path) -> None:
    """It would be found by the key of the files that were there before."""
    wanted = project(tmp_path / "project", "dependencies: [./pkg, --no-index]")
    write_package(wanted.root / "pkg", 3)
    changing = EnvironmentBuilder(
        Cache(tmp_path / "cache"), dict(os.environ), lambda _: write_package(wanted.root / "pkg", 4)
    )
    with pytest.raises(StepFailedError, match=r"pkg changed while .*env\.yaml was built from it; run again\."):
        with changing.activation(wanted, "uv"):
            pass
    assert changing.cache.entries("environments") == []
    with changing.activation(wanted, "uv"):
        pass


def test_a_folder_of_archives_is_found_from_its_file_and_counts_alone(tmp_path: Path, wheel: Path) -> None:
    wanted = project(tmp_path / "project", "dependencies: [--no-index, -r sub/list.txt]")
    (wanted.root / "sub" / "my wheels").mkdir(parents=True)
    (wanted.root / "sub" / "list.txt").write_text("-f 'my wheels'\ntiny\n")
    shutil.copy(wheel, wanted.root / "sub" / "my wheels")
    folders = []
    for change in ("first.txt", "output.txt", "sub/my wheels/more.txt"):
        (wanted.root / change).touch()
        with builder(tmp_path, []).activation(wanted, "uv") as activation:
            assert answer(activation).startswith("42")
            folders.append(activation.folder)
    assert folders[0] == folders[1] != folders[2]


def test_a_cache_inside_of_a_package_is_no_change_of_it(tmp_path: Path) -> None:
    wanted = project(tmp_path / "project", "dependencies: [-e ., --no-index]")
    write_package(wanted.root, 3)
    making = EnvironmentBuilder(Cache(wanted.root / "airflow" / "cache"), dict(os.environ), print)
    with making.activation(wanted, "uv") as activation:
        assert activation.folder


def test_versions_before_a_release_are_taken_if_a_file_says_so(tmp_path: Path, wheel: Path) -> None:
    """uv only warns of this option in a file; pip takes it there."""
    early = wheel.with_name("tiny-2.0a1-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(early, "w") as copy:
        for member in source.namelist():
            content = source.read(member).replace(b"tiny-1.0", b"tiny-2.0a1").replace(b"Version: 1.0\n\n", b"")
            content = content.replace(b"Name: tiny\nVersion: 1.0", b"Name: tiny\nVersion: 2.0a1")
            copy.writestr(member.replace("1.0", "2.0a1"), content.replace(b"42", b"43"))
    for option, answered in (("--pre --no-index", "43 "), ("--no-index", "42 ")):
        wanted = project(tmp_path / "project", f"dependencies: ['{option}', '--find {wheel.parent}', tiny]\n")
        with builder(tmp_path, []).activation(wanted, "uv") as activation:
            assert answer(activation).startswith(answered)


@pytest.mark.parametrize("line", ["./pkg", "-e ./pkg"])
def test_links_of_a_package_to_elsewhere_in_the_project_are_followed(line: str, tmp_path: Path) -> None:
    """As pip does, which builds in the project's folder; what they point to counts as if it were in the package."""
    wanted = project(tmp_path / "project", f"dependencies: ['{line}', --no-index]")
    package = wanted.root / "pkg"
    write_package(package, 3)
    (package / "source.py").rename(wanted.root / "source.py")
    (package / "source.py").symlink_to("../source.py")
    (package / "editable").rename(wanted.root / "shared")
    (package / "editable").symlink_to(wanted.root / "shared")
    (package / "around").symlink_to("..")
    (wanted.root / "data").mkdir()
    (wanted.root / "data" / "back").symlink_to("../pkg")
    os.mkfifo(wanted.root / "data" / "pipe")
    (package / "data").symlink_to("../data")
    (package / "elsewhere").symlink_to("/proc")
    folders = set()
    for value in (3, 4):
        (wanted.root / "source.py").write_text(f"VALUE = {value}")
        (wanted.root / "shared" / "own_package.py").write_text(f"VALUE = {value}")
        with builder(tmp_path, []).activation(wanted, "uv") as activation:
            folders.add(activation.folder)
            wanted.root.rename(tmp_path / "gone")
            command = ["python", "-c", "import own_package; print(own_package.VALUE)"]
            environment = {**os.environ, **activation.variables}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
            assert done.stdout.strip() == str(value), done.stderr
        (tmp_path / "gone").rename(wanted.root)
    assert len(folders) == 2


def test_a_path_that_uv_cannot_read_is_one_sentence(tmp_path: Path) -> None:
    wanted = project(tmp_path / "project", "dependencies: [./pkg, --no-index]")
    write_package(wanted.root / "pkg", 3)
    with pytest.raises(ProjectError, match=r"env\.yaml: '/.*/a#b/.*/pkg' has a path with '#', which uv cannot read"):
        with builder(tmp_path / "a#b", []).activation(wanted, "uv"):
            pass
