"""What of a registry's looks is news to a watch: each change once, nothing old, and never many at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.tracking.model_events import ModelChange, ModelMemory, ModelWatch, look
from mlflow_projects.tracking.registry import ModelSource, ModelVersion
from tests.support.memory_tracking import MemoryClient

ALL = ModelWatch("Wine", ("new_version", "alias_moved", "tag_set"), tag="good")


@pytest.fixture
def client() -> MemoryClient:
    return MemoryClient()


def add(client: MemoryClient, name: str = "Wine", **tags: str) -> int:
    client.ensure_model(name)
    return client.create_version(name, ModelSource("s3://bucket/model"), "run", tags, "").version


def news(client: MemoryClient, memory: ModelMemory, watch: ModelWatch = ALL) -> list[tuple[Any, ...]]:
    """Look, and remember what is new."""
    found = memory.changes(look(client, [watch]))
    for change in found:
        memory.remember(change)
    return [
        tuple(part for part in (one.event, one.version, one.alias, one.value) if part is not None) for one in found
    ]


def test_what_was_there_is_no_news_and_what_comes_is_told_once(client: MemoryClient) -> None:
    for _ in range(3):
        add(client, good="yes")
    client.set_alias("Wine", "champion", 2)
    memory = ModelMemory(ALL)
    assert news(client, memory) == news(client, memory) == []
    add(client)
    client.set_alias("Wine", "champion", 1)
    client.set_version_tag("Wine", 2, "good", "no")
    client.set_version_tag("Wine", 2, "another", "yes")
    told = [("new_version", 4), ("tag_set", 2, "no"), ("alias_moved", 1, "champion")]
    assert (news(client, memory), news(client, memory)) == (told, [])


def test_a_change_stays_new_until_it_is_remembered(client: MemoryClient) -> None:
    add(client)
    memory = ModelMemory(ALL)
    news(client, memory)
    add(client)
    add(client)
    first, second = memory.changes(look(client, [ALL]))
    memory.remember(first)
    assert memory.changes(look(client, [ALL])) == [second]
    memory.remember(second, pending=True)
    add(client)
    assert [change.version for change in memory.changes(look(client, [ALL]))] == [3, 4]
    assert news(client, memory) == [("new_version", 3), ("new_version", 4)]
    assert news(client, memory) == []


def test_what_came_while_nobody_looked_is_news_to_a_memory_that_was_kept(client: MemoryClient) -> None:
    add(client, good="yes")
    memory = ModelMemory(ALL)
    news(client, memory)
    kept = json.loads(json.dumps(memory.content))
    add(client)
    client.set_alias("Wine", "champion", 2)
    later = [("new_version", 2), ("alias_moved", 2, "champion")]
    assert news(client, ModelMemory(ALL, kept)) == later
    assert news(client, ModelMemory(ALL, {"written by": "somebody"})) == []


def test_never_many_at_once(client: MemoryClient) -> None:
    add(client)
    memory = ModelMemory(ALL)
    news(client, memory)
    for _ in range(50):
        add(client, good="yes")
    told = news(client, memory)
    assert [one for one in told if one[0] == "new_version"] == [("new_version", number) for number in range(32, 52)]
    assert [one for one in told if one[0] == "tag_set"] == [("tag_set", number, "yes") for number in range(32, 52)]
    assert news(client, memory) == []


def test_a_model_that_comes_later_is_all_new(client: MemoryClient) -> None:
    memory = ModelMemory(ALL)
    assert news(client, memory) == []
    add(client)
    client.set_alias("Wine", "champion", 1)
    assert news(client, memory) == [("new_version", 1), ("alias_moved", 1, "champion")]


def test_a_model_that_is_made_anew_is_new_and_one_that_is_hidden_is_not(client: MemoryClient) -> None:
    add(client)
    add(client)
    memory = ModelMemory(ALL)
    news(client, memory)
    found = look(client, [ALL])
    assert memory.changes(replace(found, models={})) == []
    assert news(client, memory) == []
    again = replace(found.models["Wine"], created=10**6, latest=(ModelVersion("Wine", 1, "s3://bucket/model"),))
    [change] = memory.changes(replace(found, models={"Wine": again}))
    assert (change.event, change.version) == ("new_version", 1)


def test_what_is_taken_away_may_come_back(client: MemoryClient) -> None:
    add(client, good="yes")
    client.set_alias("Wine", "champion", 1)
    memory = ModelMemory(ALL)
    news(client, memory)
    found = look(client, [ALL])
    bare = replace(found.models["Wine"], aliases={})
    assert memory.changes(replace(found, models={"Wine": bare}, tagged={"good": []})) == []
    assert news(client, memory) == [("tag_set", 1, "yes"), ("alias_moved", 1, "champion")]


def test_a_look_that_was_not_made_for_a_watch_says_nothing_to_it(client: MemoryClient) -> None:
    add(client, good="yes")
    add(client, "Beer")
    memory = ModelMemory(ALL)
    assert memory.changes(look(client, [ModelWatch("Beer")])) == []
    assert memory.content is None
    assert memory.changes(look(client, [ModelWatch("Wine")])) == []  # the same model, without its tags
    assert news(client, memory) == []


def test_one_question_for_all_models_and_one_for_each_tag(client: MemoryClient) -> None:
    watches = [ModelWatch("Wine"), ModelWatch("Wine", alias="champion"), ModelWatch("Beer"), ModelWatch("Tea")]
    look(client, watches)
    assert client.calls == ["search_models"]
    asked: list[Any] = []
    client.before = lambda method, arguments: asked.append((method, arguments[0]))
    look(client, [*watches, ALL, replace(ALL, name="Beer")])
    assert asked == [("search_models", ""), ("search_versions", "tags.`good` LIKE '%'")]
    asked.clear()
    look(client, [ALL, ALL])
    one = "name = 'Wine'"
    assert asked == [("search_models", one), ("search_versions", f"{one} and tags.`good` LIKE '%'")]


@pytest.mark.parametrize(
    ("watch", "wanted"),
    [
        (ModelWatch("Wine"), "v"),
        (ModelWatch("Wine", alias="champion"), "c"),
        (ModelWatch("Wine", "alias_moved"), "cd"),
        (ModelWatch("Wine", tag="good"), "g"),
        (ModelWatch("Wine", alias="champion", tag="good"), "cg"),
        (ModelWatch("Wine", ["new_version", "alias_moved"], alias="champion"), "vc"),
        (ModelWatch("Beer", ["new_version", "alias_moved"]), ""),
    ],
)
def test_a_watch_wants_what_its_arguments_say(watch: ModelWatch, wanted: str) -> None:
    changes = {
        "v": ModelChange("new_version", "Wine", 1),
        "c": ModelChange("alias_moved", "Wine", 1, alias="champion"),
        "d": ModelChange("alias_moved", "Wine", 1, alias="another"),
        "g": ModelChange("tag_set", "Wine", 1, tag="good", value="yes"),
        "h": ModelChange("tag_set", "Wine", 1, tag="another", value="yes"),
    }
    assert "".join(key for key, change in changes.items() if watch.wants(change)) == wanted


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"events": ["new_version", "moved"]}, "events: there is no 'moved'; give some of new_version, alias_moved"),
        ({"events": "tag_set"}, "tag: the event 'tag_set' needs the tag's key"),
        ({"tag": "a`b"}, "tag: the event 'tag_set' needs the tag's key"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ProjectError, match=sentence):
        ModelWatch("Wine", **arguments)


def test_a_dag_learns_the_same_facts_of_each_change() -> None:
    version = ModelVersion("Wine", 3, "s3://bucket/model", run_id="r")
    moved = ModelChange("alias_moved", "Wine", 3, alias="champion").told(version, "mlflow_default")
    assert moved == {
        "event": "alias_moved", "name": "Wine", "version": 3, "run_id": "r", "uri": "models:/Wine/3",
        "alias": "champion", "tag": None, "value": None, "mlflow_conn_id": "mlflow_default",
    }  # fmt: skip
    assert ModelChange("new_version", "Wine", 3).told(version, "c").keys() == moved.keys()
