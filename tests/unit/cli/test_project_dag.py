"""A DAG for the entry points of a project."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_projects.cli import main, project_dag
from mlflow_projects.cli.check_rules import lint_project
from mlflow_projects.exceptions import ProjectError

POINTS = {
    "prepare": "parameters: {rows: {type: int, default: 100}, seed: {type: int, default: 1}}",
    "train": "parameters: {rate: {type: float, default: 0.1}, seed: {type: int, default: 2}, data: path}",
    "report": "parameters: {seed: {type: int, default: 1}}",
    "main": "parameters: {}",
}


def project(folder: Path, **depends_on: str) -> Path:
    lines = ["name: churn", "entry_points:"]
    for name, parameters in POINTS.items():
        lines += [f"  {name}:", f"    {parameters}", f'    command: "echo {name}"']
        if name in depends_on:
            lines.append(f"    depends_on: {depends_on[name]}")
    folder.mkdir()
    (folder / "MLproject").write_text("\n".join(lines))
    return folder


def test_depends_on_gives_the_order_and_parameters_become_params(tmp_path: Path) -> None:
    folder = project(tmp_path / "churn", train="[prepare]", report="[prepare]", main="[train, report]")
    text = project_dag.project_dag(folder, "nightly", tmp_path / "dags" / "nightly.py")
    assert 'PROJECT = Path(__file__).resolve().parents[1] / "churn"' in text
    assert '    with mlflow_run("churn", experiment_name="nightly"):' in text
    for line in (
        '"rows": Param(100, type="integer", title="Rows"),',
        '"seed": Param(1, type="integer", title="Seed"),',
        '"train.seed": Param(2, type="integer", title="Seed", section="train"),',
        '"data": Param(type="string", title="Data"),',
        '"seed": "{{ params[\'train.seed\'] }}",',
        'parameters={"seed": "{{ params.seed }}"},',
    ):
        assert line in text
    assert text.endswith(
        "        prepare >> train\n        prepare >> report\n        [train, report] >> main\n"
    )  # fmt: skip
    assert not [found for found in lint_project(folder).findings if "depends_on" in found.message]
    compile(text, "dag", "exec")


def test_without_depends_on_the_files_order_is_the_order(tmp_path: Path) -> None:
    text = project_dag.project_dag(project(tmp_path / "churn"), "x", tmp_path / "x.py")
    assert text.endswith("says depends_on.\n        prepare >> train >> report >> main\n")


@pytest.mark.parametrize(
    ("depends_on", "words"),
    [
        ({"train": "prepare"}, "'entry_points.train.depends_on' must be a list"),
        ({"train": "[nobody]"}, "names 'nobody', which is no other entry point"),
        ({"train": "[train]"}, "names 'train', which is no other entry point"),
        ({"train": "[main]", "main": "[train]"}, "goes in a circle"),
    ],
)
def test_an_order_that_cannot_be_is_a_sentence(
    depends_on: dict[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project(tmp_path / "churn", **depends_on)
    with pytest.raises(ProjectError, match="depends_on"):
        project_dag.project_dag(folder, "x", tmp_path / "x.py")
    assert main(["new", "of_churn", "--from", str(folder), "--dags", str(tmp_path / "dags")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "dags").exists()


def test_mlflow_ignores_depends_on(tmp_path: Path) -> None:
    from mlflow.projects import _project_spec

    folder = project(tmp_path / "churn", train="[prepare]")
    assert _project_spec.load_project(str(folder)).get_entry_point("train").command == "echo train"


def test_the_command_writes_the_dag_and_tells_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path / "churn")
    assert main(["new", "of_churn", "--from", "churn", "--dags", "dags"]) == 0
    assert (tmp_path / "dags" / "of_churn.py").is_file()
    printed = capsys.readouterr().out
    assert "\nNo default: data.\n" in printed
    for command in ("mlflow-projects check churn", """airflow dags test of_churn --conf '{"data": "VALUE"}'"""):
        assert f"  {command}\n" in printed
    assert main(["new", "of_churn", "--from", "churn", "--dags", "dags"]) == 1


@pytest.mark.parametrize("option", [["--python-env"], ["--projects", "x"]])
def test_what_from_cannot_use_is_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project(tmp_path / "churn")
    assert main(["new", "of_churn", "--from", str(folder), "--dags", str(tmp_path / "dags"), *option]) == 1
    assert "leave --projects and --python-env out" in capsys.readouterr().err


def test_a_folder_without_entry_points_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="has no entry points"):
        project_dag.project_dag(tmp_path, "x", tmp_path / "x.py")
