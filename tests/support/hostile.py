"""Tracking servers that mean no good."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator

# Gets a connection of which the request was read, and answers.
Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def hostile_server(answer: Answer) -> Iterator[str]:
    """Run a server during the block whose every connection is a thread; yield its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while _is_asked(connection):
                    answer(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def _is_asked(connection: socket.socket) -> bool:
    """Read a whole request; tell whether there was one."""
    head, rest = b"", b""
    while b"\r\n\r\n" not in head:
        if not (some := connection.recv(65536)):
            return False
        head += some
    head, _, rest = head.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    left = int(length[1]) - len(rest) if length else 0
    while left > 0 and (some := connection.recv(65536)):
        left -= len(some)
    return left <= 0


def answer_of(body: bytes, *headers: str) -> bytes:
    """Return a whole answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Dribble:
    """Answers with a byte every now and then, each long before any time-out of a read.

    :param whole: the answer, which is a good one in the end
    :param at_once: how many bytes of it come at once
    """

    def __init__(self, whole: bytes, at_once: int = 0, pause: float = 0.1) -> None:
        self._whole, self._at_once, self._pause = whole, at_once, pause
        self.begun, self.hung_up = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(self._whole[: self._at_once])
        self.begun.release()
        connection.settimeout(self._pause)
        for byte in self._whole[self._at_once :]:
            try:
                while connection.recv(65536):  # the rest of the request
                    pass
                raise ConnectionError
            except TimeoutError:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                self.hung_up.release()
                return
        connection.settimeout(None)
