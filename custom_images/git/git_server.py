"""Serve git repositories over http to one user, by git's own ``http-backend``: the service ``git`` of
docker-compose.yaml.

A push to a name that is new makes the repository: ``git push http://localhost:3000/NAME.git main``.

Environment:
  GIT_ROOT                 the folder of the repositories
  GIT_USER, GIT_PASSWORD   who may read and write (basic auth)
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

PORT = 3000
# All that a git client asks for. Names do not begin with a dot, so no path leads out of the folder.
_PATH = re.compile(r"/(\w[\w.-]*\.git)/(info/refs|git-upload-pack|git-receive-pack)", re.ASCII)
_CHUNK = 64 * 1024  # bytes


def basic(user: str, password: str) -> str:
    """Return what a client of that user sends as ``Authorization``."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class GitHandler(BaseHTTPRequestHandler):
    """Answers one request; a subclass says where the repositories are and who may come.

    ``authorization`` is None where anybody may.
    """

    root: Path
    authorization: str | None = None
    protocol_version = "HTTP/1.1"  # git sends a big push in chunks
    timeout = 300  # seconds without a byte
    _making = threading.Lock()

    def do_GET(self) -> None:
        """Answer the health check, or list a repository's branches and tags to a client."""
        if self.path == "/health":
            self.send_response(200)
            self._end("ok")
        else:
            self._serve()

    def do_POST(self) -> None:
        """Take a push, or give the objects of a fetch."""
        self._serve()

    def _serve(self) -> None:
        if not self.admitted():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self._end()
            return
        path, _, query = self.path.partition("?")
        found = _PATH.fullmatch(unquote(path))
        if not found:
            self.send_response(404)
            self._end("The address is http://HOST:PORT/NAME.git")
            return
        repository = self.root / found[1]
        pushing = "git-receive-pack" in (found[2], query.removeprefix("service="))
        if pushing:
            self._make(repository)
        try:
            with tempfile.TemporaryFile() as body:
                for chunk in self._chunks():
                    body.write(chunk)
                body.seek(0)
                self.run_backend(body, found[0], query)
        except ValueError:
            self.send_response(400)
            self._end("The request cannot be read.")
            return
        if pushing:
            _point_head_at_a_branch(repository)

    def admitted(self) -> bool:
        """Say whether the request's user and password are right; the time that takes tells nothing of them."""
        given = self.headers.get("Authorization", "")
        return self.authorization is None or hmac.compare_digest(given.encode(), self.authorization.encode())

    def _make(self, repository: Path) -> None:
        with self._making:
            if not repository.exists():
                command = ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(repository)]
                subprocess.run(command, check=True)

    def _chunks(self) -> Iterator[bytes]:
        """Yield the request's body.

        :raises ValueError: it is not as HTTP has it
        """
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(_CHUNK).partition(b";")[0], 16):
            yield from self._read(size)
            self.rfile.readline(_CHUNK)
        while self.rfile.readline(_CHUNK).strip():  # trailers
            pass

    def _read(self, size: int) -> Iterator[bytes]:
        while size > 0:
            chunk = self.rfile.read(min(size, _CHUNK))
            if not chunk:
                raise ValueError("the request ends too early")
            size -= len(chunk)
            yield chunk

    def run_backend(self, body: BinaryIO, path: str, query: str) -> None:
        """Let git answer the request.

        :param body: an open file
        """
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(os.fstat(body.fileno()).st_size),
            "REMOTE_USER": "git",  # without a user git refuses every push
            "REMOTE_ADDR": self.client_address[0],
        }
        command = ["git", "-c", "safe.directory=*", "http-backend"]
        with subprocess.Popen(command, stdin=body, stdout=subprocess.PIPE, env=environment) as backend:
            assert backend.stdout is not None
            lines = iter(lambda: backend.stdout.readline().strip().decode(), "")
            headers = dict(line.split(": ", 1) for line in lines)
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self._end()
            with suppress(BrokenPipeError, ConnectionResetError):
                shutil.copyfileobj(backend.stdout, self.wfile)

    def _end(self, text: str = "") -> None:
        self.send_header("Connection", "close")  # which also ends a body whose length is not known before
        self.end_headers()
        if text:
            self.wfile.write(f"{text}\n".encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write a line for each request but the health check's."""
        if self.path != "/health":
            super().log_request(code, size)


def _point_head_at_a_branch(repository: Path) -> None:
    """Let a clone without a branch's name find one: the first that was pushed, if that is not ``main``."""
    command = ["git", "--git-dir", str(repository), "-c", "safe.directory=*"]
    head = subprocess.run([*command, "rev-parse", "--quiet", "--verify", "HEAD"], check=False, capture_output=True)
    listed = [*command, "for-each-ref", "--format=%(refname)", "refs/heads/"]
    branches = subprocess.run(listed, check=False, capture_output=True, text=True).stdout.split()
    if head.returncode and branches:
        subprocess.run([*command, "symbolic-ref", "HEAD", branches[0]], check=False)


def main() -> None:
    """Serve until SIGTERM."""

    class Handler(GitHandler):
        root = Path(os.environ["GIT_ROOT"])
        authorization = basic(os.environ["GIT_USER"], os.environ["GIT_PASSWORD"])

    print(f"Serving the repositories in {Handler.root} on port {PORT}.")
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
