"""Where options go: runs of a script with other values, compared with the first one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_projects.cli.import_script.marks import (
    MARK,
    NOT_IN_THE_DAG,
    OPEN,
    Leaves,
    leaves_of,
    mark,
    marks_in,
    nodes_of,
    shape_of,
)
from mlflow_projects.cli.import_script.other_values import unlike
from mlflow_projects.cli.import_script.plan import Option
from mlflow_projects.cli.import_script.recording import (
    CutShortError,
    Recorded,
    Recorder,
    RecorderError,
    Script,
    ScriptError,
)
from mlflow_projects.cli.import_script.script_recorder.state import NO_END
from mlflow_projects.exceptions import ProjectError

_MOST_CHOICES = 8
# Why an option is no param.
REFUSED = "takes only values that the script knows"
_DECIDES = "decides which steps there are"
_COMPUTED = "is computed with"
_TOGETHER = "works only with some values of others"
_MISSING = object()


@dataclass
class Tracing:
    recorder: Recorder
    script: Script
    given: Mapping[str, Any]
    arguments: Callable[[Mapping[str, Any]], list[str]] | None
    base: list[dict[str, Any]] = field(default_factory=list)
    leaves: Leaves = field(default_factory=dict)
    texts: Leaves = field(default_factory=dict)  # what the DAG has instead of a leaf
    variable: list[tuple[int, str]] = field(default_factory=list)
    choices: list[tuple[str, dict[Any, str]]] = field(default_factory=list)
    stopped: Mapping[str, Any] | None = None
    variables: set[str] = field(default_factory=set)
    default: dict[str, Any] = field(default_factory=dict)
    random: set[tuple[Any, ...]] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)  # which kind of other value an option takes
    near: set[str] = field(default_factory=set)  # options that take values like their own only
    unchecked: set[str] = field(default_factory=set)

    def record(self, values: Mapping[str, Any], **more: Any) -> Recorded:
        environment = {name: str(value) for name, value in values.items() if name in self.variables}
        values = {**self.given, **{name: value for name, value in values.items() if name not in self.variables}}
        args = self.arguments(values) if self.arguments else None
        return self.recorder.record(self.script, values, args, environment=environment, **more)

    def other(self, values: Mapping[str, Any], *, seed: int = 0) -> Leaves | str:
        """Return the values of the same steps with other options; why not if there are other steps, or an error."""
        try:
            recorded = self._not_cut_short(values, seed)
        except RecorderError:
            raise
        except ProjectError:  # it cannot be recorded, or the MLproject refuses the value
            return REFUSED
        if recorded is None or not self._ends_as_before(recorded):
            return REFUSED
        nodes = nodes_of(recorded, self.script)
        if shape_of(nodes) != shape_of(self.base):
            return _DECIDES
        return leaves_of(nodes)

    def _not_cut_short(self, values: Mapping[str, Any], seed: int) -> Recorded | None:
        """Record; twice if the first comes to no end; None if neither does, so that it is the values' fault.

        :raises RecorderError: it is the machine's
        """
        for _ in range(2):
            with contextlib.suppress(CutShortError):
                recorded = self.record(values, seed=seed)
                if (recorded.stopped or {}).get("sentence") != NO_END:
                    return recorded
            try:
                is_well = self._ends_as_before(self.record({}))
            except CutShortError:
                is_well = False
            if not is_well:
                raise RecorderError(
                    f"{self.script.name} came to its end once, but not again within {self.script.seconds:g} s: the "
                    "machine is too busy. Try again, or pass more --seconds. Nothing was written."
                )
        return None

    def _ends_as_before(self, recorded: Recorded) -> bool:
        return (recorded.stopped or {}).get("sentence") == (self.stopped or {}).get("sentence")

    def find_random(self) -> None:
        """Find what another clock and other random numbers change.

        :raises ScriptError: the steps themselves
        """
        other = self.other({}, seed=1)
        if other == REFUSED:  # by a library that cannot stand another clock
            other = self.other({}, seed=2)
        if isinstance(other, str) or other.keys() != self.leaves.keys():
            raise ScriptError(
                f"{self.script.name} runs other steps each time, by the clock or by random numbers; a DAG has "
                "always the same. Nothing was written."
            )
        self.random = {key for key in self.leaves if other[key] != self.leaves[key]}
        shown = [key for key in self.leaves if key in self.random and key[1] not in NOT_IN_THE_DAG]
        self.variable = [(key[0], ".".join(map(str, key[1:]))) for key in shown]

    def find_caches(self, first: Recorded) -> None:
        """Find out which steps the script leaves out if it finds their earlier runs."""
        if not any(node.get("is_cached") for node in self.base):
            return
        try:
            again = self.record({}, database=first.database)
        except ProjectError:  # it needs more of an earlier run than is known
            return
        made = [(call["stack"], call["entry_point"]) for call in again.calls]
        for node in self.base:
            if node.get("is_cached") and (node["stack"], node["entry_point"]) in made:
                node["is_cached"] = False

    # --- values that pass through

    def follow(self, options: Sequence[Option]) -> None:
        """Find where the values of options stand, all at once where that works, else in halves."""
        good = self._good(list(options))
        while good and isinstance(found := self._found(good), str):  # each alone, but not together
            good.pop().fixed = _TOGETHER
        self.texts.update(found if good and not isinstance(found, str) else {})

    def _good(self, options: list[Option]) -> list[Option]:
        if not options or not isinstance(why := self._found(options), str):
            return options
        if len(options) == 1:
            option = options[0]
            for attempt in (1, 2):
                if why == _COMPUTED:
                    break
                self.attempts[option.name] = attempt
                if not isinstance(why := self._found(options), str):
                    return options
            option.fixed = why
            return []
        half = len(options) // 2
        return self._good(options[:half]) + self._good(options[half:])

    def _found(self, options: Sequence[Option]) -> Leaves | str:
        """Return the changed leaves with marks for these options; why not if something else has changed as well."""
        values = self._unlike(options)
        other = self.other(values)
        if isinstance(other, str):
            return other
        if other.keys() != self.leaves.keys():
            return _DECIDES if len(options) > 1 else "decides which values a step gets"
        found: Leaves = {}
        for key, before in self.leaves.items():
            after = other[key]
            if after == before or key in self.random:
                continue
            if key[1] in NOT_IN_THE_DAG:  # it stays as it was, so it may also be reckoned with
                for option in options:
                    option.is_in_file |= str(values[option.name]) in str(after)
                continue
            marked = back = str(after)
            for option in options:
                marked = marked.replace(str(values[option.name]), mark("p", option.name))
                back = back.replace(str(values[option.name]), str(option.value))
            if back != str(before):
                return _COMPUTED
            found[key] = marked
        return found

    def _unlike(self, options: Sequence[Option]) -> dict[str, Any]:
        return {
            option.name: unlike(option, number, self.attempts.get(option.name, 0))
            for number, option in enumerate(options)
        }

    def find_in_files(self, options: Sequence[Option]) -> None:
        """Find which of these options are reckoned with in what the DAG does not say, such as files for a step."""
        other = self.other(self._unlike(options)) if options else REFUSED
        kept = {key for key in self.leaves if key[1] in NOT_IN_THE_DAG} - self.random
        if isinstance(other, str) or not any(other.get(key) != self.leaves[key] for key in kept):
            return
        if len(options) == 1:
            options[0].is_in_file = True
            return
        self.find_in_files(options[: len(options) // 2])
        self.find_in_files(options[len(options) // 2 :])

    # --- a second look, with other values

    def check(self, options: Sequence[Option]) -> None:
        """Look whether the DAG says what the script does with other values of all options."""
        self._checked(list(options), [])

    def _checked(self, options: list[Option], accepted: list[Option]) -> list[Option]:
        if not options or not self._differ([*accepted, *options]):
            return accepted + options
        if len(options) == 1:
            self._settle(options[0], accepted)
            return accepted if options[0].fixed or options[0].name in self.unchecked else [*accepted, *options]
        half = len(options) // 2
        return self._checked(options[half:], self._checked(options[:half], accepted))

    def _settle(self, option: Option, accepted: Sequence[Option]) -> None:
        """Find out why the DAG differs with another value of an option, beside others that are right."""
        why = self._differ([option])
        if why == REFUSED:
            self.near.add(option.name)
            why = self._differ([option])
            if not why and not self._differ([*accepted, option]):
                return
        if why == REFUSED:  # so it is not known better
            self.unchecked.add(option.name)
        else:
            self._fix(option, why or _TOGETHER)

    def _differ(self, options: Sequence[Option]) -> str:
        return self._differs({option.name: self._another(option, number) for number, option in enumerate(options)})

    def _another(self, option: Option, number: int) -> Any:
        """Return one more value that an option may have."""
        is_near = option.name in self.near
        if option.choices or option.kind == "boolean":
            others = [choice for choice in option.choices or (True, False) if choice != option.value]
            return others[0 if is_near else -1]
        return unlike(option, number + 50, self.attempts.get(option.name, 0), again=not is_near)

    def _differs(self, values: Mapping[str, Any]) -> str:
        """Return why the script does with these values what the DAG does not say; "" if it does what it says."""
        other = self.other(values)
        if isinstance(other, str):
            return other
        compared, there = ({key for key in leaves if self._is_compared(key)} for leaves in (self.leaves, other))
        if compared != there:
            return "decides which values a step gets"
        is_same = all(str(other[key]) == str(self._with(values, key)) for key in compared)
        return "" if is_same else _COMPUTED

    def _is_compared(self, key: tuple[Any, ...]) -> bool:
        return key not in self.random and key[1] not in NOT_IN_THE_DAG and not _is_config(key)

    def _with(self, values: Mapping[str, Any], key: tuple[Any, ...]) -> Any:
        """Return what a step of the DAG gets."""

        def value(found: re.Match[str]) -> str:
            if found[1] == "p":
                return str(values.get(found[2], self.default[found[2]]))
            if found[1] == "c":
                option, texts = self.choices[int(found[2])]
                return texts[values.get(option, self.default[option])]
            return found[0]

        return MARK.sub(value, self.texts[key]) if key in self.texts else self.leaves[key]

    def _fix(self, option: Option, why: str) -> None:
        """Take an option's marks out again."""
        option.fixed = why
        for key, text in list(self.texts.items()):
            if any(
                name == option.name if kind == "p" else kind == "c" and self.choices[int(name)][0] == option.name
                for kind, name in marks_in(text)
            ):
                text = text.replace(mark("p", option.name), str(option.value))
                if any(kind in "pc" for kind, _ in marks_in(text)) and not text.startswith(f"{OPEN}c"):
                    self.texts[key] = text
                else:
                    del self.texts[key]

    def compare(self, options: Sequence[Option], compared: Mapping[str, Sequence[Any]]) -> None:
        """Look at values that the script's own code compares an option with."""
        for option in options:
            empty = "" if option.kind == "string" else 0
            for value in compared.get(option.name.rpartition(".")[2].replace("-", "_"), ()):
                value = empty if value is None else value
                if option.fixed or value == option.value or isinstance(value, str) != (option.kind == "string"):
                    continue
                why = self._differs({option.name: value})
                if value == "" and why:
                    option.may_be_empty = False
                elif why not in ("", REFUSED):
                    self._fix(option, f"{why} (where it is {value!r})")

    def find_relative(self, options: Sequence[Option]) -> None:
        """Find options that the script puts behind a folder, unless they are absolute themselves (os.path.join)."""
        joined = {
            option.name: option
            for option in options
            if not option.fixed and any(f"/{mark('p', option.name)}" in str(text) for text in self.texts.values())
        }
        values = {name: f"/{unlike(option, 0, 0)}" for name, option in joined.items()}
        other = self.other(values) if joined else REFUSED
        if isinstance(other, str):
            return
        for key, text in self.texts.items():
            if str(other.get(key)) != str(self._with(values, key)):
                for kind, name in marks_in(text):
                    if kind == "p" and name in joined:
                        joined[name].may_be_absolute = False

    # --- values that choose

    def try_each(self, option: Option) -> None:
        """Find what each value of an option with few of them changes."""
        others = [choice for choice in option.choices or (True, False) if choice != option.value]
        if not others or len(others) > _MOST_CHOICES:
            option.fixed = f"has more than {_MOST_CHOICES} choices" if others else "has one value only"
            return
        seen = {option.value: self.leaves}
        for choice in others:
            found = self.other({option.name: choice})
            if isinstance(found, str):
                option.fixed = found
                return
            seen[choice] = found
        texts: Leaves = {}
        chosen: list[tuple[str, dict[Any, str]]] = []
        keys = {key: None for leaves in seen.values() for key in leaves}
        for key in keys:
            values = {choice: leaves.get(key, _MISSING) for choice, leaves in seen.items()}
            if key in self.random or all(value == values[option.value] for value in values.values()):
                continue
            if key[1] in NOT_IN_THE_DAG:
                option.is_in_file = True
                continue
            if _is_config(key):  # what another backend does not know, it does not read
                there = [value for value in values.values() if value is not _MISSING]
                if all(value == there[0] for value in there):
                    texts[key] = there[0]
                    continue
            if _MISSING in values.values() or key in self.texts:
                option.fixed = "changes more than one value at a time"
                return
            if all(str(value) == str(choice) for choice, value in values.items()):
                texts[key] = mark("p", option.name)
            elif all(_is_plain(value) for value in values.values()):
                texts[key] = mark("c", len(self.choices) + len(chosen))
                chosen.append((option.name, {choice: str(value) for choice, value in values.items()}))
            else:
                option.fixed = "changes which artifacts are passed on"
                return
        self.texts.update(texts)
        self.choices += chosen


def _is_config(key: tuple[Any, ...]) -> bool:
    return bool(key[1] == "backend_config")


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and not MARK.search(str(value))
