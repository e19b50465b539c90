"""Where conda packages come from: the channels of a project, as this worker's settings read them.

Settings are those of conda itself (``CONDARC``, else ``~/.condarc``) and of Airflow's section ``[mlflow_projects]``;
none are read from a project.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.paths import exists
from mlflow_projects.project.yaml_files import read_yaml
from mlflow_projects.public_uri import public_uri, secrets_in

# Of conda's own channels "main" is what people use, "r" holds R.
DEFAULTS = ("main", "r")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Behind a channel: conda-forge/linux-64. We ask for those of this machine anyway.
_PLATFORM = re.compile(r"/(?:noarch|(?:linux|osx|win|freebsd|zos|emscripten|wasi)-\w+)/?$")
_TOKEN = re.compile(r"(?<=/t/)[^/\s]+")
_CHECKED = ("", "true", "yes", "on", "1", "truststore")
_PRIORITIES = {
    "strict": "strict",
    "flexible": "flexible",
    "disabled": "disabled",
    "true": "flexible",
    "false": "disabled",
}


@dataclass(frozen=True)
class Channel:
    """A channel as people call it, and its name or address for py-rattler."""

    name: str = field(repr=False)
    address: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The channel without a password or token."""
        return _TOKEN.sub("***", public_uri(self.name))

    @property
    def secrets(self) -> list[str]:
        """The passwords and tokens in its address."""
        return [*secrets_in(self.address), *_TOKEN.findall(self.address)]


@dataclass(frozen=True)
class CondaSettings:
    """What this worker says of channels.

    :param channels: where a file names none, and behind those that it names unless it says ``nodefaults``
    :param named: address by name
    :param lists: several channels by name, such as ``defaults``; ``local``, what was built on the machine, is none
    :param alias: what stands before a name, "" for py-rattler's own
    :param instead: channels that count whatever a file says
    :param told: whether ``conda_channels`` says where single channels are
    :param verify: whether certificates of https are checked, or the file of who is trusted
    :param priority: ``strict``, ``flexible`` or ``disabled``
    :param proxies: address by scheme
    """

    channels: tuple[str, ...] = field(default=("defaults",), repr=False)
    named: Mapping[str, str] = field(default_factory=dict, repr=False)
    lists: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"defaults": DEFAULTS, "local": ()}, repr=False
    )
    alias: str = field(default="", repr=False)
    instead: tuple[str, ...] = field(default=(), repr=False)
    told: bool = False
    verify: bool | str = True
    priority: str = "flexible"
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, option: str, environment: Mapping[str, str]) -> CondaSettings:
        """Read the worker's settings.

        :param option: ``[mlflow_projects] conda_channels``: words that are a channel, or ``name=address``
        :param environment: the worker's variables
        :raises ProjectError: a file or value cannot be used
        """
        file = Path(environment.get("CONDARC") or Path(environment.get("HOME", "~"), ".condarc")).expanduser()
        content: dict[str, Any] = {}
        if file.is_file():
            content = _expanded(read_yaml(file), environment)
        words = option.replace(",", " ").split()
        if wrong := [word for word in words if re.fullmatch(r"[\w./-]*=|=.*", word)]:
            raise ProjectError(
                f"[mlflow_projects] conda_channels holds {public_uri(wrong[0])[:80]!r}; write name=address, without "
                "a blank."
            )
        pairs = [word.partition("=") for word in words if re.match(r"[\w./-]+=", word)]
        custom = {
            str(name): f"{str(base).rstrip('/')}/{name}" for name, base in _mapping(file, content, "custom_channels")
        }
        lists = {
            str(name): _texts(file, str(name), value)
            for name, value in _mapping(file, content, "custom_multichannels")
        }
        lists["defaults"] = _texts(file, "default_channels", content.get("default_channels")) or lists.get(
            "defaults", DEFAULTS
        )
        named = {**custom, **{name: address for name, _, address in pairs}}
        if "local" not in named:  # never the one of that name on the internet, which anybody may own
            lists.setdefault("local", ())
        priority = content.get("channel_priority")
        priority = "flexible" if priority is None else str(priority).lower()
        if priority not in _PRIORITIES:
            raise ProjectError(
                f"{file}: 'channel_priority' must be strict, flexible or disabled, not {priority[:40]!r}."
            )
        return cls(
            channels=_texts(file, "channels", content.get("channels")) or ("defaults",),
            told=bool(pairs),
            named=named,
            lists=lists,
            alias=next(iter(_texts(file, "channel_alias", content.get("channel_alias"))), ""),
            instead=tuple(word for word in words if not re.match(r"[\w./-]+=", word)),
            verify=_verify(file, content.get("ssl_verify")),
            priority=_PRIORITIES[priority],
            # Of a scheme; one of a single host would become that of all hosts.
            proxies={
                str(name): str(value)
                for name, value in _mapping(file, content, "proxy_servers")
                if value and "://" not in str(name)
            },
        )

    @property
    def is_told(self) -> bool:
        """Whether an option of Airflow says where channels are, of which conda's programs know nothing."""
        return bool(self.instead or self.told)

    def tries(self, declared: Sequence[str], more: Sequence[str] = ()) -> list[list[Channel]]:
        """Return lists of channels: what a file names; and if no packages of these fit, what conda adds to them.

        :param declared: the file's channels
        :param more: channels of single packages, such as ``nvidia::cuda``
        """
        own = [channel for name in more for channel in self.of_package(name)]
        names = [split_platform(name)[0] for name in declared if name != "nodefaults"]
        names = [name for name in names if self.lists.get(name, (name,))]
        if self.instead or not names:
            return [_once([*self._found(self.instead or self.channels), *own])]
        first = _once([*self._found(names), *own])
        more_than_named = _once([*first, *self._found(self.channels)])
        return [first] if "nodefaults" in declared or more_than_named == first else [first, more_than_named]

    def of_package(self, name: str) -> list[Channel]:
        """Return the channels that the one of a single package stands for; none if others count instead."""
        name = split_platform(name)[0]
        return [] if self.instead and name.partition("/")[0] not in self.named else self._found([name])

    def address(self, name: str) -> str:
        """Return the address of a channel, or the name that py-rattler knows."""
        base, slash, rest = name.partition("/")
        if name in self.named:
            return self.named[name]
        if (short := name.removeprefix("pkgs/")) in DEFAULTS and short != name:
            return self.address(short)
        if name in DEFAULTS:  # conda's own alias does not move them either
            return name
        if base in self.named and slash:  # a label
            return f"{self.named[base].rstrip('/')}/{rest}"
        if _ADDRESS.match(name):
            return name
        if name.startswith(("/", "./", "../", "~")):
            return Path(name).expanduser().absolute().as_uri()
        return f"{self.alias.rstrip('/')}/{name}" if self.alias else name

    def _found(self, names: Sequence[str]) -> list[Channel]:
        every = [name for item in names for name in self.lists.get(item, (item,)) if name != "nodefaults"]
        return _once([Channel(name, self.address(name)) for name in every])


def _once(channels: list[Channel]) -> list[Channel]:
    found: dict[str, Channel] = {}
    for channel in channels:
        found.setdefault(channel.address.rstrip("/"), channel)
    return list(found.values())


def split_platform(channel: str) -> tuple[str, str]:
    """Return a channel, and the platform behind it with its slash, or ""."""
    found = _PLATFORM.search(channel)
    return (channel[: found.start()], found[0].rstrip("/")) if found else (channel, "")


def _verify(file: Path, value: Any) -> bool | str:
    """Return whether certificates are checked, or the file (or folder) of who is trusted; nothing said is yes."""
    word = str(value).lower()
    if word in ("false", "no", "off", "0"):
        return False
    if not isinstance(value, str) or word in _CHECKED:
        return True
    path = Path(value).expanduser()
    if not exists(path):
        raise ProjectError(f"{file}: 'ssl_verify' names {value[:200]!r}, which is not there; correct the path.")
    return str(path)


def _expanded(content: Any, environment: Mapping[str, str]) -> Any:
    """Return conda's settings with the variables that they name, ``$NAME`` or ``${NAME}``."""
    if isinstance(content, str):
        return re.sub(r"\$\{(\w+)\}|\$(\w+)", lambda found: environment.get(found[1] or found[2], found[0]), content)
    if isinstance(content, list):
        return [_expanded(item, environment) for item in content]
    if isinstance(content, dict):
        return {key: _expanded(value, environment) for key, value in content.items()}
    return content


def _texts(file: Path, key: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value or []
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise ProjectError(f"{file}: {key!r} must be a list of channels.")
    return tuple(os.path.expanduser(item) if item.startswith("~") else item for item in values)  # noqa: PTH111


def _mapping(file: Path, content: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ProjectError(f"{file}: {key!r} must be a mapping of names.")
    return list(value.items())
