"""A ``conda.yaml``: what a conda environment is made from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.requirements_files import Expansion, lines_of
from mlflow_projects.project.spec import Project
from mlflow_projects.project.yaml_files import read_yaml

# What only pip reads: an option, a path, an address, a name with extras. A channel (./own::name) may be a path.
_FOR_PIP = re.compile(r"(?!.*::|.*\.(conda|tar\.bz2)$)(-|\.|/|\w+\+\w+://|[\w.-]+\[[\w\s,.-]*\])")
# A package for some systems only: "sel(linux): patchelf".
_SELECTOR = re.compile(r"sel\((linux|osx|unix|win)\)")
_SYSTEMS = {"linux": ("linux", "unix"), "darwin": ("osx", "unix")}
_VARIABLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class CondaFile:
    """The content of a ``conda.yaml``; ``name`` and ``prefix`` count for nothing.

    :param channels: as written, the first one first; () if the file names none
    :param packages: of this system, as written, for example ``python=3.10`` or ``conda-forge::numpy>=1.20``
    :param pip: lines as in a requirements file, relative to the folder of the file
    :param constraints: a hash of the files that lines of ``pip`` name with ``-c``
    :param variables: for the command
    """

    channels: tuple[str, ...]
    packages: tuple[str, ...]
    pip: tuple[str, ...] = ()
    constraints: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def read_conda_file(project: Project) -> CondaFile:
    """Read the ``conda_env`` of a project.

    :raises ProjectError: the file has another form
    """
    file = project.environment_file
    assert file is not None
    content = read_yaml(file)
    dependencies = content.get("dependencies") or []
    if isinstance(dependencies, str):
        dependencies = [dependencies]
    if not isinstance(dependencies, list):
        raise ProjectError(f"{file}: 'dependencies' must be a list of packages.")
    packages: list[str] = []
    pip: list[str] = []
    for item in _selected(dependencies):
        if isinstance(item, str):
            if _FOR_PIP.match(item.strip()):
                raise ProjectError(
                    f"{file}: 'dependencies' holds {item[:80]!r}; move it into the list of 'pip:' there."
                )
            # conda takes "=>1.2" for what people mean by it.
            packages += [re.sub(r"(?<![=<>!~])=>(?=\s*\d)", ">=", item.strip())] if item.strip() else []
        elif isinstance(item, dict) and set(item) == {"pip"}:
            lines = item["pip"]
            lines = [lines] if isinstance(lines, str) else lines
            if isinstance(lines, list):
                lines = [line for line in lines if line is not None]
            pip += lines_of(file, "dependencies.pip", lines)
        elif item is not None:
            raise ProjectError(
                f"{file}: 'dependencies' holds {str(item)[:80]!r}; an item is the text of a package, such as "
                "'numpy=1.26', or the mapping 'pip:' with a list."
            )
    expansion = Expansion(project, file.parent)
    return CondaFile(
        channels=_channels(file, content.get("channels")),
        packages=tuple(packages),
        pip=expansion.of(file, pip),
        constraints=expansion.constraints,
        variables=_variables(file, content.get("variables")),
    )


def _selected(items: list[Any]) -> Iterator[Any]:
    """Yield what counts on this system."""
    for item in items:
        if isinstance(item, dict) and item and all(_SELECTOR.fullmatch(str(key)) for key in item):
            found = [value for key, value in item.items() if key[4:-1] in _SYSTEMS.get(sys.platform, ())]
            yield from (one for value in found for one in (value if isinstance(value, list) else [value]))
        else:
            yield item


def _channels(file: Path, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    channels = [value] if isinstance(value, str) else value
    if not isinstance(channels, list) or not all(isinstance(channel, (str, type(None))) for channel in channels):
        raise ProjectError(f"{file}: 'channels' must be a list of names or addresses, such as 'conda-forge'.")
    return tuple(channel.strip() for channel in channels if channel and channel.strip())


def _variables(file: Path, value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or any(isinstance(item, (dict, list)) for item in value.values()):
        raise ProjectError(f"{file}: 'variables' must be a mapping of names to texts.")
    for name, item in value.items():
        if "\0" in str(item):
            raise ProjectError(f"{file}: 'variables' holds {str(name)[:80]!r} with a zero byte; remove it.")
        if not _VARIABLE.fullmatch(str(name)):
            raise ProjectError(f"{file}: 'variables' holds {str(name)[:80]!r}, which is no name of a variable.")
    # As conda writes them: a number or a truth value is its text, nothing is the empty one.
    return {str(name): "" if item is None else str(item) for name, item in value.items()}
