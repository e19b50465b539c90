"""Addresses as they may be shown: without passwords, tokens and signatures.

Whoever writes an address down (a tag, a log line, an exception, a page) takes it from here. A refused address is
shown too, so its shape is never trusted: what stands where credentials would stand goes, whatever a standard says.
The runner of training jobs takes this file along, so it needs no more than Python 3.8.
"""

from __future__ import annotations

import re
from typing import Iterator, Tuple  # noqa: UP035
from urllib.parse import unquote

# Compiled when they are needed: every task and each parse of a DAG loads this.
# Written plainly, or percent-encoded inside of another address.
_AT, _COLON, _SLASH = "(?:@|%(?:25)*40)", "(?::|%(?:25)*3[Aa])", r"(?:\\*/|%(?:25)*2[Ff])"
_START = rf"(?<![A-Za-z+.-])([A-Za-z][A-Za-z0-9+.-]{{0,40}})({_COLON})({_SLASH}+)"
_AUTHORITY = r"[^\s/?#\"'<>`\\]*"
_AUTHORITY_INSIDE = r"(?:(?!%(?:25)*(?:2[Ff3]|3[Ff]))[^\s/?#\"'<>`\\&])*"
_HOST_AND_PORT = r"(?:\[[\da-fA-F:.%]*\]|[^:\[\]]*)(?::\d*)?"
_LIKELY_HOST = r"(?:\[[\da-fA-F:.%]+\]|localhost|[\w-]+(?:\.[\w-]+)+)(?::\d*)?|[\w-]+:\d+"
_LAST_AT = r'[^\s"<>]{0,2000}@'
_LAST_AT_BEHIND_SPACE = r'[^\n"<>]{0,200}?@(?:[^\s"<>]{0,2000}@)?'
# As ssh takes it, or with a forgotten scheme. An image's digest is none, nor is the address of a letter.
_SCP = (
    r"(?<![\w/@.:%+~$-])(?!(?:mailto|sips?|xmpp|acct|urn):)"
    r"[\w.+~%$-]+:([^\s@/\"'<>]{1,200}(?:@[^\s@/\"'<>]{1,200})*)@(?!sha\d+:[\da-f]{32})(?=[\w.-]+[:/]|\[[\da-fA-F:]+\])"
)
# Where the user is a part of the address, or a container; elsewhere one without a password may be a token.
_WITH_USER = r"(?i)(?:.*\+)?ssh|ssh\+.*|sftp|rsync|svn|hdfs|abfss?|wasbs?"
_WEB = r"(?i)(?:.*\+)?(?:https?|wss?|ftps?|git)"
_NO_AUTHORITY = r"(?i)file|sqlite(?:\+\w+)?|dbfs|models|runs|mlflow-artifacts"
_QUERY = (
    r"(?i)(?:[?&;#]|%(?:25)*(?:3F|26|23|3B))(?:amp;)?"
    r"(?:[\w.%$\[-]{0,60}?(?:passw(?:or)?d|pwd|passphrase|secret|signature|credentials?|token|jwt|"
    r"(?:api|access|account|client|encryption|master|private|secret|shared|signing|storage)[_-]?key(?:[_-]?id)?)"
    r"(?:[\[_-]?\d{1,3})?|(?:[\w.%$-]{0,60}[_.-])?(?:sig|auth|authorization|bearer|hmac|sas|key|pass|pw)|(?:db|user)pass)"
    r"\]?(?:=|%(?:25)*3D)([^\s&\"'<>`]+)"
)
# Without a scheme, and as databases' own clients write it.
_NO_SCHEME = r"(?<![\w:/.])//[^\s/@:\"'<>]{1,200}:([^\s/@\"'<>]{1,200})@(?=[\w\[])"
_DSN = r"(?i)(?:^|(?<=[\s\"'(;]))(?:passw(?:or)?d|pwd)=([^\s&\"'<>`]+)"
_STARS = "***"
_ODD = {ord(character): "\ufffc" for character in "\0\t\n\v\f\r \"'<>`"}
# (start, end) of what goes, what stands there instead, (start, end) of the secret in it
_Hidden = Tuple[int, int, str, int, int]  # noqa: UP006


def public_uri(uri: str) -> str:
    """Return an address without its credentials; a text that is no address, or has none, comes back unchanged."""
    return _without(uri, _hidden(uri.translate(_ODD)))


def public_text(text: str) -> str:
    """Return a text in which every address is a public one."""
    return _without(text, _hidden(text))


def without_user(url: str) -> str:
    """Return a valid URL without its user part, and else as it is: to be used, not only to be shown."""
    scheme, separator, rest = url.partition("://")
    user, at, _ = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    return f"{scheme}{separator}{rest[len(user + at) :]}"


def secrets_in(uri: str) -> list[str]:
    """Return what :func:`public_uri` hides of an address, as it stands there and decoded."""
    found = [uri[start:end] for *_, start, end in _hidden(uri.translate(_ODD))]
    return list(dict.fromkeys(filter(None, [*found, *map(unquote, found)])))


def _without(text: str, hidden: Iterator[_Hidden]) -> str:
    shown, at = [], 0
    for start, end, instead, *_ in hidden:
        shown += [text[at:start], instead]
        at = end
    return "".join([*shown, text[at:]])


def _hidden(text: str) -> Iterator[_Hidden]:
    """Yield what is to go, in the order of the text, none of it twice."""
    at = 0
    if not ("@" in text or "=" in text or "%" in text):  # most lines of a log
        return
    users = _users(text) if "@" in text or "%" in text else ()
    for found in sorted([*users, *_values(text)]):
        if found[0] >= at:
            yield found
            at = found[1]


def _values(text: str) -> Iterator[_Hidden]:
    for found in (*re.finditer(_QUERY, text), *re.finditer(_DSN, text)):
        if found[1] != _STARS:
            yield (*found.span(1), _STARS, *found.span(1))


def _users(text: str) -> Iterator[_Hidden]:
    for found in re.finditer(_START, text):
        start = found.end()
        end = _end_of_user(text, found)
        if end > start:
            at = re.search(f"{_AT}$", text[start:end])
            secret_end = start + at.start() if at else end
            colon = re.search(_COLON, text[start:secret_end])
            secret_start = start + colon.end() if colon else start
            if text[secret_start:secret_end] != _STARS:
                yield start, end, "", secret_start, secret_end
    for found in re.finditer(_SCP, text):
        yield found.start(), found.end(), "", *found.span(1)
    for found in re.finditer(_NO_SCHEME, text):
        yield found.start() + 2, found.end(), "", *found.span(1)


def _end_of_user(text: str, found: re.Match[str]) -> int:
    """Return where the user's part ends, behind its "@"; where it would begin if there is none to be hidden."""
    start, (scheme, colon, slashes) = found.end(), found.groups()
    count = len(re.findall(_SLASH, slashes))
    if re.fullmatch(_NO_AUTHORITY, scheme) and count != 2:
        return start
    is_inside = colon != ":"
    match = re.compile(_AUTHORITY_INSIDE if is_inside else _AUTHORITY).match(text, start)
    assert match
    authority = match[0]
    user, at, host = authority.rpartition("@")
    if not at and (encoded := list(re.finditer("%(?:25)*40", authority))):
        user, at, host = authority[: encoded[-1].start()], encoded[-1][0], authority[encoded[-1].end() :]
    is_odd = not at and not re.fullmatch(_HOST_AND_PORT, authority)
    has_password = bool(re.search(_COLON, user))
    # A password may hold what ends an authority: then the last "@" counts.
    if is_odd or (at and has_password and not re.fullmatch(_LIKELY_HOST, host)):
        last = re.compile(_LAST_AT).match(text, start)
        if last is None and re.fullmatch(_WEB, scheme):
            last = re.compile(_LAST_AT_BEHIND_SPACE).match(text, start)
        return max(last.end() if last else start, start + len(user + at))
    shown = not has_password and (re.fullmatch(_WITH_USER, scheme) or (count == 1 and not re.fullmatch(_WEB, scheme)))
    return start if shown else start + len(user + at)
