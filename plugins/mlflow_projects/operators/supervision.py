"""Notice that Airflow's supervisor of this task process is gone.

A supervisor that is killed leaves its task process running, unseen: Airflow gives the task up when its
heartbeat is overdue and starts the next try, while the old command still works.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

_LOOK_EVERY_SECONDS = 1.0


@contextlib.contextmanager
def stop_without_supervisor() -> Iterator[None]:
    """Send this process SIGTERM, as Airflow would, when its supervisor dies during the block.

    Under ``dag.test()`` there is no supervisor process, and nothing is watched.
    """
    channel = _channel()
    if channel is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_SECONDS):
            if _is_closed(channel):
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _channel() -> socket.socket | None:
    from airflow.sdk.execution_time import task_runner

    channel = getattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "socket", None)
    return channel if isinstance(channel, socket.socket) else None


def _is_closed(channel: socket.socket) -> bool:
    """Look at the channel without taking anything out of it; the main thread may be reading."""
    try:
        return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
