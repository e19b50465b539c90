"""A command's output in a file: whole while it is small, then its beginning and its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_projects.attempt import output_log
from mlflow_projects.attempt.output_log import OutputLog
from mlflow_projects.attempt.stopping import AttemptKilledError
from tests.support.attempts import SECRET, Life


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([], ""),
        (["a", "日本"], "a\n日本\n"),
        (["12345678"] * 2, "12345678\n12345678\n"),
        # 20 bytes: two lines of 5 at the beginning, two at the end.
        (["0001", "0002", "0003", "0004"], "0001\n0002\n0003\n0004\n"),
        ([f"{n:04}" for n in range(1, 8)], "0001\n0002\n… 3 line(s) left out …\n0006\n0007\n"),
        (["x" * 50], "… 1 line(s) left out …\n"),
        (["0001", "x" * 50, "0003"], "0001\n… 1 line(s) left out …\n0003\n"),
        (["half of a \ud800 character"[:9]], "half of a\n"),
    ],
)
def test_what_is_kept(lines: list[str], kept: str, tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", most_bytes=20)
    for line in lines:
        log.take(line)
    log.close()
    assert (tmp_path / "log").read_text(encoding="utf-8") == kept


def test_a_full_disk_is_a_problem_to_tell_and_no_error() -> None:
    log = OutputLog(Path("/dev/full"))
    for _ in range(10):
        log.take("x" * 10_000)
    log.close()
    assert "No space left" in log.problem


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Take the place of MLflow's own client, which tests/integration/test_functions.py sees."""
    seen: list[tuple[str, str, str]] = []

    def store(record: object, run_id: str, file: Path) -> str:
        seen.append((run_id, file.name, file.read_text()))
        return "no room"

    monkeypatch.setattr(output_log, "_stored", store)
    return seen


@pytest.mark.parametrize("code", [0, 3])
def test_the_output_is_stored_masked_however_the_command_ends(
    code: int, stored: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    life = Life(tmp_path)
    attempt = life.attempt(f"echo one; echo {SECRET}; exit {code}", log_output=True)
    if code:
        with pytest.raises(Exception, match="exit status 3"):
            attempt.run()
    else:
        attempt.run()
    assert stored == [(life.only_run.run_id, "attempt_2.log", "one\n***\n")]
    assert life.only_run.end_time is not None
    assert life.log[-1] == "The output is not stored as an artifact: no room"


def test_a_try_that_airflow_stops_has_no_time_for_it(stored: list[tuple[str, str, str]], tmp_path: Path) -> None:
    life = Life(tmp_path)
    attempt = life.attempt("echo one; sleep 60", log_output=True)
    life.on_line = lambda line: attempt.kill() if line == "one" else None
    with pytest.raises(AttemptKilledError):
        attempt.run()
    assert stored == []


def test_without_the_wish_nothing_is_kept(stored: list[tuple[str, str, str]], tmp_path: Path) -> None:
    Life(tmp_path).attempt("echo one").run()
    assert stored == []


@pytest.mark.parametrize("is_full_at_once", [False, True])
def test_a_full_disk_fails_no_command(
    is_full_at_once: bool, stored: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if is_full_at_once:
        monkeypatch.setattr(output_log.tempfile, "TemporaryDirectory", full)
    else:
        monkeypatch.setattr(output_log, "OutputLog", lambda file: OutputLog(Path("/dev/full")))
    life = Life(tmp_path)
    life.attempt("echo one", log_output=True).run()
    assert "The output is not stored as an artifact: [Errno 28] No space left on device" in life.log
    assert stored == []
