"""What an MLproject's ``docker_env`` says: volumes and variables.

MLflow puts both into a ``docker run`` line that a shell reads in the project's folder, so that people write ``$PWD``,
``$(pwd)``, ``${HOME}``, ``~`` and quotes. Here the same is read without a shell.
"""

from __future__ import annotations

import os
import platform
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.spec import Project

# The project's folder, and a variable.
_VALUE = r"(?P<folder>\$\(\s*pwd\s*\)|`\s*pwd\s*`)|\$(?:\{(?P<name>\w+)\}|(?P<bare>[A-Za-z_]\w*))"
# A backslash takes the meaning of what follows it; quotes go, and in single ones all is meant as it stands.
_REPLACED = re.compile(
    rf"\\(?P<escaped>.)|'(?P<single>[^']*)'|\"(?P<double>(?:[^\"\\]|\\.)*)\"|(?P<home>~)(?=[/:]|$)|{_VALUE}",
    re.DOTALL,
)
_IN_DOUBLE_QUOTES = re.compile(rf"\\(?P<escaped>[$`\"\\])|{_VALUE}")
_OTHER_SHELL = re.compile(r"\$[({]|`")
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*")
_VARIABLE_NAME = re.compile(r"[^=\0\s]+")
_VOLUME_OPTIONS = re.compile(r"[^\s,]+(,[^\s,]+)*")  # which ones there are is the engine's to say
# A connection (or the run) has said all that there is to say of these.
_OURS = re.compile(r"MLFLOW_(TRACKING_|RUN_|EXPERIMENT_)")


@dataclass(frozen=True)
class Volumes:
    """The volumes of a container.

    :param binds: in Docker's form, ``source:target[:options]``
    :param unnamed: paths in the container; the volumes go with it
    """

    binds: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)

    def covers(self, path: str) -> bool:
        """Tell whether one of them is mounted at a path of the container."""
        targets = [*self.unnamed, *(bind.split(":")[1] for bind in self.binds)]
        return posixpath.normpath(path) in map(posixpath.normpath, targets)


def declared_variables(project: Project, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``docker_env.environment``: set there, or copied from the worker.

    :param environment: the worker's variables that a command may see
    :raises ProjectError: the worker does not have one, or a value needs a shell
    """
    key = f"{project.file}: 'docker_env.environment'"
    found = {}
    for item in (project.docker_env or {}).get("environment") or ():
        name = str(item[0]) if isinstance(item, list) and item else item
        if isinstance(name, str) and not _VARIABLE_NAME.fullmatch(name):
            raise ProjectError(f"{key} has {item!r}, where {name!r} is no name of a variable; write [name, value].")
        if isinstance(item, list) and len(item) == 2:
            found[str(item[0])] = expanded(key, str(item[1]), project, environment, home_after=("", ":"))
        elif isinstance(item, list):
            raise ProjectError(f"{key} has {item!r}; write [name, value].")
        elif item in environment:
            found[item] = environment[item]
        elif not _OURS.match(item):
            raise ProjectError(
                f"{key} copies the variable {item!r}, which this worker does not have (or keeps to itself); set it "
                "there, or write [name, value]."
            )
    return found


def volumes_of(project: Project, environment: Mapping[str, str]) -> Volumes:
    """Return the volumes of ``docker_env.volumes``.

    :param environment: the worker's variables that a command may see
    :raises ProjectError: a volume has another form, or needs a shell
    """
    key = f"{project.file}: 'docker_env.volumes'"
    volumes = Volumes()
    for text in (project.docker_env or {}).get("volumes") or ():
        source, *rest = expanded(key, text, project, environment).split(":")
        if source.startswith("."):
            source = str((project.root / source).resolve())
        target = rest[0] if rest else source
        is_source = source.startswith("/") or bool(rest and _VOLUME_NAME.fullmatch(source))
        is_target = target.startswith("/") and posixpath.normpath(target) not in ("/", "//")
        if not is_source or not is_target or "\0" in text or len(rest) > 2 or not _is_option(rest[1:]):
            raise ProjectError(
                f"{key} has {text!r}; write '/host/path:/container/path', with ':ro' at its end for reading only."
            )
        if volumes.covers(posixpath.normpath(target)):
            raise ProjectError(f"{key} mounts two volumes at {target!r}; leave one out.")
        if rest:
            volumes.binds.append(":".join([source, *rest]))
        else:
            volumes.unnamed.append(target)
    return volumes


def _is_option(given: Sequence[str]) -> bool:
    return all(_VOLUME_OPTIONS.fullmatch(text) for text in given)


def expanded(
    key: str, text: str, project: Project, environment: Mapping[str, str], *, home_after: Sequence[str] = ("",)
) -> str:
    """Return a text with the variables, and the project's folder, that a shell would put into it.

    :param key: begins the error's sentence
    :param home_after: before which ``~`` the home folder is meant: after which characters, ``""`` for the beginning
    :raises ProjectError: a variable that is not there, or more than that is asked of a shell
    """

    def replacement(found: re.Match[str]) -> str:
        parts = found.groupdict()
        for kind in ("escaped", "single"):
            if parts.get(kind) is not None:
                return str(parts[kind])
        if parts.get("double") is not None:
            return filled(str(parts["double"]), _IN_DOUBLE_QUOTES)
        if parts.get("home"):
            is_meant = text[found.start() - 1 : found.start()] in home_after if found.start() else "" in home_after
            return environment.get("HOME") or str(Path.home()) if is_meant else "~"
        name = parts["name"] or parts["bare"]
        if parts["folder"] or name == "PWD":
            return str(project.root.resolve())
        value = environment[name] if name in environment else _of_every_shell(name)
        if value is None:
            raise ProjectError(
                f"{key} has {text!r}, but this worker has no variable {name!r} (or keeps it to itself); set it, or "
                "write what is meant."
            )
        return value

    def filled(part: str, pattern: re.Pattern[str]) -> str:
        if _OTHER_SHELL.search(pattern.sub("", part)):
            raise ProjectError(
                f"{key} has {text!r}, which asks for a shell; write it out: only ~, $NAME, ${{NAME}}, $PWD and "
                "$(pwd) are replaced here."
            )
        return pattern.sub(replacement, part)

    unquoted = _REPLACED.sub("", text)
    has_quotes = any(found[0][0] in "'\"" for found in _REPLACED.finditer(text))
    if re.search("['\"]", unquoted) or (has_quotes and re.search(r"\s", unquoted)):
        raise ProjectError(
            f"{key} has {text!r}, where a shell would not read the quotes as parts of one word; put quotes around "
            "all of it."
        )
    return filled(text, _REPLACED)


def _of_every_shell(name: str) -> str | None:
    """Return a variable that bash sets itself, whatever its environment is."""
    if name == "HOSTNAME":
        return platform.node()
    return str({"UID": os.getuid, "EUID": os.geteuid}[name]()) if name in ("UID", "EUID") else None
