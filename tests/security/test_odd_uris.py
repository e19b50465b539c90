"""An address or a version may be any text: it is used, or refused in one sentence (issue 22, row 6)."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_projects.backends.contract import OpenRun
from mlflow_projects.backends.local.container import Mounts, _mount_stores
from mlflow_projects.exceptions import ProjectError, PublicError, TrackingError
from mlflow_projects.hooks.mlflow_hook import settings_from_connection
from mlflow_projects.project import repository
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.fetch import fetch
from mlflow_projects.project.git_command import GitError
from mlflow_projects.project.paths import existing_path, local_path_of
from mlflow_projects.public_uri import public_text, public_uri, secrets_in, without_user
from mlflow_projects.spellings import hidden, spellings
from mlflow_projects.tracking.artifact_store import explain_failure
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.database import ensure_store
from mlflow_projects.tracking.rest import RestClient
from mlflow_projects.tracking.server import TrackingSettings, settings_from_environment
from tests.support.memory_tracking import MemoryClient

MANY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LONG = "a" * 5000
COMMIT = "0" * 40
# Pieces of which odd addresses are made; nothing of them is found by name, as nobody is asked.
PIECES = [
    "http://", "https://", "file://", "file:", "ssh://", "git@h:", "runs:/", "models:/", "s3://", "sqlite:///", "x://",
    "h", "user:pw@", "@", ":99999999", ":-1", ":", "[::1", "[", "]", "//", "/", "..", ".", "~", "~nosuch", "#", "?",
    "\0", "%00", "\n", "\t", " ", "\ud800", "\udcff", "%ud800", "%ff", "%", "a\N{ACCOUNT OF}b", "\uff11", "\xe9",
    "-", "--upload-pack=x", "::", "\\", "C:", "{", "*", "$(x)", ".git", ".zip", "project", "project#sub", LONG,
]  # fmt: skip
addresses = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=6).map("".join)


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let git and the network refuse everything at once."""

    def refuse(*arguments: str, **_: Any) -> str:
        for argument in arguments:
            argument.encode()
        if arguments[0] == "init":
            Path(arguments[-1]).mkdir()
            return ""
        raise GitError("fatal: it does not exist")

    def no_host(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(repository, "fetching", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", no_host)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "MLproject").write_text("name: project")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "project" / "loop").symlink_to("loop")


def fetched(folder: Path, uri: str, version: str | None = None) -> object:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    return fetch(uri, version, Cache(folder / "cache", 10**9), workspace)


@pytest.mark.parametrize("version", [None, "main", COMMIT])
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("\0", "holds a NUL character"),
        ("project%00", "holds a NUL character"),
        ("\ud800", "holds half of a character"),
        ("project#\ud800", "holds half of a character"),
        ("git@h:\udcff", "holds half of a character"),
        ("https://h/\ud800", "holds half of a character"),
        ("http://h/" + "a" * 200_000, "has 200009 characters; at most 16384"),
        ("~nosuch/x", "does not|is git|cannot be read"),
        (LONG, "does not exist|cannot be read"),
        (f"file:///{LONG}", "does not exist|cannot be read"),
        ("loop", "does not exist|cannot be read"),
        ("http://h:99999999/x", r"no valid URL \(its host or port\)"),
        ("http://[::1", r"no valid URL \(its host or port\)"),
        ("file://[", r"no valid URL \(its host or port\)"),
        ("https://a\N{ACCOUNT OF}b/", r"no valid URL \(its host or port\)"),
        ("#", "is empty"),
        ("s3://", "cannot be read"),
    ],
    ids=range(17),
)
def test_an_odd_project_is_one_sentence(uri: str, words: str, version: str | None, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=words):
        fetched(tmp_path, uri, version)


@pytest.mark.parametrize("folder", ["loop", "x/../loop", LONG, "..", "/etc"])
def test_an_odd_folder_of_a_project_is_one_sentence(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"has no folder|leaves the project"):
        fetched(tmp_path, f"project#{folder}")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("", "cannot be a git branch"),
        ("-x", "cannot be a git branch"),
        ("a\nb", "cannot be a git branch"),
        ("\0", "holds a NUL character"),
        ("\ud800", "holds half of a character"),
        (LONG, "cannot be read"),
        ("a" * 200_000, "has 200000 characters"),
    ],
    ids=range(7),
)
def test_an_odd_version_is_one_sentence(version: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=words):
        fetched(tmp_path, "https://h/project", version)


@MANY
@given(addresses, st.none() | st.sampled_from(["main", COMMIT, "0" * 7]) | addresses)
def test_any_project_is_fetched_or_refused(tmp_path: Path, uri: str, version: str | None) -> None:
    folder = tmp_path / f"try{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    try:
        fetched(folder, uri, version)
    except PublicError as error:
        str(error).encode("utf-8", "replace")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://h:99999999", "no valid URL"),
        ("http://h:abc", "no valid URL"),
        ("http://[::1", "no valid URL"),
        ("http://", "no valid URL"),
        ("https:///path", "no valid URL"),
        ("//[", "no valid URL"),
        ("http://a\N{ACCOUNT OF}b", "no valid URL"),
        ("http://h\0", "holds a control character"),
        ("http://h\nx", "holds a control character"),
        ("http://\ud800", "half of a character"),
        ("\ud800", "half of a character"),
        ("sqlite:///\0", "holds a control character"),
        ("http://h/" + "a" * 70_000, "no valid URL"),
    ],
    ids=range(13),
)
def test_an_odd_tracking_uri_is_one_sentence(uri: str, words: str) -> None:
    with pytest.raises(ProjectError, match=words) as caught:
        asked({"MLFLOW_TRACKING_URI": uri})
    assert len(str(caught.value)) < 30_000
    connection: Any = SimpleNamespace(
        conn_id="c", conn_type="mlflow", host=uri, schema="", port=5000, login="", password="", extra_dejson={}
    )
    if uri != "\ud800" and "99999999" not in uri and "//[" not in uri[:2]:
        with pytest.raises((ProjectError, TrackingError)):
            RestClient(replace(settings_from_connection(connection), max_retries=0)).experiment_ids()


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e999", "-1", "9" * 400])
def test_an_odd_time_out_is_one_sentence(seconds: str) -> None:
    with pytest.raises(ProjectError, match="must be a number"):
        settings_from_environment({"MLFLOW_TRACKING_URI": "http://h", "MLFLOW_HTTP_REQUEST_TIMEOUT": seconds})
    extra = {"timeout": seconds} if seconds != "1e999" else {"max_retries": float("inf")}
    connection: Any = SimpleNamespace(
        conn_id="c", conn_type="mlflow", host="h", schema="", port=None, login="", password="", extra_dejson=extra
    )
    with pytest.raises(ProjectError, match="must be"):
        settings_from_connection(connection)


def test_an_upper_case_scheme_and_a_database_with_a_driver_mean_the_usual(tmp_path: Path) -> None:
    upper = settings_from_environment({"MLFLOW_TRACKING_URI": "HTTP://h/"})
    assert (upper.uri, upper.is_http) == ("http://h", True)
    relative = settings_from_environment({"MLFLOW_TRACKING_URI": "sqlite+pysqlite:///a.db"})
    assert relative.uri == f"sqlite+pysqlite:///{tmp_path}/a.db"


def asked(environment: dict[str, str]) -> None:
    found = replace(settings_from_environment(environment), max_retries=0, timeout=5.0)
    if found.is_http:
        client = RestClient(found)
        try:
            client.experiment_ids()
        finally:
            client.close()
    else:
        ensure_store(replace(found, access="read"))


@MANY
@given(addresses)
def test_any_tracking_uri_is_asked_or_refused(uri: str) -> None:
    try:
        asked({"MLFLOW_TRACKING_URI": uri})
    except PublicError as error:
        str(error).encode("utf-8", "replace")


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(addresses, st.text(max_size=20))
def test_any_text_can_be_shown(address: str, secret: str) -> None:
    shown = public_uri(address)
    assert public_uri(shown) == shown or "@" in shown
    public_text(f"{address} {secret}")
    secrets_in(address)
    without_user(address)
    local_path_of(address)
    for text in (address[:20], secret):
        if text:
            spellings(text)
            assert text not in hidden(f"x {text} y", [text]) or text in "***xy "
    client = replace(TrackingSettings("http://h"), ui_url=address)
    client.run_url("7", address)
    client.model_version_url(address, 1)


def test_a_secret_with_half_a_character_is_masked() -> None:
    assert "%ED%A0%80pass" in spellings("\ud800pass")


@pytest.mark.parametrize("value", ["http://[", "//[", "\0", "\ud800", LONG, "loop"])
def test_an_odd_path_is_one_sentence(value: str, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="no such file or folder"):
        existing_path(tmp_path, "data", value)


@pytest.mark.parametrize(
    "uri", ["http://[", "//[", "artifacts", "\0", f"/{LONG}", "file:///\ud800", "s3://", "models:/"]
)
def test_an_odd_artifact_uri_is_no_folder_of_a_container(uri: str) -> None:
    mounts = Mounts()
    _mount_stores(OpenRun(artifact_uri=uri), {}, mounts)
    assert set(mounts.folders) <= {"artifacts"}


def test_an_artifact_uri_that_is_none_explains_the_failure() -> None:
    run = Run("r", "0", "n", "FAILED", "http://[user:pw@x")
    said = explain_failure(MemoryClient(), run, "")
    assert "is no valid one" in said
    assert "pw" not in said
    assert explain_failure(MemoryClient(), replace(run, artifact_uri="models:/"), "") == ""
    assert "s3:// cannot be used" in explain_failure(MemoryClient(), replace(run, artifact_uri="s3://"), "")
