"""A command's whole process tree ends with the attempt, however the attempt ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mlflow_projects.backends.local import watchdog
from mlflow_projects.backends.local.process import ProcessTree

# A command with a child in a session of its own and a grandchild whose parent is gone; both ignore SIGTERM.
STUBBORN = """
trap '' TERM
setsid sleep 300 &
( setsid bash -c 'trap "" TERM; sleep 300' & )
echo started
sleep 300
"""


def tree(script: str, cwd: Path, **kwargs: float) -> ProcessTree:
    return ProcessTree(["bash", "-c", script], cwd=cwd, environment={**os.environ, "MARK": str(cwd)}, **kwargs)


def wait_for(name: str) -> str:
    """Return what a script does to wait for a file in its folder, two minutes at most."""
    return f"for _ in $(seq 6000); do [ -e {name} ] && break; sleep 0.02; done"


def marked(cwd: Path) -> list[psutil.Process]:
    """Return the living processes that carry the tree's mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == str(cwd) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], bool], cwd: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, [process.cmdline() for process in marked(cwd)]
        time.sleep(0.02)


def wait_until_gone(cwd: Path) -> None:
    wait_until(lambda: not marked(cwd), cwd)


@pytest.mark.parametrize(
    ("script", "code"),
    [("true", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("no-such-program", 127)],
)
def test_the_exit_status_is_the_commands_own(script: str, code: int, tmp_path: Path) -> None:
    with tree(script, tmp_path) as command:
        list(command.lines())
        assert command.returncode == code


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with ProcessTree(["no-such-program", "x"], cwd=tmp_path, environment=dict(os.environ)) as command:
        assert list(command.lines()) == ["no-such-program: cannot be started: No such file or directory"]
        assert command.returncode == 126


def test_the_command_starts_with_nothing_of_the_watchdogs(tmp_path: Path) -> None:
    signals = "grep -E '^Sig(Blk|Ign|Cgt):' /proc/self/status"
    script = f"{signals}; readlink /proc/$$/fd/0; ls /proc/$$/fd; ps -o sid= -p $$; echo $$"
    with tree(script, tmp_path) as command:
        *masks, stdin, zero, one, two, session, pid = [line.split()[-1] for line in command.lines()]
    ours = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)
    for mask in masks:
        assert not [number for number in ours if int(mask, 16) >> (number - 1) & 1]
    assert stdin == os.devnull
    assert [zero, one, two] == ["0", "1", "2"], "another file of the watchdog's is open in the command"
    assert session == pid


def test_a_stop_that_comes_at_once_needs_no_force(tmp_path: Path) -> None:
    for pause in (0, 0.02, 0.03, 0.035, 0.04, 0.05):
        with tree("sleep 900", tmp_path, grace=600) as command:
            time.sleep(pause)  # waits for nothing: each is another moment of the start
            command.stop()
            command.wait_stopped()
            assert command.returncode == 143
    wait_until_gone(tmp_path)


def test_no_exit_status_is_lost_however_fast_the_command_ends(tmp_path: Path) -> None:
    def run(code: int) -> int | None:
        with tree(f"exit {code}", tmp_path) as command:
            list(command.lines())
            return command.returncode

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(120))) == list(range(120))


def test_output_of_both_streams_arrives_as_it_comes(tmp_path: Path) -> None:
    with tree(f"echo first; echo second >&2; {wait_for('seen')}; echo third", tmp_path) as command:
        seen = []
        for line in command.lines():
            seen.append(line)
            if line == "second":
                (tmp_path / "seen").touch()
    assert seen == ["first", "second", "third"]


def test_stopping_ends_the_whole_tree_by_force_after_the_grace_time(tmp_path: Path) -> None:
    with tree(STUBBORN, tmp_path, grace=1.0) as command:
        lines = command.lines()
        assert next(lines) == "started"
        # The script does not wait for what it starts.
        wait_until(lambda: len(marked(tmp_path)) >= 4, tmp_path)
        command.stop()
        assert list(lines) == []
    assert command.returncode == 137
    assert marked(tmp_path) == []


def test_a_command_that_obeys_sigterm_has_time_to_tidy_up(tmp_path: Path) -> None:
    tidy = f"{wait_for('asked')}; echo tidying; touch {tmp_path}/tidy; exit 5"
    with tree(f"trap '{tidy}' TERM; echo ready; while :; do sleep 0.1; done", tmp_path, grace=600) as command:
        lines = command.lines()
        assert next(lines) == "ready"
        command.stop()
        (tmp_path / "asked").touch()  # not before: stop() only asks
        assert "tidying" in list(lines)  # before or behind it, bash says that its sleep was "Terminated"
        assert command.returncode == 5
    assert (tmp_path / "tidy").exists()


def test_a_stop_is_told_once_to_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "setsid sleep 300 & echo $! >away; sleep 300 & echo $! >beside; wait"
    command = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, start_new_session=True)
    told: list[int] = []
    monkeypatch.setattr(watchdog, "_signal", lambda pid, number, send=os.kill: told.append(pid))
    try:
        wait_until(lambda: all((tmp_path / name).exists() for name in ("away", "beside")), tmp_path)
        wait_until(lambda: (tmp_path / "beside").read_text() != "", tmp_path)
        away, beside = (int((tmp_path / name).read_text()) for name in ("away", "beside"))
        wait_until(lambda: os.getpgid(away) == away, tmp_path)
        watchdog._signal_all(command.pid, signal.SIGTERM)
        assert [told.count(pid) for pid in (command.pid, beside, away)] == [1, 0, 1], "the first is the group"
    finally:
        os.killpg(command.pid, signal.SIGKILL)
        os.kill(away, signal.SIGKILL)
        command.wait()


def test_what_a_command_leaves_behind_goes_with_it(tmp_path: Path) -> None:
    with tree("setsid sleep 300 & echo over", tmp_path) as command:
        assert list(command.lines()) == ["over", "Stopping 1 process(es) that the command left behind."]
        assert command.returncode == 0
    assert marked(tmp_path) == []


# Its first thread ends, another one works on: Linux shows such a process as a zombie.
HEADLESS = """
import ctypes, os, threading, time

first = threading.get_native_id()

def work():
    while b") Z " not in open(f"/proc/self/task/{first}/stat", "rb").read():
        time.sleep(0.02)
    with open("told", "w") as file:
        file.write(f"/proc/{os.getpid()}/task/{threading.get_native_id()}")
    os.rename("told", "works")
    time.sleep(300)

threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the group is all that is reached")
def test_a_process_whose_first_thread_has_ended_is_no_survivor(tmp_path: Path) -> None:
    (tmp_path / "headless.py").write_text(HEADLESS)
    with tree(f"setsid {sys.executable} headless.py & {wait_for('works')}; echo over", tmp_path) as command:
        assert list(command.lines()) == ["over", "Stopping 1 process(es) that the command left behind."]
    assert not Path((tmp_path / "works").read_text()).exists()


def test_no_process_survives_when_the_task_process_is_killed(tmp_path: Path) -> None:
    owner = f"""
        import os, time
        from pathlib import Path
        from mlflow_projects.backends.local.process import ProcessTree
        tree = ProcessTree(["bash", "-c", {STUBBORN!r}], cwd=Path({str(tmp_path)!r}),
                           environment={{**os.environ, "MARK": {str(tmp_path)!r}}}, grace=1.0)
        print(next(tree.lines()), flush=True)
        time.sleep(300)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(owner)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "started\n"
        wait_until(lambda: len(marked(tmp_path)) >= 4, tmp_path)
    finally:
        process.kill()
        process.wait()
    wait_until_gone(tmp_path)


def test_the_command_and_its_children_die_with_a_watchdog_that_is_killed(tmp_path: Path) -> None:
    with tree("sleep 300 & echo started; sleep 300; true", tmp_path) as command:
        lines = command.lines()
        assert next(lines) == "started"
        os.kill(command.pid, signal.SIGKILL)
        assert list(lines) == []
        assert command.returncode == 137
    wait_until_gone(tmp_path)


# A child that no name, environment or session tells from others, and one below it; neither heeds SIGTERM.
HIDDEN = r"""
echo 'trap "" TERM; echo $$ >grandchild.tmp; mv grandchild.tmp grandchild; while :; do sleep 300; done' >hidden.sh
env -i setsid bash -c 'trap "" TERM; bash hidden.sh; true' &
until [ -s grandchild ]; do sleep 0.02; done
echo started
sleep 300; true
"""


def watchdogs(command: ProcessTree) -> tuple[psutil.Process, psutil.Process]:
    upper = psutil.Process(command.pid)
    [lower] = upper.children()
    return upper, lower


def hidden(cwd: Path) -> Callable[[], bool]:
    """Return what tells whether the hidden grandchild lives."""
    process = psutil.Process(int((cwd / "grandchild").read_text()))
    return lambda: process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the group is all that is reached")
@pytest.mark.parametrize("which", [0, 1], ids=["the upper", "the lower"])
def test_a_hidden_child_dies_with_either_watchdog(tmp_path: Path, which: int) -> None:
    with tree(HIDDEN, tmp_path, grace=0.2) as command:
        lines = command.lines()
        assert next(lines) == "started"
        lives = hidden(tmp_path)
        watchdogs(command)[which].kill()
        assert list(lines) == []
        assert command.returncode == 137
    wait_until(lambda: not lives(), tmp_path)
    wait_until_gone(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the group is all that is reached")
@pytest.mark.parametrize("which", [[0], [1], [0, 1]], ids=["the upper", "the lower", "both"])
def test_a_watchdog_that_was_stopped_does_not_keep_the_command_alive(tmp_path: Path, which: list[int]) -> None:
    with tree(HIDDEN, tmp_path, grace=0.2) as command:
        assert next(command.lines()) == "started"
        lives = hidden(tmp_path)
        both = watchdogs(command)
        for one in which:
            both[one].send_signal(signal.SIGSTOP)
    wait_until(lambda: not lives(), tmp_path)
    wait_until_gone(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the group is all that is reached")
@pytest.mark.parametrize("which", [0, 1], ids=["the upper", "the lower"])
def test_nothing_survives_the_task_process_and_a_watchdog_killed_together(tmp_path: Path, which: int) -> None:
    owner = f"""
        import os, sys, time
        from pathlib import Path
        from mlflow_projects.backends.local.process import ProcessTree

        environment = {{**os.environ, "MARK": {str(tmp_path)!r}}}
        cwd = Path({str(tmp_path)!r})
        command = ProcessTree(["bash", "-c", {HIDDEN!r}], cwd=cwd, environment=environment, grace=0.2)
        for line in command.lines():
            print(line, command.pid, flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(owner)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    upper = psutil.Process(int(process.stdout.readline().removeprefix("started ")))
    lives = hidden(tmp_path)
    victims = (psutil.Process(process.pid), (upper, *upper.children())[which])
    for victim in victims:
        victim.suspend()
    for victim in victims:
        victim.kill()
    process.wait()
    wait_until(lambda: not lives(), tmp_path)
    wait_until_gone(tmp_path)


def test_leaving_the_block_early_stops_the_command(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), tree("sleep 300", tmp_path):
        raise RuntimeError
    assert marked(tmp_path) == []
