"""What `mlflow-projects import` refuses before it starts a Python, and what it takes from its command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from mlflow_projects.cli import import_script, main

PROJECT = """\
name: whole
entry_points:
  main:
    parameters: {text: string, num: int, kind: {type: string, default: a}}
    command: "python main.py {text} {num} {kind}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "MLproject").write_text(PROJECT)
    (tmp_path / "main.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", [["main.py", "--out", "x.py"], ["--out", "x.py", "main.py"]])
def test_arguments_of_the_script_stand_behind_two_dashes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(import_script, "run", lambda arguments: seen.append(arguments) or 0)
    assert main(["import", *words, "--", "--text", "a b", "--", "more"]) == 0
    assert main(["import", *words]) == 0
    assert [(one.args, str(one.script)) for one in seen] == [
        (["--text", "a b", "--", "more"], "main.py"), ([], "main.py"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["."], "Entry point 'main' needs values; pass -P text=VALUE -P num=VALUE."),
        ([".", "-P", "text=a"], "Entry point 'main' needs values; pass -P num=VALUE."),
        (["main.py", "-P", "text"], "-P 'text' is not NAME=VALUE; write for example -P epochs=3."),
        (["main.py", "--out", "dags/json.py"], "json.py would hide the Python module 'json'"),
        (["main.py", "--dag-id", "a b"], "'a b' cannot be a DAG's id"),
        (["no.py"], "no.py does not exist"),
    ],
)
def test_a_sentence_says_what_is_missing(
    words: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *words]) == 1
    assert sentence in capsys.readouterr().err
    assert sorted(file.name for file in folder.iterdir()) == ["MLproject", "main.py"]


def test_help_names_the_words_behind_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    assert "SCRIPT [-- ARG ...]" in capsys.readouterr().out
