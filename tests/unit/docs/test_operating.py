"""docs/operating.md is found by the words that are said: each message of its tables is one of ours, or of AWS."""

from __future__ import annotations

import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
TABLES = PAGE.partition("\n## By message\n")[2].partition("\n## What happens when")[0]
OF_AWS = ("ClientError: Cannot pull algorithm container",)
MESSAGES = re.findall(r"^\| `([^`]+)`", TABLES, re.MULTILINE)


def said() -> str:
    """Return all that the code may say: strings that go on in the next line as one, and … for each value."""
    files = [file for folder in ("plugins", "tools") for file in (ROOT / folder).rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r"\{[^{}\n]*\}", "…", re.sub(r"([\"'])\s*\n\s*f?\1", "", text))


def test_each_message_is_said_somewhere() -> None:
    source = said()
    assert len(MESSAGES) > 30
    for message in MESSAGES:
        words = re.sub(r"…|\b\d+\b", " … ", message).split()
        runs = [" ".join(words[start : start + 3]) for start in range(max(1, len(words) - 2))]
        is_ours = any(run.rstrip(",:") in source for run in runs)
        assert is_ours or message in OF_AWS, f"nothing says {message!r} any more"
