"""Let this task process notice that Airflow's supervisor of it is gone, and the other way round.

A supervisor that is killed leaves its task process running, unseen: Airflow gives the task up when its
heartbeat is overdue and starts the next try, while the old command still works.

A supervisor looks whether its task process has ended whenever a channel to it closes, and else only at the next
heartbeat, which is 5 s later by default; so long the task keeps its slot. But a process that ends closes its output
first and its other files after that: about every second end comes too late for the last look (Airflow 3.3.2,
``airflow.sdk.execution_time.supervisor``, ``_service_subprocess``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import FrameType

_LOOK_EVERY_SECONDS = 1.0
_STRIKE_AGAIN_SECONDS = 2.0
_WRITE_AFTER_SECONDS = 2.5
# Reads until the other end of the pipe is closed, which only the kernel does, then waits until this process ($0) has
# ended and so is no longer the shell's parent. Without /proc, a moment has to do.
_OUTLIVE = """
read -r _; sleep 0.01
while read -r _ _ _ parent _ < /proc/$$/stat && [ "$parent" = "$0" ]; do sleep 0.01; done
"""


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


@contextlib.contextmanager
def time_out_is_heard(execution_timeout: timedelta | None, expire: Callable[[], bool]) -> Iterator[None]:
    """Call a function when Airflow's alarm for the task strikes during the block, and see to it that it does.

    The alarm raises an exception wherever the process happens to be. Foreign code may swallow that, or take the
    signal for its own: so what matters is done before it is raised, and the signal is sent again if nothing came of
    it.

    :param expire: stops the work; returns False if only the alarm's exception ends it
    """
    airflows = signal.getsignal(signal.SIGALRM)
    if execution_timeout is None or not callable(airflows):
        yield
        return
    main, over, is_done = threading.main_thread().ident, threading.Event(), threading.Event()
    assert main is not None

    def strike(number: int, frame: FrameType | None) -> None:
        if expire():  # an exception might only interrupt what writes the record
            is_done.set()
        else:
            airflows(number, frame)

    def watch(seconds: float) -> None:
        while not over.wait(seconds) and not is_done.is_set():
            signal.pthread_kill(main, signal.SIGALRM)
            seconds = _STRIKE_AGAIN_SECONDS

    signal.signal(signal.SIGALRM, strike)
    patience = execution_timeout.total_seconds() + _STRIKE_AGAIN_SECONDS
    threading.Thread(target=watch, args=[patience], name="time-out-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGALRM, airflows)


_listens: int | None = None  # where the signals of this process are told, while a block of stop_is_written works


def _be_deaf() -> None:
    """Let no signal to a process that a function has forked (a pool ends it, say) count as one to this process."""
    global _listens
    if _listens is not None and (other := signal.set_wakeup_fd(-1)) != _listens:
        signal.set_wakeup_fd(other)
    _listens = None


os.register_at_fork(after_in_child=_be_deaf)


@contextlib.contextmanager
def stop_is_written(write: Callable[[], None]) -> Iterator[None]:
    """Call a function from a thread when Airflow's SIGTERM has not ended the block after a while.

    Python's signal handlers wait for code of C to return; Airflow sends SIGKILL 5 s after SIGTERM.
    """
    global _listens
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    over = threading.Event()

    def watch() -> None:
        while numbers := reader.recv(64):
            if signal.SIGTERM in numbers and not over.wait(_WRITE_AFTER_SECONDS):
                write()

    watching = threading.Thread(target=watch, name="stop-watch", daemon=True)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    _listens = writer.fileno()
    watching.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        _listens = None
        writer.shutdown(socket.SHUT_WR)  # to close it is not enough: a forked process may hold it for long
        writer.close()
        watching.join()
        reader.close()


def let_supervisor_notice_the_end() -> None:
    """Have a shell keep the output of this process open until this process has ended.

    Nothing happens under ``dag.test()``, or where no shell can be started: then Airflow notices later.
    """
    if _channel() is None:
        return
    pipe, _ = os.pipe()
    command = ["sh", "-c", _OUTLIVE, str(os.getpid())]
    with contextlib.suppress(OSError):
        os.posix_spawn("/bin/sh", command, {}, file_actions=[(os.POSIX_SPAWN_DUP2, pipe, 0)], setpgroup=0)
    os.close(pipe)


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
