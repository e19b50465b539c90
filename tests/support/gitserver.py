"""A small git server over http, with basic auth and a list of the requests that it got."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """A request as the server saw it; ``fetch`` is True where the client asked for objects."""

    method: str
    path: str
    authorization: str | None
    fetch: bool


class GitServer:
    """Serve all repositories below a folder by git's own ``http-backend``.

    :param username: with ``password``: ask for basic auth
    :param delay: seconds by which every answer to an admitted request is late
    """

    def __init__(self, root: Path, username: str = "", password: str = "", delay: float = 0) -> None:
        self.root, self.delay = root, delay
        self.expected = base64.b64encode(f"{username}:{password}".encode()).decode() if username else None
        self.requests: list[Request] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> GitServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def fetches(self) -> int:
        """Count how often objects were asked for, which is one run of upload-pack each."""
        return sum(request.fetch for request in self.requests)

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def _answer(self, body: bytes) -> None:
                plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                authorization = self.headers.get("Authorization")
                admitted = server.expected is None or authorization == f"Basic {server.expected}"
                wants_objects = admitted and b"command=fetch" in plain
                server.requests.append(Request(self.command, self.path, authorization, wants_objects))
                if not admitted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.end_headers()
                    return
                time.sleep(server.delay)
                self._run_backend(body)

            def _run_backend(self, body: bytes) -> None:
                path, _, query = self.path.partition("?")
                environment = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(server.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                backend = ["git", "-c", "safe.directory=*", "http-backend"]
                output = subprocess.run(backend, input=body, env=environment, capture_output=True).stdout
                head, _, content = output.partition(b"\r\n\r\n")
                headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
                self.send_response(int(headers.pop("Status", "200").split()[0]))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
