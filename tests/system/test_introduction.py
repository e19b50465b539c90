"""Quickstart, wine and logistic regression: the exact records, alone and as DAGs; a server never stays behind."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.dagruns import DagRunResult, run_dag
from tests.support.introduction import (
    SAMPLES,
    artifacts,
    histories,
    kinds_missing,
    project_environment,
    run_alone,
)
from tests.support.waiting import PATIENCE, wait, wait_for_server

MODEL = "ElasticnetWineModel"
FIGURES = {"rmse": 0.7460550348172179, "mae": 0.576381895873763, "r2": 0.21136606570632266}


@pytest.fixture(scope="module")
def wine(server: str) -> DagRunResult:
    return run_dag("wine")


@pytest.fixture(scope="module")
def logistic_regression(server: str) -> DagRunResult:
    return run_dag("logistic_regression")


def run_of(result: DagRunResult, task: str, tracking_uri: str) -> Any:
    from mlflow import MlflowClient

    assert result.state == "success", result.log
    return MlflowClient(tracking_uri).get_run(result.tasks[task].xcom["run_id"])


def logged_model(tracking_uri: str, run: Any) -> Any:
    from mlflow import MlflowClient

    (output,) = MlflowClient(tracking_uri).get_run(run.info.run_id).outputs.model_outputs
    return MlflowClient(tracking_uri).get_logged_model(output.model_id)


def test_quickstart_records_a_parameter_a_metric_three_times_and_a_file(server: str, tmp_path: Path) -> None:
    run = run_of(run_dag("quickstart"), "introduction.quickstart", server)
    assert set(run.data.params) == {"param1"}
    assert 0 <= int(run.data.params["param1"]) <= 100
    assert [step for step, _ in histories(server, run)["foo"]] == [0, 1, 2]
    assert set(artifacts(server, run, tmp_path)) == {"test.txt"}
    assert run.data.tags["mlflow.source.name"] == str(SAMPLES / "quickstart")
    assert run.data.tags["mlflow.source.type"] == "PROJECT"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert run.data.tags["mlflow.user"]
    assert kinds_missing(server, run) == []


def test_wine_has_the_known_figures(wine: DagRunResult, server: str) -> None:
    run = run_of(wine, "wine.train", server)
    assert run.data.metrics == pytest.approx(FIGURES, rel=0, abs=1e-12)
    assert {name: run.data.params[name] for name in ("alpha", "l1_ratio")} == {"alpha": "0.5", "l1_ratio": "0.1"}


def test_the_wine_model_is_registered_with_its_signature(wine: DagRunResult, server: str) -> None:
    from mlflow import MlflowClient
    from mlflow.models import get_model_info

    registered = wine.tasks["wine.register"].xcom
    version = MlflowClient(server).get_model_version(MODEL, str(registered["version"]))
    assert version.run_id == wine.tasks["wine.train"].xcom["run_id"]
    signature = get_model_info(f"models:/{MODEL}/{version.version}").signature
    assert len(signature.inputs.input_names()) == 11
    assert signature.outputs is not None


def test_wine_alone_reads_a_csv_file_registers_its_model_and_has_the_same_figures(
    server: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    file = tmp_path / "wines.csv"
    with project_environment("wine") as environment:
        code = f"import wine_data; wine_data.load().to_csv({str(file)!r}, sep=';', index=False)"
        subprocess.run(["python", "-c", code], cwd=SAMPLES / "wine", env=environment, check=True)
    rows = list(csv.DictReader(io.StringIO(file.read_text()), delimiter=";"))
    assert len(rows) == 1599
    counts = {quality: sum(int(row["quality"]) == quality for row in rows) for quality in range(3, 9)}
    assert counts == {3: 10, 4: 53, 5: 681, 6: 638, 7: 199, 8: 18}  # table 1 of Cortez et al.
    run = run_alone(server, "wine", "main", "wine alone", data=file)
    assert run.data.metrics == pytest.approx(FIGURES, rel=0, abs=1e-12)
    versions = MlflowClient(server).search_model_versions(f"run_id = '{run.info.run_id}'")
    assert [version.name for version in versions] == [MODEL]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.py", "--data", "gone.csv"], "The wine data gone.csv cannot be read"),
        (["train.py", "--data", "OTHER_TABLE"], "lacks the column(s) fixed acidity"),
        (["train.py", "--l1-ratio", "1.5"], "--l1-ratio must be from 0 to 1, not 1.5"),
    ],
)
def test_wine_says_in_a_sentence_what_is_wrong(arguments: list[str], words: str, server: str, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("height,weight\n1,2\n")
    arguments = [part.replace("OTHER_TABLE", str(other)) for part in arguments]
    with project_environment("wine") as environment:
        done = subprocess.run(
            ["python", *arguments], cwd=SAMPLES / "wine", env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_logistic_regression_has_the_known_score_and_serves_its_model(
    logistic_regression: DagRunResult, server: str, tmp_path: Path
) -> None:
    train = run_of(logistic_regression, "introduction.train", server)
    assert train.data.metrics == {"score": 0.6666666666666666}
    assert logged_model(server, train).name == "model"
    serve = run_of(logistic_regression, "introduction.serve", server)
    invocation = json.loads(artifacts(server, serve, tmp_path)["invocation.json"])
    assert invocation["question"] == {"dataframe_split": {"data": [[1], [-1]]}}
    assert invocation["answer"] == {"predictions": [1, 0]}
    assert processes_of(serve.info.run_id) == []


def test_the_steps_lack_none_of_the_seven_kinds_of_record(
    wine: DagRunResult, logistic_regression: DagRunResult, server: str
) -> None:
    runs = [run_of(wine, "wine.train", server)]
    runs += [run_of(logistic_regression, f"introduction.{step}", server) for step in ("train", "serve")]
    assert {run.info.run_name: kinds_missing(server, run) for run in runs[1:]} == {"train": [], "serve": []}
    assert kinds_missing(server, runs[0]) == []


def processes_of(run_id: str) -> list[psutil.Process]:
    """Return the living processes that work for a run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("MLFLOW_RUN_ID") == run_id:
                found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_serve_leaves_no_server(
    number: signal.Signals, logistic_regression: DagRunResult, server: str, tmp_path: Path
) -> None:
    run_id = logistic_regression.tasks["introduction.train"].xcom["run_id"]
    file = tmp_path / "log"
    with project_environment("logistic_regression") as environment, file.open("wb") as log:
        process = subprocess.Popen(
            ["python", "serve.py", "--model-uri", f"runs:/{run_id}/model"],
            cwd=SAMPLES / "logistic_regression", env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            port = wait_for_server(lambda: port_of_server(process.pid), process, "serve.py", file)
            family = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, number)
            assert process.wait(timeout=PATIENCE) == (143 if number == signal.SIGTERM else -number)
        finally:
            process.kill()
        wait(lambda: not any(alive(found) for found in family), "the end of the server's processes")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def port_of_server(pid: int) -> int | None:
    """Return the port of the uvicorn below a process, once there is one."""
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if any(part.endswith("uvicorn") for part in command) and "--port" in command:
                return int(command[command.index("--port") + 1])
    return None


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_model_that_cannot_be_served_fails_at_once(server: str) -> None:
    with project_environment("logistic_regression") as environment:
        done = subprocess.run(
            ["python", "serve.py", "--model-uri", "models:/no_such_model/1"], cwd=SAMPLES / "logistic_regression",
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "The server ended with exit status 1 before it was ready" in done.stderr
