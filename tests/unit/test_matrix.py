"""tools/matrix.py: which interpreters it finds, what it copies, and what it says of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

Fake = Callable[..., str]


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import matrix

    return matrix


@pytest.fixture
def fake(matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    """Return what makes an interpreter that says which it is; at first there is none, and a uv that knows none."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(matrix, "UV", script(tmp_path / "uv", "echo '[]'"))

    def make(name: str, says: str = "cpython 3.12") -> str:
        return script(tmp_path / name, f"echo '{says}'" if says else "exit 127")

    return make


def script(path: Path, line: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_path_comes_before_pyenv_and_pyenv_before_uv(matrix: ModuleType, fake: Fake, tmp_path: Path) -> None:
    assert matrix.find("3.12") is None
    of_uv = fake("managed/python3.12")
    script(tmp_path / "uv", f"""[ "$6" = 3.12 ] && echo '[{{"path": "{of_uv}"}}]'""")
    assert matrix.find("3.12") == of_uv
    of_pyenv = fake("pyenv/versions/3.12.1/bin/python")
    assert matrix.find("3.12") == of_pyenv
    of_path = fake("path/python3.12")
    assert matrix.find("3.12") == of_path
    assert matrix.find("3.1") is None


def test_the_newest_release_of_pyenv_is_taken_by_number(matrix: ModuleType, fake: Fake) -> None:
    fake("pyenv/versions/3.12.9/bin/python")
    newest = fake("pyenv/versions/3.12.10/bin/python")
    fake("pyenv/versions/3.12.10-debug/bin/python")
    fake("pyenv/versions/3.13.0/bin/python", "cpython 3.13")
    assert matrix.find("3.12") == newest


@pytest.mark.parametrize("says", ["", "pypy 3.12", "cpython 3.11"])
def test_what_is_another_python_or_does_not_run_is_passed_over(matrix: ModuleType, fake: Fake, says: str) -> None:
    fake("path/python3.12", says)
    assert matrix.find("3.12") is None
    behind = fake("pyenv/versions/3.12.1/bin/python")
    assert matrix.find("3.12") == behind


def test_a_pyenv_without_the_program_and_a_broken_uv_are_no_error(
    matrix: ModuleType, fake: Fake, tmp_path: Path
) -> None:
    (tmp_path / "pyenv" / "versions" / "3.12.1").mkdir(parents=True)
    script(tmp_path / "uv", "echo no such option; exit 2")
    assert matrix.find("3.12") is None


def test_this_very_python_answers(matrix: ModuleType) -> None:
    assert matrix.answer(sys.executable) == f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    assert matrix.answer("/no/such/python") == ""


def test_uncommitted_changes_are_copied_and_what_is_ignored_is_left(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "PLACE", tmp_path / "build" / "matrix")
    for name, text in {".gitignore": "build/\n.venv/\n", "changed": "old", "removed": "", "kept": ""}.items():
        (tmp_path / name).write_text(text)
    matrix.git(tmp_path, "init", "--quiet")
    matrix.git(tmp_path, "add", "--all")
    matrix.checked_out(matrix.snapshot(), "3.12")
    (tmp_path / "changed").write_text("new")
    (tmp_path / "removed").unlink()
    (tmp_path / "untracked").write_text("")
    copy = tmp_path / "build" / "matrix" / "3.12"
    (copy / ".venv").mkdir()
    (copy / ".venv" / "stays").write_text("")
    (copy / "left by a test").write_text("")
    before = matrix.git(tmp_path, "status", "--porcelain")
    assert matrix.checked_out(matrix.snapshot(), "3.12") == copy
    files = {path.name for path in copy.iterdir()}
    assert files == {".git", ".gitignore", ".venv", "changed", "kept", "untracked"}
    assert (copy / "changed").read_text() == "new"
    assert (copy / ".venv" / "stays").exists()
    assert matrix.git(copy, "status", "--porcelain") == ""
    assert matrix.git(tmp_path, "status", "--porcelain") == before


def test_parts_are_counted_and_the_end_of_a_failed_one_is_shown(
    matrix: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "3.12"
    copy.mkdir()
    say = [sys.executable, "-c", "import sys; print(*range(100), sys.argv[1], sep='\\n'); sys.exit(int(sys.argv[2]))"]
    good, bad = "===== 2 passed, 1 skipped in 0.12s =====", "===== 1 failed, 2 passed in 61.20s (0:01:01) ====="
    parts = {"demo": [*say, "", "0"], "unit": [*say, good, "0"], "integration": [*say, bad, "1"]}
    cells = matrix.run(copy, [], parts)
    assert cells == {"demo": "passed", "unit": "2 passed, 1 skipped", "integration": "FAILED 1 failed, 2 passed"}
    shown = capsys.readouterr().out.splitlines()
    assert "61" in shown
    assert "60" not in shown
    assert len((tmp_path / "3.12.integration.log").read_text().splitlines()) == 102
    assert matrix.run(copy, [[*say, "", "1"]], parts) == dict.fromkeys(parts, "FAILED (setup)")


def test_a_child_gets_no_variable_that_would_mix_the_copies(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "3.12").mkdir()
    for name in matrix.NOT_THEIRS:
        monkeypatch.setenv(name, "ours")
    assert matrix.succeeds(tmp_path / "3.12", "demo", [sys.executable, "-c", "import os; print(os.environ)"])
    assert "ours" not in (tmp_path / "3.12.demo.log").read_text()


def test_the_table_has_a_line_for_what_is_not_there(matrix: ModuleType) -> None:
    rows = [("3.10", {"demo": "passed", "unit": "FAILED 1 failed"}, 61.4), ("3.13", {}, 0.1)]
    assert matrix.table(["demo", "unit"], rows).splitlines() == [
        "version   demo        unit              seconds",
        "3.10      passed      FAILED 1 failed   61",
        "3.13      not found",
    ]


def test_the_bounds_of_this_python_and_of_the_extras_that_are_tried_are_read(matrix: ModuleType) -> None:
    needed = [
        "GitPython<4,>=3.1.44",
        "rich>=13",
        "flask>=3.0; extra == 'sagemaker-local'",
        "moto[s3]>=5.2; extra == 'sagemaker-local'",
        "sagemaker>=3; python_version < '3.12' and extra == 'sagemaker'",
        "tomli>=2; python_version < '3.11'",
    ]
    resolved = "gitpython==3.1.44\nrich==13.8.0\nflask==3.0.0\nmoto[s3]==5.2.1 ; extra\n    # via nobody==1\n"
    expected = [
        ("GitPython", "3.1.44", "3.1.44"),
        ("rich", "13", "13.8.0"),
        ("flask", "3.0", "3.0.0"),
        ("moto", "5.2", "5.2.1"),
    ]
    assert list(matrix.lowest(needed, resolved, "3.13")) == expected
    older = [*expected, ("tomli", "2", "2.0.1")]
    assert list(matrix.lowest(needed, f"{resolved}tomli==2.0.1\n", "3.10")) == older


def test_each_need_of_the_package_has_a_lower_bound(matrix: ModuleType) -> None:
    needed = requires("mlflow-projects-on-airflow") or []
    resolved = "".join(f"{canonicalize_name(Requirement(text).name)}==1\n" for text in needed)
    assert len(list(matrix.lowest(needed, resolved, "3.10"))) > 8


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["3.9"], "3.9 is none of 3.10, 3.11, 3.12, 3.13"),
        (["--parts", "dema"], "invalid choice: 'dema'"),
        (["--lowest", "--parts", "check"], "the other parts install the lock"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: list[str], says: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / "matrix.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
