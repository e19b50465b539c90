"""The end of a task process, as Airflow's supervisor sees it."""

from __future__ import annotations

import subprocess
import sys

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
