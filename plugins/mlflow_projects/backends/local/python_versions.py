"""The Pythons of this machine: a worker's own, those on its PATH, and those in pyenv's folder."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

_NEWEST = 20  # of 3.x that are looked for on the PATH
_SECONDS = 20
_OWN = Version(platform.python_version().rstrip("+"))  # a build between two releases has a plus


def specifier(wanted: str) -> SpecifierSet:
    """Return versions as text (``3.10``, ``3.8.*``, ``>=3.8,<3.9``) as a set: ``3.10`` and ``==3.10`` are any 3.10.

    :raises InvalidSpecifier: it is none
    """
    text = wanted.strip()
    if found := re.fullmatch(r"(?:==\s*)?(\d+(?:\.\d+)?)", text):
        return SpecifierSet(f"=={found[1]}.*")
    return SpecifierSet(f"=={text}" if re.match(r"\d", text) else text)


def find_python(wanted: str, environment: Mapping[str, str]) -> str | None:
    """Return the path of the newest Python of this machine that fits, this one first; None if there is none.

    :param wanted: versions, see :func:`specifier`; "" for this one
    :param environment: the worker's variables
    """
    if not wanted:
        return sys.executable
    try:
        versions = specifier(wanted)
    except InvalidSpecifier:
        return None
    if _OWN in versions:
        return sys.executable
    found = [
        (version, path)
        for path in _candidates(wanted, environment)
        if (version := _version_of(str(path))) is not None and version in versions
    ]
    return str(max(found, key=lambda item: item[0])[1]) if found else None


def found_version(wanted: str, environment: Mapping[str, str]) -> str:
    """Return the version of the Python that :func:`find_python` finds; what is wanted, if it finds none."""
    found = find_python(wanted, environment)
    if found == sys.executable:
        return str(_OWN)
    return str(_version_of(found) if found else wanted)


def path_without_shims(environment: Mapping[str, str]) -> str:
    """Return the PATH without pyenv's shims, which may know no version: uv ends at the first of them."""
    folders = environment.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder) != _pyenv(environment) / "shims")


def _pyenv(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("PYENV_ROOT") or Path(environment.get("HOME", "~"), ".pyenv")).expanduser()


def _candidates(wanted: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield interpreters; a shim of pyenv is none, since it may know no version, and hides what is behind it.

    Each is asked for its version, so that those whose names say that they do not fit are left out.
    """
    named = re.match(r"(?:==)?\s*(\d+\.\d+)", wanted.strip())
    minors = [named[1]] if named else [f"3.{minor}" for minor in range(_NEWEST)]
    names = ["python3", *(f"python{minor}" for minor in minors)]
    for name in names:
        if found := shutil.which(name, path=path_without_shims(environment)):
            yield Path(found)
    folder = f"{named[1]}*" if named else "*"
    yield from sorted((_pyenv(environment) / "versions").glob(f"{folder}/bin/python"))


@cache
def _version_of(path: str) -> Version | None:
    line = "import platform; print(platform.python_version())"
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        done = subprocess.run(
            [path, "-I", "-c", line], capture_output=True, text=True, timeout=_SECONDS, env=environment, check=False
        )
        return Version(done.stdout.strip().rstrip("+"))
    except (OSError, InvalidVersion, subprocess.TimeoutExpired):
        return None
