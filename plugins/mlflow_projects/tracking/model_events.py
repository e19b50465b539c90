"""What happens to a registered model: a new version, an alias that moves, a tag that is set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.tracking.client import TrackingClient, quoted
from mlflow_projects.tracking.registry import ModelVersion, RegisteredModel

NEW_VERSION, ALIAS_MOVED, TAG_SET = EVENTS = ("new_version", "alias_moved", "tag_set")
_MOST_AT_ONCE = 20  # of each kind: whoever was away for weeks is told of the newest ones only


@dataclass(frozen=True)
class ModelChange:
    """Something that happened to a version of a model.

    :param event: one of ``EVENTS``
    :param alias: that names the version from now on
    :param tag: key of the tag that was set
    :param value: of that tag
    """

    event: str
    name: str
    version: int
    alias: str | None = None
    tag: str | None = None
    value: str | None = None

    def told(self, version: ModelVersion, mlflow_conn_id: str) -> dict[str, Any]:
        """Return what a DAG learns of it.

        :param version: as the registry has it
        """
        facts = {"event": self.event, "name": self.name, "version": self.version, "run_id": version.run_id}
        more = {"uri": version.uri, "alias": self.alias, "tag": self.tag, "value": self.value}
        return {**facts, **more, "mlflow_conn_id": mlflow_conn_id}


@dataclass(frozen=True)
class ModelWatch:
    """What of a model is of interest.

    :param events: some of ``EVENTS``; none: what ``alias`` and ``tag`` are about, without both the versions
    :param alias: only this one; None: all
    :param tag: key of the tag
    :raises ProjectError: an event that there is not, or tags without a key
    """

    name: str
    events: Sequence[str] = ()
    alias: str | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        given = (self.events,) if isinstance(self.events, str) else tuple(self.events)
        meant = (*((ALIAS_MOVED,) if self.alias else ()), *((TAG_SET,) if self.tag else ()))
        object.__setattr__(self, "events", given or meant or (NEW_VERSION,))
        if unknown := [event for event in self.events if event not in EVENTS]:
            raise ProjectError(f"events: there is no {unknown[0]!r}; give some of {', '.join(EVENTS)}.")
        if TAG_SET in self.events and (not self.tag or "`" in self.tag):
            raise ProjectError(f"tag: the event {TAG_SET!r} needs the tag's key (without a backtick).")

    def wants(self, change: ModelChange) -> bool:
        """Tell whether a change is of interest."""
        if change.name != self.name or change.event not in self.events:
            return False
        if change.event == ALIAS_MOVED:
            return self.alias in (None, change.alias)
        return change.event != TAG_SET or change.tag == self.tag


@dataclass(frozen=True)
class RegistryLook:
    """What a registry held at one moment.

    :param watches: for which it was asked; of other models and tags it says nothing
    :param tagged: by a tag's key, the versions that have the tag
    """

    watches: Sequence[ModelWatch]
    models: Mapping[str, RegisteredModel]
    tagged: Mapping[str, Sequence[ModelVersion]]


def look(client: TrackingClient, watches: Sequence[ModelWatch]) -> RegistryLook:
    """Ask a registry once for all models, and once more for each tag that is of interest.

    :raises TrackingError: it does not answer, or refuses
    """
    names = {watch.name for watch in watches}
    # MLflow's search has no "or", and "in" only in new servers.
    only = f"name = {quoted(next(iter(names)))}" if len(names) == 1 else ""
    keys = sorted({watch.tag for watch in watches if watch.tag and TAG_SET in watch.events})
    tagged = {key: " and ".join(filter(None, (only, f"tags.`{key}` LIKE '%'"))) for key in keys}
    return RegistryLook(
        watches,
        {model.name: model for model in client.search_models(only)},
        {key: client.search_versions(query, limit=10**6) for key, query in tagged.items()},
    )


class ModelMemory:
    """What a watch has seen of its model, and so what is new to it.

    :param kept: what an earlier memory's ``content`` was; None: the first look is no news
    """

    def __init__(self, watch: ModelWatch, kept: Any = None) -> None:
        self._watch = watch
        usable = isinstance(kept, dict) and kept.keys() >= _empty(0).keys()
        self.content: dict[str, Any] | None = kept if usable else None

    def changes(self, found: RegistryLook) -> list[ModelChange]:
        """Return what is new, the oldest first; each stays new until it is remembered."""
        if self._watch not in found.watches:  # it joined meanwhile
            return []
        model = found.models.get(self._watch.name)
        if model is None:
            self.content = self.content or _empty(0)
            return []
        tagged = [version for version in found.tagged.get(self._watch.tag or "", ()) if version.name == model.name]
        values = {str(version.version): version.tags[self._watch.tag or ""] for version in tagged}
        now = {
            **_empty(model.created),
            "version": max((version.version for version in model.latest), default=0),
            "aliases": dict(model.aliases),
            "tags": {number: _digest(value) for number, value in values.items()},
        }
        if self.content is None:
            self.content = now
        elif self.content["created"] != model.created:  # made, or made anew, since
            self.content = _empty(model.created)
        seen = self.content
        for kind in ("aliases", "tags"):  # what was taken away may come back
            seen[kind] = {key: value for key, value in seen[kind].items() if key in now[kind]}
        moved = now["aliases"].items() - seen["aliases"].items()
        set_on = sorted(map(int, dict(now["tags"].items() - seen["tags"].items())))
        name, tag = self._watch.name, self._watch.tag
        numbers = [*seen["pending"], *range(seen["version"] + 1, now["version"] + 1)]
        news = (
            [ModelChange(NEW_VERSION, name, number) for number in numbers],
            [ModelChange(TAG_SET, name, number, tag=tag, value=values[str(number)]) for number in set_on],
            [ModelChange(ALIAS_MOVED, name, number, alias=alias) for alias, number in sorted(moved)],
        )
        wanted = [[change for change in changes if self._watch.wants(change)] for changes in news]
        for old in [change for changes in wanted for change in changes[:-_MOST_AT_ONCE]]:
            self.remember(old)
        return [change for changes in wanted for change in changes[-_MOST_AT_ONCE:]]

    def remember(self, change: ModelChange, *, pending: bool = False) -> None:
        """Let a change be no news from now on.

        :param pending: of a new version: it is not READY yet, so it will be news again
        """
        seen = self.content or _empty(0)
        if change.event == NEW_VERSION:
            seen["version"] = max(seen["version"], change.version)
            others = [number for number in seen["pending"] if number != change.version]
            seen["pending"] = [*others, change.version] if pending else others
        elif change.event == ALIAS_MOVED:
            seen["aliases"][change.alias] = change.version
        else:
            seen["tags"][str(change.version)] = _digest(change.value or "")


def _empty(created: int) -> dict[str, Any]:
    return {"created": created, "version": 0, "pending": [], "aliases": {}, "tags": {}}


def _digest(value: str) -> str:
    """Return what tells a tag's value from others; it is kept in Airflow's database."""
    return hashlib.sha256(value.encode(errors="replace")).hexdigest()[:16]
