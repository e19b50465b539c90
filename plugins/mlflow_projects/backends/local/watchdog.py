"""Runs one command and outlives nobody: started by :mod:`mlflow_projects.backends.local.process`.

Usage: ``python -I -S watchdog.py GRACE COMMAND [ARGUMENT …]``, with a pipe as standard input. When the
other end of the pipe closes (because the task asks for it, or because the task process was killed), or
when the command ends, every process that it started gets SIGTERM and, GRACE seconds later, SIGKILL. The
exit status is the command's own; 128 + n if signal n ended it.

There are two of it, one below the other: the lower one minds the command, the upper one ends what is left should
the lower one be killed or stopped, even together with the task process. Should the upper one be killed, the lower one
ends everything.

On Linux both adopt orphans (PR_SET_CHILD_SUBREAPER), so that a grandchild with a session, an environment or a title
of its own is found too. Elsewhere they reach the command's process group only.

Every step waits for its start, so it imports little: ``subprocess`` and ``contextlib`` would take 15 ms more, and
``signal``, which makes enums of the numbers in ``_signal``, 5 ms.
"""

import _signal as signal  # type: ignore[import-not-found]
import ctypes
import os
import select
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_CANNOT_START = 126
# How much longer than the grace time the lower one may take before the upper one does its work.
_PATIENCE = 1.5
# After the command ended by itself, what it left behind needs less time to go.
_LEFT_BEHIND_GRACE = 1.0


def _prctl(option, value):
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(argv):
    """Start the command in a session of its own; return its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # one that comes too early ends the command too
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        return pid
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (*_STOP_SIGNALS, *_IGNORED_BY_PYTHON):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should the watchdog itself be killed
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{argv[0]}: cannot be started: {error.strerror}\n".encode(errors="surrogateescape"))
    finally:
        os._exit(_CANNOT_START)


def _has_children():
    """Tell whether there is a child, adopted ones included; one that has ended counts until it is reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _descendants():
    """Return the ids of all living processes below this one; where there is no child, there is nobody to look for."""
    children = {}
    for entry in os.listdir("/proc") if _LINUX and _has_children() else ():
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            state, parent, threads = fields[0], fields[1], int(fields[17])
            # One whose first thread has ended is shown as a zombie too, while its other threads work.
            if state not in (b"Z", b"X") or threads > 1:
                children.setdefault(int(parent), []).append(int(entry))
    found, to_visit = [], [os.getpid()]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found += below
        to_visit += below
    return found


def _signal(pid, number, send=os.kill):
    try:
        send(pid, number)
    except OSError:  # it ended meanwhile
        return


def _signal_all(group, number):
    """Send a signal once to the command's group and to every descendant: a second one may run its handler twice."""
    told = set() if number == signal.SIGKILL else {pid for pid in _descendants() if _group_of(pid) == group}
    _signal(group, number, os.killpg)
    for pid in _descendants():
        if pid not in told:
            _signal(pid, number)


def _group_of(pid):
    try:
        return os.getpgid(pid)
    except OSError:  # it ended meanwhile
        return None


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


def _wakened_by_signals(on_stop):
    """Return a descriptor that can be read when a signal came; a stop signal calls the function too."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in _STOP_SIGNALS:
        signal.signal(number, on_stop)
    return read


def _guard(lower, grace):
    """Wait for the end of the lower watchdog, and of all that it may leave; return its exit status."""
    wake_read = _wakened_by_signals(lambda number, _: _signal(lower, number))
    with open(os.devnull, "wb") as nowhere:  # the output ends with the command, not with us
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    status, deadline, life = None, None, [0]
    while True:
        ended = _reap(lower)
        status = ended if status is None else status
        if status is not None and not _descendants():
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        is_late = deadline is not None and time.monotonic() >= deadline
        if status is not None or is_late:
            for pid in _descendants():  # the lower watchdog too, if it is there: it may have been stopped
                _signal(pid, signal.SIGKILL)
        pause = 0.02 if status is not None or is_late else None if deadline is None else 0.1
        ready, _, _ = select.select([*life, wake_read], [], [], pause)
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready:  # nothing is ever written to it: the task is gone, or asks for the end
            deadline = time.monotonic() + grace + _PATIENCE
            life.clear()


def main():
    grace, argv = float(sys.argv[1]), sys.argv[2:]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    lower = os.fork()
    if lower:
        return _guard(lower, grace)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return _mind(grace, argv, guard)


def _mind(grace, argv, guard):
    """Run the command; see to it that nothing of it stays; return its exit status."""
    stop_asked = []
    wake_read = _wakened_by_signals(lambda *_: stop_asked.append(True))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != guard:  # killed before it could be noticed
        return _CANNOT_START
    command = _start(argv)
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
            os.read(wake_read, 4096)
        if 0 in ready and not os.read(0, 4096):
            stop_asked.append(True)
            life.clear()
    _signal(guard, signal.SIGCONT)  # should it have been stopped: nobody else might ever let it end
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())
