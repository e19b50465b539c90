"""Bytes become lines: whole, readable, at a sensible rate."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_projects.backends.local.output import MAX_LINE, LineReader


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


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\n\x1b", exclude_categories=["Cs"]), max_size=20)),
       st.integers(1, 7))  # fmt: skip
def test_no_character_of_plain_lines_is_lost_at_any_chunk_size(texts: list[str], size: int) -> None:
    data = "".join(f"{text}\n" for text in texts).encode()
    assert read(*(data[i : i + size] for i in range(0, len(data), size))) == texts


def test_a_line_is_cut_where_it_is_too_long_and_nowhere_else() -> None:
    longest = b"x" * MAX_LINE
    for ends in ([b"\n"], [b""], [b"", b"\n"]):
        assert [len(line) for line in read(longest, *ends)] == [MAX_LINE]
        assert [len(line) for line in read(longest + b"y", *ends)] == [MAX_LINE, 1]
        assert [len(line) for line in read(longest * 2 + b"y", *ends)] == [MAX_LINE, MAX_LINE, 1]
    assert [len(line) for line in read(longest + b"yz\r\n")] == [MAX_LINE, 2]
    assert [len(line) for line in read(longest + b"yz\rw")] == [MAX_LINE, 1]


def test_what_a_line_that_is_being_written_has_too_much_is_shown_at_once() -> None:
    reader = LineReader()
    assert list(reader.feed(b"x" * MAX_LINE)) == []
    assert [len(line) for line in reader.feed(b"yz")] == [MAX_LINE]
    assert list(reader.feed(b"\n")) == ["yz"]
    assert list(reader.end()) == []


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ((b"50%\r",), ["50%"]),  # the last byte may be half of an end of a line
        ((b"50%\r", b"60%"), ["50%", "60%"]),
        ((b"50%\r60%\r\n",), ["50%", "60%"]),
        ((b"50%\r60%\r",), ["50%", "60%"]),
        ((b"50%\r60%\r70%\n", b"80%\r90%\n"), ["50%", "70%", "80%", "90%"]),
        ((b"50%  \t\r\x1b[2K\r  \r60%\r\n",), ["50%", "60%"]),  # a state of blanks is none
        ((b"\r\r\n\r\n",), ["", ""]),
        ((b"50%\r\x1b[K60%\x1b[1;31m!\x1b[0m\n",), ["50%", "60%\x1b[1;31m!\x1b[0m"]),
        ((b"50%\r60%\r", b"\n", b"\n"), ["50%", "60%", ""]),
        ((b"a\xe6\x97",), ["a\ufffd"]),
        ((b"\xe6\x97",), ["\ufffd"]),
    ],
)
def test_states_of_a_redrawn_line_and_what_the_end_leaves(chunks: tuple[bytes, ...], lines: list[str]) -> None:
    assert read(*chunks) == lines


def test_a_new_line_begins_a_new_count_of_seconds() -> None:
    assert read(b"1%\r2%\r", b"3%\n", b"a%\rb%\r", b"c%\n", seconds_between=1) == ["1%", "3%", "a%", "c%"]


def test_a_state_is_overdue_after_five_seconds_and_shown_once() -> None:
    now = [100.0]
    reader = LineReader(clock=lambda: now[0])
    assert list(reader.feed(b"0%\r1%\r2%\r3%")) == ["0%"]
    now[0] = 104.9
    assert list(reader.overdue()) == []
    now[0] = 105.0
    assert list(reader.overdue()) == ["2%"]
    now[0] = 200.0
    assert list(reader.overdue()) == []
    assert list(reader.end()) == ["3%"]
    assert list(reader.end()) == []


def test_the_end_shows_a_state_that_waited() -> None:
    reader = LineReader(clock=lambda: 0.0)
    assert list(reader.feed(b"0%\r1%\r\r")) == ["0%"]
    assert list(reader.end()) == ["1%"]
    assert list(reader.overdue()) == []


def test_a_line_that_is_too_long_is_cut_behind_a_space_near_its_end() -> None:
    word = "s" * 100
    head = "a" * (MAX_LINE - 50)
    assert read(f"{head} {word}\n".encode()) == [f"{head} ", word]
    # The last space counts, and the space itself belongs to the first piece.
    assert read(f"{head} b {word}\n".encode()) == [f"{head} b ", word]


def test_a_word_that_is_longer_than_any_secret_is_cut_within() -> None:
    line = "a " + "b" * (MAX_LINE + 10)
    assert read(f"{line}\n".encode()) == [line[:MAX_LINE], line[MAX_LINE:]]
    early = "a" * (MAX_LINE - 4_097) + " " + "b" * 5_000
    assert read(f"{early}\n".encode()) == [early[:MAX_LINE], early[MAX_LINE:]]
    just = "a" * (MAX_LINE - 4_096) + " " + "b" * 5_000
    assert read(f"{just}\n".encode()) == ["a" * (MAX_LINE - 4_096) + " ", "b" * 5_000]


def test_a_space_at_the_edge_belongs_to_its_piece() -> None:
    line = "a" * (MAX_LINE - 1) + " b"
    assert read(f"{line}\n".encode()) == [line[:MAX_LINE], "b"]
    line = "a" * MAX_LINE + " b"
    assert read(f"{line}\n".encode()) == [line[:MAX_LINE], " b"]
