"""What a server answers, or somebody wrote into a tag, has any shape and ends in no traceback (issue 22, row 6)."""

from __future__ import annotations

import copy
import json
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_projects.attempt.checkpoint import _Uploaded
from mlflow_projects.attempt.reuse import _changed_names
from mlflow_projects.backends.object_store import object_store
from mlflow_projects.backends.registry import handle_from
from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking import registry_rest
from mlflow_projects.tracking.answers import json_texts
from mlflow_projects.tracking.client import Run, TrackingClient
from mlflow_projects.tracking.lookup import runs_of_dag_run
from mlflow_projects.tracking.refusal import _quoted
from mlflow_projects.tracking.registry import ModelSource
from mlflow_projects.tracking.rest import RestClient
from mlflow_projects.tracking.reuse_key import ARTIFACTS, ReuseKey, lost_artifacts, with_models
from mlflow_projects.tracking.server import TrackingSettings
from mlflow_projects.tracking.tags import PARAMETERS
from mlflow_projects.tracking.tree import RunNode
from mlflow_projects.ui import reading
from mlflow_projects.ui.sources import DagRunRecord
from tests.support.hostile import answer_of, hostile_server
from tests.support.memory_tracking import MemoryClient

Ask = Callable[[RestClient], Any]
PAIRS = [{"key": "k", "value": "v"}]
RUN: dict[str, Any] = {
    "info": {
        "run_id": "r1",
        "run_name": "name",
        "experiment_id": "7",
        "status": "FINISHED",
        "artifact_uri": "s3://bucket/r1",
        "start_time": 1,
        "end_time": "2",
    },
    "data": {
        "tags": PAIRS,
        "params": PAIRS,
        "metrics": [{"key": "m", "value": "NaN", "timestamp": 1, "step": 0}],
    },
    "inputs": {"dataset_inputs": [{"dataset": {"name": "d", "digest": "1", "source": "{}", "schema": "{}"}}]},
    "outputs": {"model_outputs": [{"model_id": "m-1", "step": 0}]},
}
VERSION = {
    "name": "n",
    "version": "3",
    "source": "models:/m-1",
    "run_id": "r1",
    "status": "READY",
    "status_message": "",
    "aliases": ["champion"],
    "tags": PAIRS,
}
MODEL = {
    "info": {
        "model_id": "m-1",
        "name": "n",
        "source_run_id": "r1",
        "artifact_uri": "s3://bucket/m",
        "creation_timestamp_ms": 5,
        "status": "LOGGED_MODEL_READY",
    }
}
MORE = {"next_page_token": ""}
# Each method of the client, and what MLflow answers to it.
HONEST: dict[str, tuple[Ask, dict[str, Any]]] = {
    "experiment_id": (
        lambda client: client.experiment_id("e"),
        {"experiment": {"experiment_id": "7", "name": "e", "lifecycle_stage": "active"}},
    ),
    "create_experiment": (lambda client: client.create_experiment("e"), {"experiment_id": "7"}),
    "create_run": (lambda client: client.create_run("7", "n", 1, {"k": "v"}), {"run": RUN}),
    "get_run": (lambda client: client.get_run("r1"), {"run": RUN}),
    "search_runs": (lambda client: client.search_runs(["7"], "", limit=3), {"runs": [RUN], **MORE}),
    "log_batch": (lambda client: client.log_batch("r1", tags={"k": "v"}), {}),
    "update_run": (lambda client: client.update_run("r1", "FINISHED", 1), {"run_info": RUN["info"]}),
    "list_artifacts": (
        lambda client: client.list_artifacts("r1"),
        {"files": [{"path": "a", "is_dir": False, "file_size": "3"}, {"path": "b", "is_dir": True}]},
    ),
    "metric_history": (
        lambda client: client.metric_history("r1", "m", limit=3),
        {"metrics": [{"key": "m", "value": 1, "timestamp": "5", "step": 0}], **MORE},
    ),
    "logged_datasets": (lambda client: client.logged_datasets("r1"), {"run": RUN}),
    "experiment_ids": (lambda client: client.experiment_ids(), {"experiments": [{"experiment_id": "7"}], **MORE}),
    "ensure_model": (lambda client: client.ensure_model("n"), {"registered_model": {"name": "n"}}),
    "model_version": (lambda client: client.model_version("n", 3), {"model_version": VERSION}),
    "version_by_alias": (lambda client: client.version_by_alias("n", "champion"), {"model_version": VERSION}),
    "search_models": (
        lambda client: client.search_models(),
        {"registered_models": [{"name": "n", "latest_versions": [VERSION], "aliases": []}], **MORE},
    ),
    "search_versions": (lambda client: client.search_versions("", limit=3), {"model_versions": [VERSION], **MORE}),
    "create_version": (
        lambda client: client.create_version("n", ModelSource("s3://bucket/m", "m-1"), "r1", {}, ""),
        {"model_version": VERSION},
    ),
    "set_version_tag": (lambda client: client.set_version_tag("n", 3, "k", "v"), {}),
    "set_alias": (lambda client: client.set_alias("n", "champion", 3), {}),
    "logged_model": (lambda client: client.logged_model("m-1"), {"model": MODEL}),
    "logged_models": (lambda client: client.logged_models("7", ""), {"models": [MODEL], **MORE}),
}
MOST_REQUESTS = 20


class Server:
    """Answers every request with the same bytes, or with what a function makes of the number of the request."""

    def __init__(self) -> None:
        self.whole: bytes | Callable[[int], bytes] = b""
        self.asked = 0

    def __call__(self, connection: socket.socket) -> None:
        self.asked += 1
        connection.sendall(self.whole if isinstance(self.whole, bytes) else self.whole(self.asked))


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[RestClient]:
    with hostile_server(server) as uri:
        asking = RestClient(TrackingSettings(uri=uri, max_retries=0, max_bytes=2**20))
        yield asking
        asking.close()


@pytest.fixture(autouse=True)
def few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_rest, "_MOST_PAGES", MOST_REQUESTS)


def asked(server: Server, client: RestClient, ask: Ask, whole: bytes | Callable[[int], bytes]) -> Any:
    """Return what a client makes of an answer, and see that it asks a few times only."""
    server.whole, server.asked = whole, 0
    try:
        return ask(client)
    finally:
        assert server.asked <= MOST_REQUESTS


def test_every_method_of_a_client_is_tried() -> None:
    public = {name for name in vars(TrackingClient) | vars(registry_rest.RestRegistry) if name[0] != "_"}
    assert HONEST.keys() == public - {"settings", "close", "abort"}


@pytest.mark.parametrize("method", HONEST)
def test_what_mlflow_answers_is_understood(method: str, server: Server, client: RestClient) -> None:
    ask, honest = HONEST[method]
    asked(server, client, ask, answer_of(json.dumps(honest).encode()))


def test_each_field_of_a_run_comes_through(server: Server, client: RestClient) -> None:
    run = asked(server, client, HONEST["get_run"][0], answer_of(json.dumps({"run": RUN}).encode()))
    assert math.isnan(run.metrics.pop("m"))
    assert run == Run(
        "r1", "7", "name", "FINISHED", "s3://bucket/r1", 1, 2, {"k": "v"}, {"k": "v"}, {}, model_ids=("m-1",)
    )


def with_info(**fields: Any) -> bytes:
    return json.dumps({"run": {**RUN, "info": {**RUN["info"], **fields}}}).encode()


def with_data(**fields: Any) -> bytes:
    return json.dumps({"run": {**RUN, "data": {**RUN["data"], **fields}}}).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "not as an MLflow tracking server"),
        (b'{"run": ' + b"9" * 6000 + b"}", "not as an MLflow tracking server"),
        (b'{"run": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, "not as an MLflow tracking server"),
        (b'{"run": "\xff"}', "not as an MLflow tracking server"),
        (b"{}", "runs/get that is not MLflow's: run is missing, not an object"),
        (b'{"run": null}', "run is missing"),
        (b'{"run": [], "run": []}', "run is a list, not an object"),
        (b'{"run": {"info": {}}}', "run.info.status is missing, not a text"),
        (with_info(status=7), "run.info.status is another number, not a text"),
        (with_info(status="PAUSED"), "run.info.status is none of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED"),
        (with_info(run_id="r2"), "it is about another run than was asked for"),
        (with_info(run_id=""), "run.info.run_id is a text, not an id"),
        (with_info(start_time="x"), "run.info.start_time is a text, not a whole number"),
        (with_info(start_time=10**400), "run.info.start_time is another number, not a whole number"),
        (with_info(start_time="9" * 5000), "run.info.start_time"),
        (with_info(end_time=math.inf), "run.info.end_time"),
        (with_info(end_time=math.nan), "run.info.end_time"),
        (with_info(end_time=1.5), "run.info.end_time"),
        (with_info(end_time=True), "run.info.end_time is true or false"),
        (with_data(tags={"k": "v"}), "run.data.tags is an object, not a list"),
        (with_data(tags=["k"]), r"run.data.tags\[0\] is a text, not an object"),
        (with_data(tags=[{"key": None}]), r"run.data.tags\[0\].key is missing"),
        (with_data(params=[*PAIRS, {"key": "k", "value": 7}]), r"run.data.params\[1\].value is another number"),
        (with_data(metrics=[{"key": "m", "value": 10**400}]), r"run.data.metrics\[0\].value is another number"),
        (with_data(metrics=[{"key": "m", "value": "much"}]), r"run.data.metrics\[0\].value is a text, not a number"),
    ],
)
def test_an_answer_of_another_shape_is_one_sentence(
    body: bytes, words: str, server: Server, client: RestClient
) -> None:
    with pytest.raises(TrackingError, match=words) as caught:
        asked(server, client, HONEST["get_run"][0], answer_of(body))
    assert client.settings.address in str(caught.value)


def test_half_a_character_of_an_answer_can_be_printed_and_stored(server: Server, client: RestClient) -> None:
    body = with_data(tags=[{"key": "k\ud800", "value": "\udfff"}])
    run = asked(server, client, HONEST["get_run"][0], answer_of(body))
    assert run.tags == {"k?": "?"}


def places_in(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value in an answer."""
    yield place
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield from places_in(content[key], (*place, key))


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return an answer with another value at one place."""
    if not place:
        return value
    whole = copy.deepcopy(content)
    at = whole
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return whole


numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 2**63, -(2**63), 1e308, 10**4000])
)
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["\ud800", "\0", "", "9" * 5000, "NaN", "-Infinity", "1e999", "x" * 40_000, "http://[", "r2", "None"]
    ),
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "value", "info", "x"]) | texts, inner, max_size=3)
    ),
    max_leaves=8,
)
methods = st.sampled_from(sorted(HONEST))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.data(), methods, values)
def test_any_value_anywhere_in_an_answer_is_an_error_of_ours_or_read(
    server: Server, client: RestClient, data: st.DataObject, method: str, value: Any
) -> None:
    ask, honest = HONEST[method]
    place = data.draw(st.sampled_from(list(places_in(honest))))
    try:
        found = asked(server, client, ask, answer_of(json.dumps(changed(honest, place, value)).encode()))
    except (TrackingError, ProjectError) as error:
        str(error).encode()
        return
    content = [asdict(one) if hasattr(one, "__dataclass_fields__") else one for one in listed(found)]
    json.dumps(content, ensure_ascii=False).encode()  # an XCom, a page and a log can take it


def listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    methods,
    st.sampled_from([302, 400, 401, 403, 404, 429, 500, 503]),
    values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["message", "error_code"]), values).map(
        lambda value: json.dumps(value).encode()
    )
    | st.binary(max_size=50),
    st.sampled_from(["", "hex", "zlib", "idna", "undefined", "rot13", "utf-7", "unicode_escape", "latin-1"]),
)
def test_a_refusal_of_any_shape_is_an_error_of_ours(
    server: Server, client: RestClient, method: str, status: int, body: bytes, charset: str
) -> None:
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}", f"Content-Type: text/plain; charset={charset}"]
    lines += ['WWW-Authenticate: Basic realm="Zürich"', "Retry-After: nan"]
    whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    ask, _ = HONEST[method]
    try:
        asked(server, client, ask, whole)
    except (TrackingError, ProjectError) as error:
        str(error).encode()
    else:  # the only refusals that a caller of ours takes for an answer
        codes = ("RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE")
        assert status == 302 or any(code.encode() in body for code in codes)


@pytest.mark.parametrize(
    ("charset", "said"),
    [(name, ": no") for name in ("", "utf-8", "US-ASCII", "windows-1252")] + [("punycode", ""), ("utf-7", "")],
)
def test_a_refusal_is_read_in_common_charsets_only(charset: str, said: str) -> None:
    """Punycode takes time by the square: a mebibyte of it, hours."""
    headers = {"Content-Type": f"text/plain; charset={charset}"}
    assert _quoted(httpx.Response(403, headers=headers, content=b"no"), plain_text=True) == said


def test_no_more_of_a_refusal_is_read_than_may_be_shown() -> None:
    answer = httpx.Response(403, content=b" " * 9_999 + b"x" * 10**6)
    assert _quoted(answer, plain_text=True) == ": x"


def test_a_long_refusal_is_cut(server: Server, client: RestClient) -> None:
    body = json.dumps({"error_code": "BAD_REQUEST", "message": "x" * 100_000}).encode()
    whole = answer_of(body).replace(b"200 OK", b"400 No")
    with pytest.raises(TrackingError) as caught:
        asked(server, client, HONEST["get_run"][0], whole)
    assert len(str(caught.value)) == 10_000


LISTS = ["experiment_ids", "search_runs", "metric_history", "search_models", "search_versions", "logged_models"]


@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize(
    ("token", "words", "most"),
    [
        (lambda number: "again", "no end", 2),
        (lambda number: "ab"[number % 2], "no end", 3),
        (lambda number: str(number), "no end", MOST_REQUESTS),
        (lambda number: "x" * 50_000, "the name of its next page is too long", 1),
        (lambda number: {"next": 1}, "next_page_token is an object, not a text", 1),
    ],
    ids=["the same page", "two pages in a circle", "new pages for ever", "a long name", "no name"],
)
def test_pages_without_an_end_are_left(
    method: str, token: Callable[[int], Any], words: str, most: int, server: Server, client: RestClient
) -> None:
    def page(number: int) -> bytes:
        return answer_of(json.dumps({"next_page_token": token(number)}).encode())

    with pytest.raises(TrackingError, match=words):
        asked(server, client, HONEST[method][0], page)
    assert server.asked == most


def test_the_pages_of_one_list_have_a_largest_size(server: Server, client: RestClient) -> None:
    def page(number: int) -> bytes:
        return answer_of(json.dumps({"next_page_token": str(number), "filling": "x" * 1_000_000}).encode())

    with pytest.raises(TrackingError, match="no end"):
        asked(server, client, HONEST["experiment_ids"][0], page)
    assert server.asked == 3


def test_no_more_runs_are_taken_than_were_asked_for(server: Server, client: RestClient) -> None:
    body = json.dumps({"runs": [RUN] * 50}).encode()
    assert len(asked(server, client, HONEST["search_runs"][0], answer_of(body))) == 3


def test_what_cannot_be_sent_is_one_sentence(client: RestClient) -> None:
    for ask in (
        lambda: client.create_experiment("\ud800"),
        lambda: client.experiment_id("\ud800"),
        lambda: client.metric_history("r1", "x" * 100_000),
    ):
        with pytest.raises((ProjectError, TrackingError)) as caught:
            ask()
        str(caught.value).encode()


def test_a_dag_run_has_an_end_whatever_a_server_says() -> None:
    class Endless(MemoryClient):
        searches = 0

        def experiment_ids(self) -> list[str]:
            return [str(number) for number in range(1_000_000)]

        def search_runs(self, *_: Any, **__: Any) -> list[Run]:
            self.searches += 1
            return [Run("r", "0", "n", "RUNNING", "")] * 5000

    client = Endless()
    assert len(runs_of_dag_run(client, "dag", "run")) == 10_000
    assert client.searches == 2


def test_a_tree_may_be_deeper_than_pythons_calls() -> None:
    top = node = RunNode(Run("r", "0", "n", "RUNNING", ""))
    for _ in range(5000):
        node.children = [RunNode(node.run), RunNode(node.run)]
        node = node.children[0]
    depths = [depth for depth, _ in top.walk()]
    assert (len(depths), max(depths), depths[:3]) == (10_001, 5000, [0, 1, 2])


# What a person, or a project, may write into a tag.
DEEP = "[" * 100_000
TAGS = [
    "",
    "{",
    "[]",
    "7",
    "null",
    '"x"',
    DEEP,
    '{"a": ' * 50_000,
    "9" * 6000,
    '{"files": 7}',
    '{"files": {"a": {}}}',
]


@pytest.mark.parametrize("text", TAGS, ids=range(len(TAGS)))
def test_a_tag_of_any_shape_is_read_as_none(text: str) -> None:
    client = MemoryClient()
    key = ReuseKey({"code": "x"}, "task")
    name = next(name for name in key.tags("") if name != key.tag)
    run = Run("r", "0", "n", "FINISHED", "", tags={ARTIFACTS: text, name: text, PARAMETERS: text})
    assert with_models(run) == run
    assert lost_artifacts(client, run) == ["the list of its artifacts"]
    client.search_runs = lambda *_, **__: [run]  # type: ignore[method-assign]
    assert key.differences(client, "0") in (None, (run, ["code"]))
    assert _changed_names(text, {}) in ([], ["files"])
    with pytest.raises(ProjectError, match="names no backend"):
        handle_from(None if json_texts(text) is None else json.loads(text))


@pytest.mark.parametrize(
    "noted",
    [
        {"files": [["a", 1]], "models": []},
        {"files": {"a": 1}, "models": [["m"]]},
        {"files": {}, "models": {"m": 1}},
        {"files": {"\ud800/a": 1}, "models": []},
        {"files": {"a\0/b": 1}, "models": []},
        {"files": {"a/" * 2500: 1}, "models": []},
        {"files": {"/a/b": 1}, "models": []},
        {"files": {"a/../../b": 1}, "models": []},
        {"files": {f"folder{n}/a": 1 for n in range(1000)}, "models": []},
    ],
)
def test_a_list_of_artifacts_that_is_not_ours_is_no_result(noted: Any) -> None:
    run = Run("r", "0", "n", "FINISHED", "", tags={ARTIFACTS: json.dumps(noted)})
    client = MemoryClient()
    assert lost_artifacts(client, run) == ["the list of its artifacts"]
    assert with_models(run) == run
    assert client.calls == []


@pytest.mark.parametrize("text", [*TAGS, '{"a": "\\ud800", "\\udfff": [1, {"b": null}]}'], ids=range(len(TAGS) + 1))
def test_a_page_shows_a_run_with_any_tag_and_time(text: str) -> None:
    client = MemoryClient()
    tags = {"airflow.dag_id": "d", "airflow.run_id": "r", PARAMETERS: text}
    run = Run("i", "0", "n", "RUNNING", "", 2**62, tags=tags)
    client.search_runs = lambda *_, **__: [run]  # type: ignore[method-assign]
    content = reading.tree(client, "d", DagRunRecord("r", "running", 0))
    json.dumps(content, allow_nan=False, ensure_ascii=False).encode()
    assert content["runs"][0]["start"] is None


MANIFESTS = [
    "{",
    "[]",
    DEEP,
    "{}",
    '{"files": 7}',
    '{"files": {"a": 7}}',
    '{"files": {"a": {"object": "../secret", "changed": 1}}}',
    '{"files": {"a": {"object": "data/00000000000000000000000000000000", "changed": "x"}}}',
    '{"files": {"a": {"object": "data/00000000000000000000000000000000", "changed": 1e400}}}',
    '{"files": {"a": {"object": "data/00000000000000000000000000000000", "changed": ' + "9" * 400 + "}}}",
    '{"files": {"": {"object": "data/00000000000000000000000000000000", "changed": 1}}}',
    '{"files": {"a\\u0000": {"object": "data/00000000000000000000000000000000", "changed": 1}}}',
    '{"files": {"\\ud800": {"object": "data/00000000000000000000000000000000", "changed": 1}}}',
    '{"files": {"' + "a" * 300 + '": {"object": "data/00000000000000000000000000000000", "changed": 1}}}',
    '{"files": {"a": {"object": "data/00000000000000000000000000000000", "changed": 1}, '
    '"a/b": {"object": "data/00000000000000000000000000000000", "changed": 1}}}',
]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_damaged_checkpoint_is_one_sentence(manifest: str, tmp_path: Path) -> None:
    store = object_store(f"file://{tmp_path}/store", None)
    store.put("key/manifest.json", manifest.encode())
    store.put("key/data/00000000000000000000000000000000", b"content")
    checkpoint = _Uploaded(tmp_path / "folder", store, "key", print)
    with pytest.raises(ProjectError, match="The checkpoint key is none of ours, or damaged"):
        checkpoint.fetch()


def test_a_server_that_says_nonsense_is_not_called_away(server: Server, client: RestClient) -> None:
    """Whoever waits for a server to come back must not wait for this one for a day."""
    with pytest.raises(TrackingError) as caught:
        asked(server, client, HONEST["get_run"][0], answer_of(b"{}"))
    assert not isinstance(caught.value, TrackingUnavailableError)
