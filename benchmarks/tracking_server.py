"""A tracking server for the benchmark, and a proxy that counts the requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

OURS = "mlflow-projects-on-airflow"  # the User-Agent of our task processes
_START_SECONDS = 120
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@contextlib.contextmanager
def tracking_server(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run ``mlflow server`` on a database in a folder; yield its URI when it answers.

    :raises RuntimeError: it does not start, or is dead at the end
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    options = {
        "--backend-store-uri": f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
    }
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)],
            env={**environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(uri):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The tracking server does not start; see {log}.")
            time.sleep(0.2)
        yield uri
        if not _healthy(uri):
            raise RuntimeError(f"The tracking server died; see {log}.")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def create_run(uri: str) -> str:
    """Make a run in the default experiment and return its id."""
    request = {"experiment_id": "0", "start_time": int(time.time() * 1000)}
    return str(_post(uri, "runs/create", request)["run"]["info"]["run_id"])


def unfinished_runs(uri: str) -> int:
    """Return how many runs did not end as FINISHED."""
    request = {"experiment_ids": ["0"], "filter": "attributes.status != 'FINISHED'", "max_results": 1000}
    return len(_post(uri, "runs/search", request).get("runs", []))


def _post(uri: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{uri}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def counting_proxy(uri: str) -> Iterator[tuple[str, Counter[tuple[bool, str]]]]:
    """Yield a URI in front of the server, and a count by (is it ours?, kind of request)."""
    target = uri.removeprefix("http://")
    calls: Counter[tuple[bool, str]] = Counter()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            calls[self.headers.get("User-Agent") == OURS, _kind(self.command, self.path)] += 1
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection(target, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}", calls
    finally:
        proxy.shutdown()
        proxy.server_close()


def _kind(method: str, path: str) -> str:
    """Return ``POST runs/create``, say, with no host, version, query or run id."""
    path = re.sub(r"^/(ajax-)?api/[\d.]+/(mlflow/)?", "", path.partition("?")[0])
    return f"{method} {re.sub('^mlflow-artifacts/.*', 'mlflow-artifacts', path)}"
