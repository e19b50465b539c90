"""A secret is known in every spelling in which it is sent or comes back; a text without one stays."""

from __future__ import annotations

import base64
import json
import random
import shlex
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import _secrets_masker, redact, reset_secrets_masker
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_projects.backends.local.output import MAX_LINE, LineReader
from mlflow_projects.backends.sagemaker.runner.output import Output
from mlflow_projects.hooks.masking import _spelled, mask, mask_connection, masked, shown
from mlflow_projects.spellings import _pattern, hidden, lines_of, spellings

SECRETS = ["simpleSecret123", "p@ss:w?rd#1/x", "quo'te\"d \\back", "pläin😀&<gr+ößer>", "5five", "$(cmd)`x`{y}!~*()"]


@pytest.fixture(autouse=True)
def fresh_masker() -> Iterator[None]:
    masker = _secrets_masker()
    before = set(masker.patterns), masker.replacer, masker.sensitive_variables_fields
    reset_secrets_masker()
    masker.sensitive_variables_fields = ["password", "token", "secret", "private_key"]
    yield
    masker.patterns, masker.replacer, masker.sensitive_variables_fields = before


def spelled(secret: str) -> dict[str, str]:
    """Return a secret as it may stand somewhere."""
    found = {
        "plain": secret,
        "quote": quote(secret),
        "quote all": quote(secret, safe=""),
        "quote some": quote(secret, safe="!~*'()/$"),
        "quote plus": quote_plus(secret),
        "quoted twice": quote(quote(secret, safe=""), safe=""),
        "json": json.dumps(secret),
        "json in UTF-8": json.dumps(secret, ensure_ascii=False),
        "json in json": json.dumps(json.dumps(secret)),
        "json for HTML": json.dumps(secret).replace("&", "\\u0026").replace("<", "\\u003C").replace("'", "\\u0027"),
        "json of PHP": json.dumps(secret).replace("/", "\\/"),
        "repr": repr(secret),
        "ascii": ascii(secret),
        "shell": shlex.quote(secret),
        "HTML": escape(secret),
    }
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found[f"base64 {encode.__name__} {before}"] = encode(f"{'u' * before}{secret}@@".encode()).decode()
    found["Basic"] = "Authorization: Basic " + base64.b64encode(f"user:{secret}".encode()).decode()
    return found


def core(text: str) -> str:
    """Return the longest piece of letters and digits, by which a leak would be known."""
    return max("".join(c if c.isalnum() else " " for c in text).split(), key=len, default="")


@pytest.mark.parametrize("secret", SECRETS)
def test_a_known_secret_is_found_in_every_spelling(secret: str) -> None:
    mask(secret)
    for kind, text in spelled(secret).items():
        got = masked(f"before {text} after")
        assert "***" in got, (kind, got)
        assert got.startswith("before "), (kind, got)
        assert got.endswith(" after"), (kind, got)
        if "base64" not in kind and kind != "Basic":
            assert core(secret) not in got, (kind, got)


@pytest.mark.parametrize("secret", SECRETS)
def test_the_supervisor_is_told_the_usual_spellings(secret: str) -> None:
    mask(secret)
    for kind in ("plain", "quote", "quote all", "quote plus", "json", "json in UTF-8", "repr", "Basic"):
        text = spelled(secret)[kind]
        assert "***" in redact(f"x {text} y"), kind


def test_a_secret_that_only_airflow_knows_is_found_in_every_spelling_too() -> None:
    from airflow.sdk.log import mask_secret

    mask_secret("of-a-Variable/1")
    assert "***" in masked(quote("of-a-Variable/1", safe=""))
    assert "***" in masked(base64.b64encode(b"me:of-a-Variable/1").decode())


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=5, max_size=40).filter(lambda text: text.strip() and not text.isspace()), st.data())
def test_any_mixture_of_spellings_is_found(secret: str, data: Any) -> None:
    try:
        secret.encode()
    except UnicodeEncodeError:
        return
    ways = [lambda c: c, lambda c: quote(c, safe=""), lambda c: json.dumps(c)[1:-1]]
    text = "".join(data.draw(st.sampled_from(ways))(c) if not (c.isascii() and c.isalnum()) else c for c in secret)
    assert hidden(f"<{text}>", [secret]) == "<***>"


_PLAIN = st.text(alphabet=st.sampled_from("aZ09 '+/-_=%&\\;#\"<é日"), min_size=3, max_size=14)
_WAYS = (
    lambda c: c, lambda c: quote(c, safe=""), lambda c: json.dumps(c)[1:-1], lambda c: f"&#{ord(c)};",
    lambda c: {" ": "+", "'": "'\"'\"'"}.get(c, c), lambda c: f"\\{c}", lambda c: f"\\x{ord(c) % 256:02x}",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(_PLAIN, _PLAIN, st.data())
def test_the_fast_look_finds_what_the_patterns_find(secret: str, other: str, data: Any) -> None:
    as_it_may_stand = [
        "".join(data.draw(st.sampled_from(_WAYS))(c) for c in secret),
        base64.b64encode(f"{other}:{secret}".encode()).decode(),
        base64.urlsafe_b64encode(f"{other}{secret}".encode()).decode(),
        shlex.quote(secret),
        data.draw(_PLAIN),
    ]
    text = data.draw(_PLAIN).join(data.draw(st.permutations(as_it_may_stand))[:3])
    secrets = sorted({secret, other}, key=len, reverse=True)
    slow = text
    for one in secrets:
        slow = _pattern(one).sub("***", slow)
    assert hidden(text, secrets) == slow
    reset_secrets_masker()
    _spelled.clear()
    mask(*secrets)
    assert redact(masked(text)) == masked(text), "Airflow's own masker would have hidden more"


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("two words", "two+words"),
        ("two words more", "two words+more"),
        ("it's so", "it'\"'\"'s so"),
        ("né-word", quote("né-word")),
        ("a/b-word", "a%2fb-word"),
        ("a<b-word", "a&lt;b-word"),
        ("a<b-word", "a&#60;b-word"),
        ("a/b-word", "a\\/b-word"),
        ("     ", "a     b"),
    ],
)
def test_one_odd_character_is_enough_to_look_closely(secret: str, text: str) -> None:
    assert "***" in hidden(text, [secret])
    assert hidden(text[1:], [secret]) == text[1:] or secret.isspace()


def test_a_text_that_is_quoted_four_times_is_known_and_a_run_of_backslashes_is_bounded() -> None:
    text = 'pass"word'
    for _ in range(4):
        text = json.dumps(text)[1:-1]
        assert hidden(text, ['pass"word']) == "***"
    assert text.count("\\") == 15
    for long in ("\\" * 1000 + '"word', "\\" * 1000 + "u0022word", "\\" * 1000 + "x22word"):
        assert hidden(f"pass{long}", ['pass"word']) == f"pass{long}"


def test_the_parts_of_a_longer_secret_stay_hidden_when_a_part_is_a_secret_too() -> None:
    mask("abcdef", "abcdef-and-more", "xabcdef")
    for text in ("abcdef-and-more", "xabcdef"):
        assert masked(f"[{text}]") == "[***]"


def test_short_secrets_turn_no_text_into_stars() -> None:
    mask("a", "abcd", "airflow", "")
    text = (
        "a text of airflow with abcd and YWJjZA== and everything else, base64 too: "
        + base64.b64encode(bytes(random.Random(1).randbytes(3000))).decode()
    )
    assert masked(text) == text
    assert spellings("abcd")[0] == "abcd"
    mask("abcde")
    assert masked(text) == text


def test_each_line_of_a_key_is_known() -> None:
    body = [base64.b64encode(random.Random(n).randbytes(48)).decode() for n in range(3)]
    key = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *body, "-----END OPENSSH PRIVATE KEY-----"])
    mask(key)
    for line in body:
        assert masked(f"x {line}") == "x ***"
    assert masked(json.dumps({"key": key})) == '{"key": "***"}'
    assert masked("-----BEGIN OPENSSH PRIVATE KEY-----") == "-----BEGIN OPENSSH PRIVATE KEY-----"
    assert lines_of("one line") == ["one line"]


def test_what_a_connection_holds_is_masked() -> None:
    extra = {"api_token": "t0ken-in-extra", "url": "https://u:pw-in-extra@h", "region": "eu-central-1", "n": 1}
    mask_connection(
        Connection(
            conn_id="c", conn_type="x", password="pw/of-it", host="postgresql://u:p%40ss-1@h", extra=json.dumps(extra)
        )
    )
    got = masked("t0ken-in-extra pw-in-extra pw/of-it pw%2Fof-it p%40ss-1 p@ss-1 eu-central-1")
    assert got == "*** *** *** *** *** *** eu-central-1"


def test_what_is_shown_has_neither_known_secrets_nor_those_of_addresses() -> None:
    mask("known-1-secret")
    assert shown("known-1-secret at https://u:unknown@h/x") == "*** at https://h/x"


def test_a_secret_is_not_cut_in_two_where_a_line_is_too_long() -> None:
    mask("secret-at-the-cut")
    words = "word " * (MAX_LINE // 5 - 2)
    lines = [*(reader := LineReader()).feed((words + "secret-at-the-cut and more\n").encode()), *reader.end()]
    assert len(lines) == 2
    assert "secret" not in masked(lines[0]) + masked(lines[1])
    assert "".join(lines) == words + "secret-at-the-cut and more"


@pytest.mark.parametrize("secret", SECRETS)
def test_the_runner_of_training_jobs_knows_the_same(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.reconfigure", lambda **_: None, raising=False)
    monkeypatch.setattr("sys.stderr.reconfigure", lambda **_: None, raising=False)
    output = Output()
    output.hide(secret)
    for kind, text in spelled(secret).items():
        assert "***" in output.mask(text), kind
    assert output.mask("https://u:pw@h/x") == "https://h/x"
