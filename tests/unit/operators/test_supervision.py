"""The end of a task process, as Airflow's supervisor sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from mlflow_projects.operators import supervision
from mlflow_projects.operators.supervision import stop_is_written, time_out_is_heard

HOUR = timedelta(hours=1)

# What the supervisor does: it reads a channel to its end, then looks whether the process has ended. The process has
# many files to close after its output, as one that was forked from an executor has.
_ENDS = """
import os, socket, types
from airflow.sdk.execution_time import task_runner
from mlflow_projects.operators.supervision import let_supervisor_notice_the_end

noticed = 0
for _ in range(20):
    supervisor, task = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        task_runner.SUPERVISOR_COMMS = types.SimpleNamespace(socket=supervisor)
        os.dup2(task.fileno(), 1)
        files = [socket.socketpair() for _ in range(200)]
        let_supervisor_notice_the_end()
        os._exit(0)
    task.close()
    while supervisor.recv(1):
        pass
    noticed += os.waitpid(pid, os.WNOHANG)[0] == pid
    supervisor.close()
print(noticed)
"""


def test_a_task_process_has_ended_when_its_output_closes() -> None:
    """Of processes that do nothing about it, some have not."""
    done = subprocess.run([sys.executable, "-c", _ENDS], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "20"


class Alarm(BaseException):
    """What Airflow raises when a task's time is over."""


@pytest.fixture
def airflows_alarm() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handle)
    yield
    assert signal.getsignal(signal.SIGALRM) is handle, "it is put back"
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("airflows_alarm")
def test_a_time_out_that_foreign_code_swallows_is_heard() -> None:
    heard: list[bool] = []
    with time_out_is_heard(HOUR, lambda: bool(heard.append(True) or heard)), contextlib.suppress(Alarm):
        signal.raise_signal(signal.SIGALRM)
    assert heard == [True]


@pytest.mark.usefixtures("airflows_alarm")
def test_a_time_out_that_is_obeyed_interrupts_nothing() -> None:
    written: list[str] = []
    with time_out_is_heard(HOUR, lambda: True):
        signal.raise_signal(signal.SIGALRM)
        written.append("the record")
    assert written == ["the record"]


@pytest.mark.usefixtures("airflows_alarm")
def test_a_time_out_that_never_came_is_sent_until_something_comes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_STRIKE_AGAIN_SECONDS", 0.2)  # long enough to come back into the block below
    heard: list[bool] = []
    is_enough = threading.Event()

    def expire() -> bool:
        heard.append(True)
        if len(heard) == 3:
            is_enough.set()
        return is_enough.is_set()

    with time_out_is_heard(timedelta(0), expire):
        while len(heard) < 3:
            with contextlib.suppress(Alarm):
                is_enough.wait(60)
    assert heard == [True] * 3


@pytest.mark.parametrize("timeout", [None, HOUR])
def test_without_an_alarm_of_airflow_nothing_is_changed(timeout: timedelta | None) -> None:
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        with time_out_is_heard(timeout, lambda: True):
            assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGALRM, before)


# --- a block that forks ---


@contextlib.contextmanager
def forked() -> Iterator[int]:
    """Yield the id of a process that answers each signal, as a worker of a pool does; Python forks it."""
    ready, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: os.write(says, b"heard"))
        os.write(says, b"ready")
        while True:
            signal.pause()
    os.read(ready, 5)
    try:
        yield pid
        os.kill(pid, signal.SIGTERM)
        assert os.read(ready, 5) == b"heard"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(says)


def test_a_signal_to_a_process_that_a_function_forked_is_no_stop_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_WRITE_AFTER_SECONDS", 0.0)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    written, is_written = [], threading.Event()

    def write() -> None:
        written.append(os.getpid())
        is_written.set()

    try:
        with stop_is_written(write):
            with forked():
                pass
            assert written == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert is_written.wait(60), "a signal to the task itself is heard"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert written == [os.getpid()]


def test_a_forked_process_that_goes_on_does_not_hold_up_the_end() -> None:
    with contextlib.ExitStack() as left:
        with stop_is_written(lambda: None):
            left.enter_context(forked())
        assert "stop-watch" not in [thread.name for thread in threading.enumerate()]
