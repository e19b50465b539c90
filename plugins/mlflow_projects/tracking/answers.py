"""What a server answers, or somebody wrote into a tag: anything may stand there, so it is read field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_projects.exceptions import TrackingError

_WHOLE = re.compile(r"[+-]?\d{1,20}")  # protobuf writes 64 bits as text
_LARGEST = 2**63 - 1
_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


@dataclass(frozen=True)
class Fields:
    """A JSON object of an answer. A field that is null counts as missing.

    Each method raises :class:`~mlflow_projects.exceptions.TrackingError` for a value of the wrong kind, and for a
    missing one that has no default.

    :param server: its address, as it may be shown
    :param request: what was asked, as REST paths name it
    :param place: of the object in the answer, "" for the whole
    :param size: of the whole answer, in bytes
    """

    content: Mapping[str, Any]
    server: str
    request: str
    place: str = ""
    size: int = 0

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(key, value, "a text")
        return whole_characters(value)

    def identifier(self, key: str) -> str:
        """Return an id, which may be written as a number."""
        value = self.content.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(self.whole(key))
        if not (found := self.text(key)):
            raise self.error(key, value, "an id")
        return found

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a whole number of at most 64 bits."""
        given = value = self._value(key, default)
        if (isinstance(value, str) and _WHOLE.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
            raise self.error(key, given, "a whole number of 64 bits")
        return value

    def number(self, key: str) -> float:
        """Return a number; NaN and infinity are some, also written as text."""
        value = self._value(key, None)
        try:
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                return float(value)
        except (ValueError, OverflowError):
            pass
        raise self.error(key, value, "a number")

    def flag(self, key: str) -> bool:
        """Return whether something is so; False where nothing is said."""
        value = self._value(key, False)
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def part(self, key: str, default: Mapping[str, Any] | None = None) -> Fields:
        """Return an object inside of this one."""
        return self._fields(key, self._value(key, default))

    def parts(self, key: str) -> list[Fields]:
        """Return a list of objects; none where it is missing."""
        return [self._fields(f"{key}[{index}]", value) for index, value in enumerate(self._list(key))]

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; none where it is missing."""
        found = self._list(key)
        for index, value in enumerate(found):
            if not isinstance(value, str):
                raise self.error(f"{key}[{index}]", value, "a text")
        return tuple(map(whole_characters, found))

    def pairs(self, key: str) -> dict[str, str]:
        """Return a list of objects with ``key`` and ``value`` as a mapping."""
        return {pair.text("key"): pair.text("value", "") for pair in self.parts(key)}

    def error(self, key: str, value: Any, wanted: str) -> TrackingError:
        """Return what to raise for a field."""
        name = _NAMES.get(type(value), "another number")
        found = "is missing" if value is None else f"is {name}"
        return not_understood(self.server, self.request, f"{self._named(key)} {found}, not {wanted}")

    def _value(self, key: str, default: Any) -> Any:
        value = self.content.get(key)
        return default if value is None or (value == "" and isinstance(default, int)) else value

    def _list(self, key: str) -> list[Any]:
        value = self._value(key, [])
        if not isinstance(value, list):
            raise self.error(key, value, "a list")
        return value

    def _fields(self, key: str, value: Any) -> Fields:
        if not isinstance(value, dict):
            raise self.error(key, value, "an object")
        return Fields(value, self.server, self.request, self._named(key))

    def _named(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key


def not_understood(server: str, request: str, what: str) -> TrackingError:
    """Return what to raise for an answer that MLflow would not give."""
    return TrackingError(
        f"The MLflow tracking server at {server} gives an answer to {request} that is not MLflow's: {what}. Check "
        "that this is its address, and what stands in between."
    )


def whole_characters(text: str) -> str:
    """Return a text that can be printed, stored and sent: JSON can hold half a character, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def json_object(text: str | bytes | None) -> dict[str, Any] | None:
    """Return the JSON object in a text that anybody may have written; None if there is none."""
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError):  # the latter: nested too deeply
        return None
    return content if isinstance(content, dict) else None


def json_texts(text: str | bytes | None) -> dict[str, str] | None:
    """Return the JSON object in a text that anybody may have written, its values as texts; None if there is none."""
    content = json_object(text)
    if content is None:
        return None
    try:
        return {whole_characters(key): whole_characters(str(value)) for key, value in content.items()}
    except RecursionError:
        return None
