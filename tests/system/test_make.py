"""What a newcomer types: ``make demo`` and ``make up``, each in a home of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import psutil
import pytest

from tests.conftest import ROOT
from tests.support.browser import SCREENSHOTS
from tests.support.logs import shown_on_failure
from tests.support.recording import record
from tests.support.servers import free_port
from tests.support.up import running_up
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("demo")
    with shown_on_failure(folder, "logs/demo-*.log"):
        yield folder


def demo(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEMO_HOME": str(home), **variables}
    return subprocess.run(
        [sys.executable, "tools/demo.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_demo_ends_with_the_run_tree(home: Path) -> None:
    conf = '{"text": "안녕 $(id)", "num": 4}'
    done = record([sys.executable, "tools/demo.py"], ROOT, {**os.environ, "DEMO_HOME": str(home), "CONF": conf})
    assert done.status == 0, done.text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.text.splitlines() if "│" in line]
    top = {row[0]: row for row in rows if row[0]}
    assert [(name, row[1]) for name, row in top.items()] == [
        ("pipeline", "FINISHED"), ("└ echo", "FINISHED"), ("└ zip", "FINISHED"),
    ]  # fmt: skip
    assert all(re.fullmatch(r"[0-9a-f]{32}", row[6]) and re.fullmatch(r"\d+\.\d s", row[2]) for row in top.values())
    assert top["└ zip"][5].startswith("downstream/upstream.zip (")
    assert "text=안녕 $(id)" in done.text
    assert "Look further: make up" in done.text
    picture = SCREENSHOTS / "demo.svg"
    done.write_svg(picture, f"make demo CONF='{conf}'")
    shown = "".join("".join(ElementTree.parse(picture).getroot().itertext()).split())
    assert all("".join(line.split()) in shown for line in done.text.splitlines())


def test_demo_explains_a_failure(home: Path) -> None:
    done = demo(home, CONF='{"num": 0}')
    assert done.returncode == 1
    assert "0 is less than the minimum of 1" in done.stdout + done.stderr
    assert "FINISHED" not in done.stdout, "the tree of an earlier run is none of this one's"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"CONF": "{'text': 1}"}, "CONF must be a JSON object"),
        ({"DAG": "no_such_dag"}, "There is no DAG no_such_dag; there are churn_gate, "),
    ],
)
def test_demo_refuses_bad_input_in_a_sentence(home: Path, variables: dict[str, str], words: str) -> None:
    done = demo(home, **variables)
    assert done.returncode == 1
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.nightly
def test_up_runs_the_dag_on_a_real_scheduler_and_leaves_nothing_behind(home: Path) -> None:
    with running_up(home) as up:
        family = [psutil.Process(up.process.pid), *psutil.Process(up.process.pid).children(recursive=True)]
        assert len(family) > 5
        up.unpause("echo_zip")
        run = up.trigger("echo_zip", text="from the scheduler", num=3)
        assert up.wait_end("echo_zip", run) == "success"
        echo = f"/dags/echo_zip/dagRuns/{run}/taskInstances/pipeline.echo"
        links = up.call("GET", f"{echo}/links")["extra_links"]
        found = re.fullmatch(rf"{up.mlflow_uri}/#/experiments/(\d+)/runs/(\w+)", links["MLflow run"])
        assert found
        address = f"{up.mlflow_uri}/api/2.0/mlflow/runs/get"
        record = httpx.get(address, params={"run_id": found[2]}, timeout=60).json()["run"]
        assert record["info"]["status"] == "FINISHED"
        tags = {tag["key"]: tag["value"] for tag in record["data"]["tags"]}
        airflow = str(up.http.base_url).partition("/api/")[0]
        assert tags["airflow.task_url"].startswith(f"{airflow}/dags/echo_zip/runs/")
        assert "Wrote 3 line(s)" in up.http.get(f"{echo}/logs/1").text
        os.killpg(up.process.pid, signal.SIGINT)
        assert up.process.wait(timeout=PATIENCE) == 0
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        assert alive == []


def test_up_names_a_busy_port(home: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {
            **os.environ,
            "DEMO_HOME": str(home),
            "AIRFLOW_PORT": str(free_port()),
            "MLFLOW_PORT": str(port),
        }
        done = subprocess.run(
            [sys.executable, "tools/up.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"Port {port} is in use; choose another one: make up MLFLOW_PORT={port + 1}"]


def test_bootstrap_names_an_old_python_and_a_missing_venv_module(tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('no ensurepip')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "tools/bootstrap.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1, "Python's venv module is missing; install it with: sudo apt-get install python3-venv\n",
    )  # fmt: skip
    code = "import sys; sys.version_info = (3, 8, 1); sys.argv = ['x']; exec(open('tools/bootstrap.py').read())"
    code = code.replace("exec(", "__file__ = 'tools/bootstrap.py'; exec(")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.10 to 3.13 is needed, but ")
