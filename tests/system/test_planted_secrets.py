"""Secrets are planted wherever one may be; the step tells all that it knows; then nobody finds one anywhere.

Not looked for is what is meant to be there: the password of the tracking server, and what the administrator gave the
worker, in the environment of the command itself.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_projects.spellings import hidden
from tests.conftest import HOME, RUN
from tests.support.dagruns import DagRunResult, mlflow_runs, run_dag
from tests.support.gitserver import GitServer
from tests.support.repository import Repository

# Recognisable, and each encoding spells them in its own way.
SECRETS = {
    name: f"pL4nt'{name}\"<+/ä&%= {number}x"
    for number, name in enumerate(
        ("mlflow", "mlflow-extra", "git", "git-extra", "aws", "aws-extra", "fernet", "backend", "variable", "other")
    )
} | {"user-of-uri": "pL4nt-user-of-uri-9x", "refused-uri": "pL4nt-refused-uri-9x"}
IN_COMMANDS = ("mlflow", "other")  # environment
TELLS_ALL = """\
import base64, json, os, shlex, sys
from urllib.parse import quote, quote_plus
print(json.dumps({name: text for name, text in os.environ.items() if not name.startswith("OTHER")}))
print(*(f"{name}={text!r}" for name, text in os.environ.items() if "AIRFLOW" in name or "MLFLOW" in name), sep="\\n")
for way in (str, quote, quote_plus, json.dumps, repr, ascii, shlex.quote):
    print("I say", way(os.environ.get("MLFLOW_TRACKING_PASSWORD", "")))
for user in ("", "m", "me"):
    print("Basic", base64.b64encode(f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()).decode())
for file in ("/proc/self/cmdline", "/proc/self/environ", ".git/config"):
    if os.path.exists(file) and not file.endswith("environ"):
        print(open(file).read())
"""
WAITS = "echo running > {folder}/running; cat {folder}/go; python3 tells_all.py"


@dataclass
class Planted:
    """Where everything is.

    :param seen: texts by the place where they were found
    """

    folder: Path
    tracking_uri: str
    before: frozenset[str]
    seen: dict[str, str] = field(default_factory=dict)

    def run(self, dag_id: str = "planted", command: str = "python3 tells_all.py", **conf: Any) -> DagRunResult:
        result = run_dag(dag_id, {"command": command, **conf})
        self.seen[f"log of {result.run_id}"] = result.log
        runs = mlflow_runs(self.tracking_uri, dag_id, result.run_id)
        self.seen[f"records of {result.run_id}"] = str([run.to_dictionary() for run in runs])
        return result

    def look(self) -> None:
        """Read all that is left behind."""
        with contextlib.closing(sqlite3.connect(HOME / "airflow.db")) as database:
            self.seen["Airflow's database"] = "\n".join(database.iterdump())
        new = {path for path in Path(tempfile.gettempdir()).glob("mlflow-projects*") if path.name not in self.before}
        for folder in (RUN / "mlflow-server", self.folder / "cache", HOME / "logs", *new - {RUN}):
            if folder.name.startswith("mlflow-projects-engine"):  # it keeps what its containers get, for root alone
                continue
            # Unlike rglob, os.walk passes over folders that another test's engine removes meanwhile.
            below = [Path(base) / name for base, _, names in os.walk(folder) for name in names]
            for file in below if folder.is_dir() else [folder]:
                with contextlib.suppress(OSError):  # another engine's, which comes and goes
                    if file.is_file():
                        self.seen[str(file)] = file.read_bytes().decode("utf-8", "replace")

    def found(self) -> list[str]:
        """Return where a secret is, in whatever spelling."""
        return [
            f"{name} in {place}"
            for place, text in self.seen.items()
            for name, secret in SECRETS.items()
            if hidden(text, [secret]) != text and not (name in IN_COMMANDS and place.startswith("environment"))
        ]


class _Refuses(http.server.BaseHTTPRequestHandler):
    """A tracking server that lets nobody in, and quotes what it was given."""

    def do_GET(self) -> None:
        content = json.dumps({"message": f"no: {self.headers.get('Authorization')}", "error_code": "UNAUTHENTICATED"})
        self.send_response(401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(content.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def planted(airflow_db: None, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """Plant all secrets; after the tests, look for them."""
    tmp_path = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from _planted(mlflow_server, tmp_path, monkeypatch)


def _planted(mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    repository = Repository(tmp_path / "git")
    mlproject = "entry_points: {main: {parameters: {command: string}, command: 'bash -c {command}'}}\n"
    repository.commit("one", MLproject=mlproject, **{"tells_all.py": TELLS_ALL})
    refuses = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=refuses.serve_forever, args=(0.02,), daemon=True).start()
    login = {"conn_type": "mlflow", "login": "me", "password": SECRETS["mlflow"]}
    login["extra"] = json.dumps({"api_token": SECRETS["mlflow-extra"]})
    port = refuses.server_port
    connections = {
        "planted_mlflow": {**login, "host": mlflow_server},
        "planted_refused": {**login, "host": f"http://127.0.0.1:{port}"},
        "planted_git": {
            "conn_type": "git",
            "password": SECRETS["git"],
            "extra": json.dumps({"secret": SECRETS["git-extra"]}),
        },
        "planted_aws": {
            "conn_type": "aws",
            "login": "AKIAPLANTED",
            "password": SECRETS["aws"],
            "extra": json.dumps({"aws_session_token": SECRETS["aws-extra"], "region_name": "us-east-1"}),
        },
    }
    for conn_id, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_VAR_PLANTED_PASSWORD", SECRETS["variable"])
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARG__TOKEN", SECRETS["backend"])
    monkeypatch.setenv("_AIRFLOW__SOMETHING", SECRETS["fernet"])
    monkeypatch.setenv("OTHER_DEPLOY_TOKEN", SECRETS["other"])
    monkeypatch.setenv("AIRFLOW__MLFLOW_PROJECTS__CACHE_DIR", str(tmp_path / "cache"))
    user = SECRETS["user-of-uri"]
    before = frozenset(path.name for path in Path(tempfile.gettempdir()).glob("mlflow-projects*"))
    with GitServer(repository.bare.parent, username=user, password=SECRETS["git"]) as server, refuses:
        address = server.url.replace("://", f"://{user}@")
        monkeypatch.setenv("AIRFLOW_VAR_PLANTED_URI", f"{address}/project.git")
        here = Planted(tmp_path, mlflow_server, before)
        yield here
        here.look()
        assert sum(map(len, here.seen.values())) > 100_000
        assert here.found() == []
        refuses.shutdown()


def test_success_and_failure(planted: Planted) -> None:
    good = planted.run()
    assert good.tasks["parent.step"].state == "success", good.log[-5000:]
    assert good.log.count("I say") == 7
    bad = planted.run(command="python3 tells_all.py; exit 3")
    assert bad.tasks["parent.step"].state == "failed"
    (step,) = [run for run in mlflow_runs(planted.tracking_uri, "planted", bad.run_id) if run.info.run_name == "step"]
    assert "Basic" in step.data.tags["mlflow_projects.output_tail"]


def test_refused_login_and_refused_uri(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = planted.run(conn="planted_refused")
    assert "refuses the password of user 'me' (HTTP 401: no: Basic bWU6***)" in refused.log, refused.log[-5000:]
    monkeypatch.setenv("AIRFLOW_VAR_PLANTED_URI", f"https://me:{SECRETS['refused-uri']}@127.0.0.1:1/x.git")
    refused = planted.run()
    assert "uri https://127.0.0.1:1/x.git holds a password" in refused.log, refused.log[-5000:]
    (step,) = [
        run for run in mlflow_runs(planted.tracking_uri, "planted", refused.run_id) if run.info.run_name == "step"
    ]
    assert step.data.tags["mlflow.source.name"] == "https://127.0.0.1:1/x.git"


def test_time_out(planted: Planted) -> None:
    late = planted.run("planted_slow", "python3 tells_all.py; sleep 600")
    assert late.tasks["parent.step"].state == "failed"


def test_killed_task_its_processes_and_their_environment(planted: Planted) -> None:
    for name in ("running", "go"):
        os.mkfifo(planted.folder / name)

    def sample() -> None:
        (planted.folder / "running").read_text()  # comes when the command runs
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                planted.seen[f"command line of {process.pid}"] = "\n".join(process.cmdline())
                environment = Path(f"/proc/{process.pid}/environ").read_bytes().decode("utf-8", "replace")
                planted.seen[f"environment of {process.pid}"] = environment
        os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=sample, daemon=True)
    watching.start()
    killed = planted.run(command=WAITS.format(folder=planted.folder))
    watching.join(60)
    assert killed.tasks["parent.step"].state == "failed"
    assert sum(place.startswith("environment") for place in planted.seen) >= 3
    mine = [text for place, text in planted.seen.items() if place.startswith("environment")]
    assert any(SECRETS["mlflow"] in text for text in mine)  # the command has it, and only there


def test_a_container(planted: Planted, engine: Any, base_image: str) -> None:
    result = planted.run(backend_config={"docker_image": base_image})
    assert result.tasks["parent.step"].state == "success", result.log[-5000:]
    assert result.log.count("I say") == 7
    assert engine.leftovers() == []


def test_a_training_job(planted: Planted, sagemaker: Any) -> None:
    sagemaker.forget_requests()
    refused = planted.run(backend="sagemaker")
    assert "secret_environment.MLFLOW_TRACKING_PASSWORD" in refused.log
    secret = sagemaker.client("secretsmanager").create_secret(Name="planted", SecretString=SECRETS["mlflow"])
    config = {"secret_environment": {"MLFLOW_TRACKING_PASSWORD": secret["ARN"]}}
    result = planted.run(backend="sagemaker", backend_config=config)
    assert result.tasks["parent.step"].state == "success", result.log[-5000:]
    planted.seen["requests"] = str(sagemaker.requests())
    names = [job["name"] for job in sagemaker.jobs() if job["name"].startswith("mlflow-planted-")]
    assert names
    for name in names:  # those of other tests of this process may be there too
        planted.seen[f"output of {name}"] = "\n".join(sagemaker.logs(name))
        planted.seen[f"description of {name}"] = str(sagemaker.describe(name))
        spec = f"s3://{sagemaker.bucket}/mlflow/jobs/{name}/spec.json"
        planted.seen[f"spec of {name}"] = sagemaker.get(spec).decode()
    assert any("I say ***" in text for text in planted.seen.values())
