"""A command's whole output as an artifact of its run: ``airflow/attempt_<n>.log``.

It is written to a file line by line, so its size costs no memory; of more than a few megabytes the first and the last
are kept. MLflow's own client stores it, in a process of its own: it knows every artifact store, and a task process
never loads MLflow.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mlflow_projects.tracking.record import RunRecord, TaskIdentity

MOST_BYTES = 10 * 2**20  # half of it for the first lines
_SECONDS = 120.0
_NOT_STORED = "The output is not stored as an artifact: {}"
_STORE = "import sys, mlflow; mlflow.MlflowClient().log_artifact(sys.argv[1], sys.argv[2], 'airflow')"


class OutputLog:
    """Takes lines as everybody may see them.

    :param file: where they are kept
    :param most_bytes: of how many at most
    :ivar problem: why lines could not be kept, on a full disk say; "" if they could
    """

    problem = ""

    def __init__(self, file: Path, most_bytes: int = MOST_BYTES) -> None:
        self.file = file
        self._written = file.open("wb")
        self._room = most_bytes // 2
        self._last: deque[bytes] = deque()
        self._last_bytes, self._most_last, self._left_out = 0, most_bytes - self._room, 0

    def take(self, line: str) -> None:
        """Take the next line."""
        content = f"{line}\n".encode("utf-8", "replace")
        if not (self._last or self._left_out) and len(content) <= self._room:
            self._write([content])
            self._room -= len(content)
            return
        self._last.append(content)
        self._last_bytes += len(content)
        while self._last_bytes > self._most_last:
            self._last_bytes -= len(self._last.popleft())
            self._left_out += 1

    def close(self) -> None:
        """Write what is kept of the last lines."""
        if self._left_out:
            self._write([f"… {self._left_out} line(s) left out …\n".encode()])
        self._write(self._last)
        try:
            self._written.close()
        except OSError as error:
            self.problem = self.problem or str(error)

    def _write(self, lines: Iterable[bytes]) -> None:
        try:
            self._written.writelines(lines)
        except OSError as error:  # the command has nothing to do with it
            self.problem = self.problem or str(error)


@contextlib.contextmanager
def kept_output(
    record: RunRecord,
    task: TaskIdentity,
    is_wanted: Callable[[], bool],
    shown: Callable[[str], str],
    say: Callable[[str], None],
) -> Iterator[Callable[[str], None]]:
    """Yield what takes the lines; store them after the block, when the run has its end.

    That they cannot be stored is told, and fails nothing.

    :param shown: returns a line as everybody may see it
    :param is_wanted: asked after the block too: Airflow leaves a task that it stops no time
    """
    if not is_wanted():
        yield lambda _: None
        return
    with contextlib.ExitStack() as after:
        try:
            folder = after.enter_context(tempfile.TemporaryDirectory(prefix="mlflow-projects-output-"))
            output = OutputLog(Path(folder, f"attempt_{task.try_number}.log"))
        except OSError as error:
            say(_NOT_STORED.format(error))
            yield lambda _: None
            return
        try:
            yield lambda line: output.take(shown(line))
        finally:
            output.close()
            if is_wanted() and record.run:
                problem = output.problem or _stored(record, record.run.run_id, output.file)
                if problem:
                    say(_NOT_STORED.format(problem))


def _stored(record: RunRecord, run_id: str, file: Path) -> str:
    """Store a file; return why that cannot be done, "" if it was."""
    environment = {**os.environ, **record.client.settings.environment()}
    command = [sys.executable, "-c", _STORE, run_id, str(file)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
