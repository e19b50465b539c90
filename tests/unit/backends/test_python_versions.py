"""The Pythons of a machine: which one fits, and which is taken."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.specifiers import InvalidSpecifier

from mlflow_projects.backends.local.python_versions import find_python, found_version, specifier

Fake = Callable[..., str]


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path / "path"), "HOME": str(tmp_path / "home"), "PYENV_ROOT": str(tmp_path / "pyenv")}


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Return what makes an interpreter that says its version, or fails."""

    def make(name: str, version: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{version}'\n" if version else "#!/bin/sh\nexit 127\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(("text", "yes", "no"), [
    ("3.8", ["3.8.0", "3.8.18"], ["3.9.0", "3.80.1", "3.7.9"]),
    ("3", ["3.8.0", "3.12.1"], ["2.7.18", "4.0.0"]),
    ("==3.8", ["3.8.0", "3.8.18"], ["3.9.0", "3.80.1"]),
    ("== 3.8.18", ["3.8.18"], ["3.8.1"]),
    ("3.8.*", ["3.8.18"], ["3.9.0"]),
    ("3.8.18", ["3.8.18"], ["3.8.1", "3.8.180"]),
    (">=3.8,<3.9", ["3.8.0", "3.8.18"], ["3.7.9", "3.9.0"]),
    ("~=3.8", ["3.8.0", "3.12.0"], ["4.0.0", "3.7.9"]),
    ("!=3.9.*", ["3.8.1"], ["3.9.1"]),
    ("  3.10 ", ["3.10.4"], ["3.1.0"]),
])  # fmt: skip
def test_a_version_of_two_numbers_is_any_of_these(text: str, yes: list[str], no: list[str]) -> None:
    versions = specifier(text)
    assert [version for version in yes if version not in versions] == []
    assert [version for version in no if version in versions] == []


@pytest.mark.parametrize("text", ["latest", "3.x", "python3", "=3.8", "3.8 or so", ">=3.8 <3.9", "../python"])
def test_nonsense_is_no_version(text: str, variables: dict[str, str], fake: Fake) -> None:
    fake("path/python3", "3.8.1")
    with pytest.raises(InvalidSpecifier):
        specifier(text)
    assert find_python(text, variables) is None


def test_this_python_comes_first(variables: dict[str, str], fake: Fake) -> None:
    here = platform.python_version()
    minor = ".".join(here.split(".")[:2])
    fake(f"path/python{minor}", f"{minor}.99")
    fake(f"pyenv/versions/{minor}.99/bin/python", f"{minor}.99")
    for wanted in ("", minor, here, f"{minor}.*", "3", f">={minor}"):
        assert find_python(wanted, variables) == sys.executable, wanted


@pytest.mark.parametrize("wanted", ["3.8", "3.8.*", ">=3.8,<3.9", "3.8.18", "==3.8.*", "~=3.8.1"])
def test_one_on_the_path_is_found(wanted: str, variables: dict[str, str], fake: Fake) -> None:
    assert find_python(wanted, variables) is None
    expected = fake("path/python3.8", "3.8.18")
    assert find_python(wanted, variables) == expected


def test_python3_counts_too_and_a_name_does_not_prove_a_version(variables: dict[str, str], fake: Fake) -> None:
    fake("path/python3.8", "3.7.1")
    assert find_python("3.8", variables) is None
    expected = fake("path/python3", "3.8.2")
    assert find_python("3.8", variables) == expected


@pytest.mark.parametrize("root", ["PYENV_ROOT", "HOME"])
def test_those_of_pyenv_are_found(root: str, variables: dict[str, str], fake: Fake, tmp_path: Path) -> None:
    if root == "HOME":
        del variables["PYENV_ROOT"]
    folder = "pyenv" if root == "PYENV_ROOT" else "home/.pyenv"
    fake(f"{folder}/versions/3.7.9/bin/python", "3.7.9")
    expected = fake(f"{folder}/versions/3.8.18/bin/python", "3.8.18")
    assert find_python("3.8", variables) == expected
    assert find_python("3.7.9", variables) != expected


def test_the_newest_that_fits_wins_by_number(variables: dict[str, str], fake: Fake) -> None:
    fake("pyenv/versions/3.8.9/bin/python", "3.8.9")
    newest = fake("pyenv/versions/3.8.10/bin/python", "3.8.10")
    fake("pyenv/versions/3.9.1/bin/python", "3.9.1")
    fake("path/python3.8", "3.8.2")
    assert find_python("3.8", variables) == newest
    assert find_python(">=3.8,<3.10", variables) == str(Path(newest).parents[2] / "3.9.1" / "bin" / "python")
    of_path = fake("path/python3", "3.8.11")
    assert find_python("3.8", variables) == of_path


def test_a_shim_of_pyenv_is_passed_over_and_hides_nothing(
    variables: dict[str, str], fake: Fake, tmp_path: Path
) -> None:
    """It may know no version, or say that of another folder."""
    variables["PATH"] = f"{tmp_path / 'pyenv' / 'shims'}:{tmp_path / 'path'}"
    fake("pyenv/shims/python3.8", "3.8.1")
    fake("pyenv/shims/python3", "3.8.1")
    assert find_python("3.8", variables) is None
    behind = fake("path/python3.8", "3.8.0")
    assert find_python("3.8", variables) == behind


@pytest.mark.parametrize("says", ["", "no version", "3.8", "3.9.1", "3.8.1\n3.8.2"])
def test_what_does_not_run_or_fit_is_passed_over(says: str, variables: dict[str, str], fake: Fake) -> None:
    fake("path/python3.8", says)
    fake("pyenv/versions/3.8.5/bin/python", says)
    wanted = "3.8.1"
    assert find_python(wanted, variables) is None


def test_what_is_no_program_is_passed_over(variables: dict[str, str], fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "pyenv" / "versions" / "3.8.1").mkdir(parents=True)
    broken = Path(fake("pyenv/versions/3.8.2/bin/python", "3.8.2"))
    broken.write_bytes(b"\x7fELF nothing")
    (broken.parents[2] / "3.8.3" / "bin").mkdir(parents=True)
    (broken.parents[2] / "3.8.3" / "bin" / "python").symlink_to(tmp_path / "gone")
    assert find_python("3.8", variables) is None
    expected = fake("pyenv/versions/3.8.0/bin/python", "3.8.0")
    assert find_python("3.8", variables) == expected


def test_the_interpreter_gets_no_secret_of_the_worker(
    variables: dict[str, str], fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "s3cret")
    path = Path(fake("path/python3.8", "3.8.1"))
    path.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\necho 3.8.1\n")
    assert find_python("3.8", variables) == str(path)
    assert "PATH=" in (tmp_path / "seen").read_text()
    assert "s3cret" not in (tmp_path / "seen").read_text()


def test_an_interpreter_counts_by_its_version(variables: dict[str, str], fake: Fake) -> None:
    assert found_version("", variables) == platform.python_version()
    assert found_version("3.8", variables) == "3.8", "uv may have one"
    fake("pyenv/versions/3.8.2/bin/python", "3.8.2")
    assert found_version("3.8", variables) == "3.8.2"
    fake("pyenv/versions/3.8.18/bin/python", "3.8.18+")
    assert found_version("3.8", variables) == "3.8.18"
    asked = fake("path/python3.9", "3.9.1")
    assert found_version(">=3.9,<3.10", variables) == "3.9.1"
    assert find_python("3.9.*", variables) == asked
