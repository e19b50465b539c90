"""Bytes become lines: whole, readable, at a sensible rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_projects.backends.output import MAX_LINE, LineReader


def read(*chunks: bytes, seconds_between: float = 0.0) -> list[str]:
    now = [0.0]
    reader = LineReader(progress_seconds=5, clock=lambda: now[0])
    lines = []
    for chunk in chunks:
        lines += reader.feed(chunk)
        now[0] += seconds_between
    return [*lines, *reader.end()]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"one\n\ntwo",), ["one", "", "two"]),
        ((b"on", b"e\nt", b"wo\n"), ["one", "two"]),
        ((b"one\r\ntwo\r\n",), ["one", "two"]),
        ((b"one\r", b"\ntwo\r", b"\n"), ["one", "two"]),
        (("日本".encode()[:4], "日本".encode()[4:] + b"\n"), ["日本"]),
        ((b"\xff\xfe broken\n",), ["\ufffd\ufffd broken"]),
        ((b"\x1b[31mred\x1b[0m\n\x1b[2K\x1b[Aup\n",), ["\x1b[31mred\x1b[0m", "up"]),
        ((b"",), []),
    ],
)
def test_lines_are_whole_however_the_bytes_arrive(chunks: tuple[bytes, ...], lines: list[str]) -> None:
    assert read(*chunks) == lines


def test_a_redrawn_line_shows_its_first_and_last_state_when_it_is_fast() -> None:
    bar = b"".join(b"\r%3d%%" % n for n in range(101))
    assert read(bar + b"\ndone\n") == ["  0%", "100%", "done"]


def test_a_redrawn_line_shows_a_state_every_few_seconds_when_it_is_slow() -> None:
    chunks = [b"\r%d%%" % n for n in range(8)]
    assert read(*chunks, b"\n", seconds_between=2) == ["0%", "3%", "6%", "7%"]


def test_a_redrawn_line_that_stands_still_is_shown_when_it_is_overdue() -> None:
    now = [0.0]
    reader = LineReader(progress_seconds=5, clock=lambda: now[0])
    assert list(reader.feed(b"0%\r1%\r2%\r3")) == ["0%"]
    assert list(reader.overdue()) == []
    now[0] = 6.0
    assert list(reader.overdue()) == ["2%"]


def test_a_line_without_end_is_cut_and_does_not_grow_in_memory() -> None:
    reader = LineReader()
    lines = [line for _ in range(100) for line in reader.feed(b"x" * 10_000)]
    lines += reader.end()
    assert max(map(len, lines)) == MAX_LINE
    assert sum(map(len, lines)) == 1_000_000


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\x1b", exclude_categories=["Cs"]), max_size=20)),
       st.integers(1, 7))  # fmt: skip
def test_no_character_of_plain_lines_is_lost_at_any_chunk_size(texts: list[str], size: int) -> None:
    data = "".join(f"{text}\n" for text in texts).encode()
    assert read(*(data[i : i + size] for i in range(0, len(data), size))) == texts
