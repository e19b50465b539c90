"""How a git server's questions are answered without a secret on disk, in a command line, or in an environment.

For https, git runs a script that asks us over two named pipes. For ssh, an agent holds the key, and ends with the git
command that it was started for, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mlflow_projects.project.cache import Cache
from mlflow_projects.public_uri import without_user

STALL_SECONDS = 60
_QUESTION = re.compile(r"(?P<kind>Username|Password) for '(?P<scheme>\w+)://(?:.*@)?(?P<host>[^@/]+)/?': ?")
_ASKPASS = """#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$1" > "$here/question"
IFS= read -r answer < "$here/answer"
case "$answer" in +*) printf '%s\\n' "${answer#+}";; *) exit 1;; esac
"""
# An empty helper switches off those of the machine: none must be asked, none may store the token.
_NO_HELPERS = ("-c", "credential.helper=", "-c", "credential.useHttpPath=false")
# By itself, the agent would notice the end within ten seconds.
_WITH_KEY = 'ssh-add -q - && "$@" </dev/null; status=$?; kill "$SSH_AGENT_PID"; exit $status'
_WITH_AGENT = ("ssh-agent", "sh", "-c", _WITH_KEY, "sh")


@dataclass(frozen=True)
class GitCredentials:
    """What a git server asks for.

    :param username: for https; many hosts take any name beside a token
    :param password: password or access token for https
    :param private_key: an OpenSSH private key, as text
    :param private_key_file: the path of one
    :param known_hosts_file: for ssh; without it, OpenSSH's own files count
    :param accept_new_host: take an unknown ssh host's key at the first contact
    """

    username: str = ""
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    private_key_file: str = ""
    known_hosts_file: str = ""
    accept_new_host: bool = False


@dataclass(frozen=True)
class Access:
    """How a git command gets in.

    :param options: of git
    :param environment: variables for git
    :param before: the command that starts git, with ``text`` as standard input
    """

    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    text: str = field(default="", repr=False)


@contextlib.contextmanager
def access(url: str, credentials: GitCredentials | None, cache: Cache) -> Iterator[Access]:
    """Yield how git gets into a remote, for as long as the block lasts.

    Only the project's own host gets an answer, because a submodule may name any other one.

    :param cache: where the pipes lie, which hold nothing once they are read
    """
    environment = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_HTTP_LOW_SPEED_LIMIT": "1",
        "GIT_HTTP_LOW_SPEED_TIME": str(STALL_SECONDS),
        # Never ext::, which is a shell command. A submodule of a remote project may be no folder of this machine.
        "GIT_ALLOW_PROTOCOL": "git:http:https:ssh" + ":file" * (urlsplit(url).scheme == "file"),
    }
    ssh = f"ssh -o BatchMode=yes -o ConnectTimeout={STALL_SECONDS}"
    if credentials is None:
        environment["GIT_SSH_COMMAND"] = os.environ.get("GIT_SSH_COMMAND", ssh)
        yield Access(environment=environment)
        return
    if credentials.private_key:
        ssh += " -o IdentityAgent=SSH_AUTH_SOCK -o IdentitiesOnly=no -o IdentityFile=none"
    elif credentials.private_key_file:
        ssh += f" -o IdentitiesOnly=yes -i {shlex.quote(credentials.private_key_file)}"
    if credentials.known_hosts_file:
        ssh += f" -o UserKnownHostsFile={shlex.quote(credentials.known_hosts_file)}"
    if credentials.accept_new_host:
        ssh += " -o StrictHostKeyChecking=accept-new"
    environment["GIT_SSH_COMMAND"] = ssh
    agent = _WITH_AGENT if credentials.private_key else ()
    key = credentials.private_key and credentials.private_key.rstrip("\n") + "\n"
    with cache.workspace() as folder, _answering(url, credentials, folder) as askpass:
        yield Access(_NO_HELPERS, {**environment, "GIT_ASKPASS": str(askpass)}, agent, key)


@contextlib.contextmanager
def _answering(url: str, credentials: GitCredentials, folder: Path) -> Iterator[Path]:
    """Yield the program that git runs for a question, and answer what it passes on."""
    # Opened for both directions: nobody waits for somebody to open the other end, who may have been killed.
    pipes = []
    for name in ("question", "answer"):
        os.mkfifo(folder / name, 0o600)
        pipes.append(os.open(folder / name, os.O_RDWR | os.O_CLOEXEC))
    question, answer = pipes
    askpass = folder / "askpass"
    askpass.write_text(_ASKPASS, encoding="ascii")
    askpass.chmod(0o700)

    def serve() -> None:
        with open(question, encoding="utf-8", errors="replace", closefd=False) as asked:
            for line in iter(asked.readline, "\n"):
                said = _answer(line.rstrip("\n"), url, credentials)
                os.write(answer, b"-\n" if said is None else f"+{said}\n".encode())

    server = threading.Thread(target=serve, name="git-askpass", daemon=True)
    server.start()
    try:
        yield askpass
    finally:
        os.write(question, b"\n")
        server.join()
        for pipe in pipes:
            os.close(pipe)


def _answer(question: str, url: str, credentials: GitCredentials) -> str | None:
    parts, asked = urlsplit(without_user(url)), _QUESTION.fullmatch(question)
    if not asked or (asked["scheme"], asked["host"]) != (parts.scheme, parts.netloc):
        return None
    return (credentials.username or "git") if asked["kind"] == "Username" else credentials.password
