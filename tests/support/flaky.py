"""A proxy in front of a tracking server that misbehaves on order."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

# A fault gets the handler and a function that forwards the request; it says whether it answered.
Fault = Callable[[BaseHTTPRequestHandler, Callable[[], httpx.Response]], bool]


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Fault:
    """Answer with a status, without asking the server."""

    def fault(handler: BaseHTTPRequestHandler, _: Callable[[], httpx.Response]) -> bool:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        return True

    return fault


def lose_answer(handler: BaseHTTPRequestHandler, forward: Callable[[], httpx.Response]) -> bool:
    """Let the server do its work, then cut the connection: the client cannot know."""
    forward()
    handler.close_connection = True
    handler.connection.close()
    return True


def refuse(handler: BaseHTTPRequestHandler, _: Callable[[], httpx.Response]) -> bool:
    """Cut the connection before the server hears of anything."""
    handler.close_connection = True
    handler.connection.close()
    return True


def outlast(handler: BaseHTTPRequestHandler, forward: Callable[[], httpx.Response]) -> bool:
    """Let the server do its work, and answer when the client has given up."""
    got = forward()
    with contextlib.suppress(OSError):
        handler.connection.recv(1, socket.MSG_PEEK)  # returns when the client hangs up
        answer(got.status_code, body=got.content)(handler, forward)
    return True


@dataclass
class FlakyProxy:
    """Forward requests to ``target``; faults queued per path's end come first, each once.

    :param down: cut every connection
    :param delay: seconds by which every answer is late
    :ivar failed: the paths of the requests that got no answer of the server, or a bad one
    """

    target: str
    down: bool = False
    delay: float = 0.0
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> FlakyProxy:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.body = body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.partition("?")[0].partition("/mlflow/")[2]
                proxy.requests.append(path)
                if proxy.down:
                    proxy.failed.append(path)
                    refuse(self, lambda: httpx.Response(503))
                    return
                time.sleep(proxy.delay)

                def forward() -> httpx.Response:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                    return httpx.request(
                        self.command, proxy.target + self.path, headers=headers, content=body, timeout=60
                    )

                queued = proxy.faults.get(path, [])
                if queued and queued.pop(0)(self, forward):
                    proxy.failed.append(path)
                    return
                try:
                    got = forward()
                except httpx.HTTPError:  # the server behind is down
                    proxy.failed.append(path)
                    refuse(self, forward)
                    return
                if got.is_server_error:
                    proxy.failed.append(path)
                self.send_response(got.status_code)
                self.send_header("Content-Type", got.headers.get("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(got.content)))
                self.end_headers()
                self.wfile.write(got.content)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler
