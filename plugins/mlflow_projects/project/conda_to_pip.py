"""Conda packages as packages of pip, for the env managers uv and virtualenv.

Only a name that is known to be the same software in both worlds is taken: anybody may own a name of PyPI that
happens to be that of a conda package. The names are in ``conda_names.txt``; tools/conda_names.py says from where.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from mlflow_projects.exceptions import ProjectError

# `channel/label::name version build`, `name=version=build`, `name>=1,<2`, and `name[version='>=1', build=x]`.
_PACKAGE = re.compile(
    r"(?:\S+::)?(?P<name>[A-Za-z0-9_][\w.-]*)\s*"
    r"(?P<version>[^\[\]]*?)\s*(?:\[(?P<fields>[^\]]*)\])?"
)
# The address or path of a package, by which a file may name it too.
_ARCHIVE = re.compile(r"(?:\S*/)?(?P<name>[\w.-]+)-(?P<version>[^-/]+)-[^-/]+\.(?:conda|tar\.bz2)")
_FIELD = re.compile(r"version\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|([^,\s]+))")
_ONE = re.compile(r"(?P<operator>===|==|!=|>=|<=|~=|>|<|=|)\s*(?P<version>[\w.*+!-]+)")


def translate(file: Path, packages: Iterable[str]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return Python's versions (or ""), requirements of pip, and the packages that are not known to pip.

    :param file: names the packages, for the sentence of an error
    :param packages: as a conda.yaml holds them
    :raises ProjectError: one cannot be read
    """
    python, requirements, dropped = "", [], []  # type: tuple[str, list[str], list[str]]
    for package in packages:
        name, version = _read(file, package)
        if name == "python":
            python = _python(version) or python
        elif known := pip_name(name):
            requirements.append(known + version)
        else:
            dropped.append(name)
    return python, tuple(requirements), tuple(dropped)


def pip_name(name: str) -> str | None:
    """Return pip's name of a conda package, or None if none is known to be the same."""
    return _names().get(name.lower())


@cache
def _names() -> dict[str, str]:
    """Return pip's names by those of conda; a line of the file holds both, or one that is the same."""
    lines = Path(__file__).with_name("conda_names.txt").read_text(encoding="utf-8").splitlines()
    return {words[0]: words[-1] for line in lines if not line.startswith("#") and (words := line.split())}


def _read(file: Path, package: str) -> tuple[str, str]:
    """Return a package's name, and its versions as pip writes them."""
    written = package.partition("#")[0].strip()
    archive = _ARCHIVE.fullmatch(written)
    found = _PACKAGE.fullmatch(f"{archive['name']}=={archive['version']}" if archive else written)
    if not found:
        raise ProjectError(
            f"{file}: {package[:80]!r} is no package such as 'numpy=1.26'; correct it, or use env_manager 'conda'."
        )
    fields = _FIELD.search(found["fields"] or "")
    text = next(filter(None, fields.groups()), "") if fields else found["version"]
    name = found["name"].lower()
    if name != "python" and not pip_name(name):
        return name, ""
    try:
        return name, _version(text)
    except InvalidSpecifier as error:
        raise ProjectError(
            f"{file}: pip has no such version as that of {package[:80]!r}; write one such as 'numpy>=1.26,<2', or "
            "use env_manager 'conda'."
        ) from error


def _version(text: str) -> str:
    """Return versions in pip's words.

    Conda's ``=1.2`` is any 1.2, its ``1.2`` and ``==1.2`` one version, ``1.2=py310_0`` has a build behind it, and
    ``1.2|1.4`` are alternatives, of which pip can have one: the last, which people mean as the newest.
    """
    text = text.replace("(", "").replace(")", "").rpartition("|")[2].strip()
    # A build stands behind the version, after a blank or a second "=".
    text = re.sub(r"^(.*[\w.*])(?:\s*=\s*|\s+)[^\s=<>!~,]+$", r"\1", text)
    parts = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _ONE.fullmatch(part)
        if not found:
            raise InvalidSpecifier(part)
        operator, version = found["operator"], found["version"].rstrip("*").rstrip(".")
        is_any = operator == "=" or found["version"].endswith("*")
        if not version:
            continue
        if operator in ("=", "", "==", "!="):
            # Of 1.2.post1 and 1.2rc1 there are no others.
            behind = ".*" if is_any and re.fullmatch(r"[\d.]+", version) else ""
            parts.append(f"{'!=' if operator == '!=' else '=='}{version}{behind}")
        else:
            parts.append(f"{operator}{version}")
    SpecifierSet(",".join(parts))
    return ",".join(parts)


def _python(version: str) -> str:
    """Return Python's versions in short, where one is meant: ``3.10`` or ``3.10.4``.

    ``==3.10`` means 3.10.0 to conda, which few have; whoever writes it means 3.10.
    """
    found = re.fullmatch(r"==([\d.]+?)(?:\.\*)?", version)
    return found[1] if found else version
