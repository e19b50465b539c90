"""The git server of docker-compose.yaml for tests, with a list of the requests that it got."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

sys.path.append(str(Path(__file__).resolve().parents[2] / "custom_images" / "git"))
from git_server import GitHandler, basic


@dataclass(frozen=True)
class Request:
    """A request as the server saw it; ``fetch`` is True where the client asked for objects."""

    method: str
    path: str
    authorization: str | None
    fetch: bool


class GitServer:
    """Serve all repositories directly below a folder.

    :param username: with ``password``: ask for basic auth
    :param before_answer: called for each admitted request; its answer waits for it
    """

    def __init__(
        self, root: Path, username: str = "", password: str = "", before_answer: Callable[[], object] = lambda: None
    ) -> None:
        self.root, self.before_answer = root, before_answer
        self.expected = basic(username, password) if username else None
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

    def _handler(server) -> type[GitHandler]:
        class Handler(GitHandler):
            root = server.root
            authorization = server.expected

            def admitted(self) -> bool:
                admitted = super().admitted()
                if not admitted:
                    self._note(fetch=False)
                return admitted

            def run_backend(self, body: BinaryIO, path: str, query: str) -> None:
                sent = body.read()
                plain = gzip.decompress(sent) if self.headers.get("Content-Encoding") == "gzip" else sent
                self._note(fetch=b"command=fetch" in plain)
                body.seek(0)
                server.before_answer()
                super().run_backend(body, path, query)

            def _note(self, *, fetch: bool) -> None:
                server.requests.append(Request(self.command, self.path, self.headers.get("Authorization"), fetch))

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
