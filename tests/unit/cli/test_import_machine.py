"""A machine that is too busy for a recording says nothing of the script."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mlflow_projects.cli.import_script.recording import CutShortError, Recorded, Recorder, RecorderError, Script
from mlflow_projects.cli.import_script.tracing import REFUSED, Tracing

WELL, NO_END = Recorded([], [], {}), Recorded([], [], {}, stopped={"sentence": "does not end"})
CUT = CutShortError("steps.py ends its own process, or needs more than 60 s.")


def _tracing(answers: Sequence[Recorded | Exception]) -> Tracing:
    rest = iter(answers)

    class Answers:
        def record(self, *_: Any, **__: Any) -> Recorded:
            answer = next(rest)
            if isinstance(answer, Exception):
                raise answer
            return answer

    return Tracing(cast("Recorder", Answers()), Script(Path("/x/steps.py"), Path("/x"), Path("/x")), {}, None)


@pytest.mark.parametrize("cut", [CUT, NO_END])
def test_a_recording_that_was_cut_short_is_made_again(cut: Any) -> None:
    assert _tracing([cut, WELL, WELL]).other({"n": 7}) == {}


@pytest.mark.parametrize("cut", [CUT, NO_END])
def test_values_that_never_come_to_an_end_are_refused(cut: Any) -> None:
    assert _tracing([cut, WELL, cut, WELL]).other({"n": 7}) == REFUSED


@pytest.mark.parametrize("cut", [CUT, NO_END])
def test_a_machine_that_is_too_busy_is_named(cut: Any) -> None:
    with pytest.raises(RecorderError, match=r"steps.py came to its end once, but not again within 60 s: the machine"):
        _tracing([cut, cut]).other({"n": 7})


def test_a_recorder_that_has_ended_is_not_taken_for_a_refusal() -> None:
    with pytest.raises(RecorderError, match="broke off"):
        _tracing([RecorderError("The recording of steps.py broke off")]).other({"n": 7})


def test_a_recorder_that_has_ended_is_named(tmp_path: Path) -> None:
    steps = tmp_path / "sources" / "steps.py"
    for folder in ("sources", "scratch"):
        (tmp_path / folder).mkdir()
    steps.touch()
    ended = Recorder("false")
    ended.scratch = tmp_path / "scratch"
    ended._log = (tmp_path / "log").open("w+")
    pipe = subprocess.PIPE
    with subprocess.Popen(["false"], stdin=pipe, stdout=pipe, text=True) as process:
        process.wait()
        ended._process = process
        with pytest.raises(RecorderError, match=r"The recording of steps.py broke off: false has ended \(no word\)"):
            ended.record(Script(steps, steps.parent, steps.parent), {})
        process.stdin = None  # a broken pipe cannot be flushed
