"""Runs one command and outlives nobody: started by :mod:`mlflow_projects.backends.process`.

Usage: ``python -I -S minder.py GRACE COMMAND [ARGUMENT …]``, with a pipe as standard input. When the
other end of the pipe closes (because the task asks for it, or because the task process was killed), or
when the command ends, every process that it started gets SIGTERM and, GRACE seconds later, SIGKILL. The
exit status is the command's own; 128 + n if signal n ended it.

On Linux the minder adopts orphans (PR_SET_CHILD_SUBREAPER), so that a grandchild with a session of its
own is found too. Elsewhere it reaches the command's process group only. Standard library only: it
starts in about 20 ms.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
# After the command ended by itself, what it left behind needs less time to go.
_LEFT_BEHIND_GRACE = 1.0


def _prctl(option, value):
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _in_child():
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should the minder itself be killed


def _descendants():
    """Return the ids of all living processes below this one."""
    children = {}
    for entry in os.listdir("/proc") if _LINUX else ():
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(entry))
    found, to_visit = [], [os.getpid()]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found += below
        to_visit += below
    return found


def _signal_all(group, number):
    """Send a signal to the command's group and to every descendant."""
    with contextlib.suppress(OSError):
        os.killpg(group, number)
    for pid in _descendants():
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _reap(command):
    """Collect ended children, adopted ones included; return the command's wait status if it ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == command:
            return status


def _alive(group):
    if _LINUX:
        return bool(_descendants())
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def main():
    grace, argv = float(sys.argv[1]), sys.argv[2:]
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    stop_asked = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop_asked.append(True))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        # The object must live on: its destructor would reap a command that ends at once.
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_in_child)
    except OSError as error:
        print(f"{argv[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        return 126

    command = process.pid
    status, deadline, killing = None, None, False
    life = [0]
    while True:
        if status is None:
            status = _reap(command)
        else:
            _reap(command)
        if status is not None and not _alive(command):
            break
        if deadline is None and (stop_asked or status is not None):
            left = len(_descendants())  # before the signal, which may at once be the end of some
            _signal_all(command, signal.SIGTERM)
            deadline = time.monotonic() + (_LEFT_BEHIND_GRACE if status is not None else grace)
            if status is not None and left:
                print(f"Stopping {left} process(es) that the command left behind.", file=sys.stderr)
        if deadline is not None and time.monotonic() >= deadline:
            killing = True
        if killing:
            _signal_all(command, signal.SIGKILL)
        pause = 0.02 if killing or status is not None else None if deadline is None else 0.1
        ready, _, _ = select.select([*life, wake_read], [], [], pause)
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
        if 0 in ready and not os.read(0, 4096):
            stop_asked.append(True)
            life.clear()
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())
