"""A proxy that counts the requests and connections to a tracking server, and what rows ask the server itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OURS = "mlflow-projects-on-airflow"  # the User-Agent of our task processes
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


@dataclass
class Calls:
    """What passed a counting proxy.

    :param kinds: how often, by (is it of our task process?, kind of request)
    :param connections: how many TCP connections, by whether they are of our task process
    """

    kinds: Counter[tuple[bool, str]] = field(default_factory=Counter)
    connections: Counter[bool] = field(default_factory=Counter)

    def requests(self, *, ours: bool) -> dict[str, int]:
        """Return the requests of our task processes, or of everybody else, by kind."""
        return {kind: count for (is_ours, kind), count in sorted(self.kinds.items()) if is_ours == ours}


@contextlib.contextmanager
def counting_proxy(uri: str) -> Iterator[tuple[str, Calls]]:
    """Yield a URI in front of a tracking server, and the count of what passes."""
    target = uri.removeprefix("http://")
    calls = Calls()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        is_counted = False  # an instance is a connection

        def forward(self) -> None:
            is_ours = self.headers.get("User-Agent") == OURS
            calls.kinds[is_ours, _kind(self.command, self.path)] += 1
            if not self.is_counted:
                self.is_counted = True
                calls.connections[is_ours] += 1
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
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_address[1]}", calls
    finally:
        proxy.shutdown()
        proxy.server_close()


def create_run(uri: str) -> str:
    """Make a run in the default experiment and return its id."""
    request = {"experiment_id": "0", "start_time": int(time.time() * 1000)}
    return str(ask(uri, "runs/create", request)["run"]["info"]["run_id"])


def count_runs(uri: str, query: str) -> int:
    """Return how many runs of the default experiment match a filter, 1000 at most."""
    request = {"experiment_ids": ["0"], "filter": query, "max_results": 1000}
    return len(ask(uri, "runs/search", request).get("runs", []))


def ask(uri: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST to MLflow's REST API and return its answer."""
    request = urllib.request.Request(
        f"{uri}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def _kind(method: str, path: str) -> str:
    """Return ``POST runs/create``, say, with no host, version, query or run id."""
    path = re.sub(r"^/(ajax-)?api/[\d.]+/(mlflow/)?", "", path.partition("?")[0])
    return f"{method} {re.sub('^mlflow-artifacts/.*', 'mlflow-artifacts', path)}"
