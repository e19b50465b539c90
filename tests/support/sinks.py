"""Servers that keep what they are told: a mail server, and one that takes messages by http."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

from tests.support.servers import free_port


class _Keeper:
    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[dict[str, Any], list[EmailMessage]]]:
    """Run a mail server; yield what an Airflow connection to it holds, and the mails that it got."""
    keeper = _Keeper()
    controller = Controller(keeper, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.org"}
        yield {"conn_type": "smtp", "host": "127.0.0.1", "port": controller.port, "extra": extra}, keeper.mails
    finally:
        controller.stop()


@contextlib.contextmanager
def message_server() -> Iterator[tuple[dict[str, Any], list[tuple[str, Any]]]]:
    """Run an http server; yield what an Airflow connection to it holds, and path and JSON of each POST."""
    got: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {"conn_type": "http", "host": "127.0.0.1", "port": server.server_port, "schema": "http"}, got
    finally:
        server.shutdown()
        server.server_close()
