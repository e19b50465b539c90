"""The Python environment that a project declares: which tool makes it, and what is to be in it."""

from __future__ import annotations

import codecs
import contextlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.paths import exists
from mlflow_projects.project.spec import Project
from mlflow_projects.project.yaml_files import read_bytes, read_yaml, read_yaml_texts

ENV_MANAGERS = ("local", "uv", "virtualenv", "conda")
# Of all files of requirements together, each as often as it is included, and counted as at least so many bytes.
_MAX_REQUIREMENTS = 8 * 2**20
_LEAST_REQUIREMENTS = 8 * 2**10
_MAX_INCLUDED = 50
# A name with versions, an address or a marker behind it; an option; or nothing.
_REQUIREMENT = re.compile(
    r"(-[\w-]+.*|[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]*\])?\s*(\(?\s*([=!<>~]=|[<>@]|===)[^=\0].*)?(;.*)?)?", re.DOTALL
)


@dataclass(frozen=True)
class PythonEnvironment:
    """The content of a ``python_env.yaml``, or of the pip part of a ``conda.yaml``.

    :param python: a version, or "" for the worker's own
    :param requirements: lines as in a requirements file, build dependencies first
    """

    python: str
    build_requirements: tuple[str, ...]
    requirements: tuple[str, ...]


def choose_env_manager(project: Project, wanted: str | None) -> str:
    """Return the env manager for a project; what the project declares counts when nothing is asked for.

    :raises ProjectError: conda was asked for, but the project declares no ``conda_env``
    """
    if wanted == "conda" and project.environment_kind != "conda_env":
        raise ProjectError(f"{project.file or project.root} declares no 'conda_env'; env_manager 'conda' needs it.")
    if wanted is not None:
        return wanted
    return {"python_env": "uv", "conda_env": "conda"}.get(project.environment_kind or "", "local")


def read_python_environment(project: Project) -> PythonEnvironment:
    """Read a project's ``python_env`` (or the pip part of its ``conda_env``); without one, an empty environment.

    :raises ProjectError: the file has another form
    """
    file = project.environment_file
    if file is None:
        return PythonEnvironment("", (), ())
    content = read_yaml(file)
    expansion = _Expansion(_top(project))
    if project.environment_kind == "conda_env":
        python, pip = _from_conda(file, content)
        return PythonEnvironment(python, (), expansion.of(project.root, file, pip))
    if not isinstance(content.get("python"), (str, int, float, type(None))):
        raise ProjectError(f"{file}: 'python' must be a version in quotes, such as '3.11'.")
    python = str(content.get("python") or "")
    if isinstance(content.get("python"), float):
        as_written = read_yaml_texts(file).get("python", python)  # not there where it was merged in
        if as_written != python:
            number = f"YAML reads 'python: {as_written}' as the number {python}"
            raise ProjectError(f"{file}: {number}; write it in quotes.")
    return PythonEnvironment(
        python=python,
        build_requirements=expansion.of(
            project.root, file, _lines(file, "build_dependencies", content.get("build_dependencies"))
        ),
        requirements=expansion.of(project.root, file, _lines(file, "dependencies", content.get("dependencies"))),
    )


def _from_conda(file: Path, content: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return Python and the pip packages of a conda.yaml, as MLflow takes them for virtualenv and uv."""
    python, pip = "", ()  # type: tuple[str, tuple[str, ...]]
    dependencies = content.get("dependencies") or []
    if not isinstance(dependencies, list):
        raise ProjectError(f"{file}: 'dependencies' must be a list of packages.")
    for item in dependencies:
        if isinstance(item, dict):
            pip = _lines(file, "dependencies.pip", item.get("pip"))
        elif isinstance(item, str) and item.partition("=")[0].strip() == "python":
            python = item.partition("=")[2].strip("= ")
        elif not (isinstance(item, str) and item.partition("=")[0].strip() in ("pip", "setuptools", "wheel")):
            raise ProjectError(f"{file}: {item!r} is a conda package; use env_manager 'conda' for it.")
    return python, pip


def _lines(file: Path, key: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    lines = value if isinstance(value, list) else [value]
    if wrong := [line for line in lines if not isinstance(line, str) or lines is not value]:
        belongs = "; 'pip:' belongs into a conda.yaml" if isinstance(wrong[0], dict) and "pip" in wrong[0] else ""
        raise ProjectError(
            f"{file}: '{key}' must be a list of requirements, each a text such as 'numpy>=2', and not "
            f"{str(wrong[0])[:100]!r}{belongs}."
        )
    return tuple(value)


class _Expansion:
    """Replaces ``-r other.txt`` by that file's lines, so that its content is part of the key.

    Files that include others twice, which do the same, become many: all lines together are limited. An installer
    prints the lines that it does not understand: a file that did not come with the project has none of these.

    :param top: the folder of all that came with it
    """

    def __init__(self, top: Path) -> None:
        self._top = top.resolve()
        self._left = _MAX_REQUIREMENTS
        self._checked: set[tuple[Path, str]] = set()

    def of(self, root: Path, file: Path, lines: Sequence[str], including: Sequence[Path] = ()) -> tuple[str, ...]:
        """Return the lines as an installer reads them.

        :param including: the files whose lines are being replaced
        """
        found: list[str] = []
        # As an installer joins them, of which an item of YAML may hold many.
        for line in re.sub(r"\\\r?\n", "", "\n".join(lines)).splitlines():
            text = _without_comment(line)
            named = re.fullmatch(r"(?:-r|--requirement)(?:\s+|=)(.*)", text)
            is_replaced = named is not None and not re.search(r"://|\$\{", named[1])
            self._check_options(root, file, text, is_read=is_replaced)
            if named is None or not is_replaced:  # what only the installer can read stays as it is
                found += [text] if text else []
                continue
            other = root / named[1].strip("'\"")
            try:
                if other.resolve() in including:
                    raise ProjectError(f"{file}: {text!r} makes {other.name} include itself; remove the line.")
                content = self._read(file, other, len(including))
                self._check(file, text, other, content)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links
                reason = getattr(error, "strerror", None) or error
                raise ProjectError(f"{file}: {text[:100]!r} cannot be read: {reason}.") from error
            found += self.of(other.parent, other, content.splitlines(), (*including, other.resolve()))
        return tuple(found)

    def _check_options(self, root: Path, file: Path, text: str, *, is_read: bool) -> None:
        """Refuse a file that only the installer will read, unless it came with the project or is a plain one.

        :param is_read: whether the file is read here too, and checked then
        """
        if "-" not in text or (root, text) in self._checked:
            return
        self._checked.add((root, text))
        try:
            words = shlex.split(text)
        except ValueError:  # a quote without an end
            words = text.split()
        options = [word for word in words if _names_file(word)]
        if not options:
            return
        is_whole = re.match(r"-[rc]|--(requirement|constraint)(=|$)", words[0])
        if not is_whole or len(options) > 1 or len(words) > 2:
            raise ProjectError(
                f"{file}: {text[:100]!r} must be one -r or -c with one file, and nothing else in its line."
            )
        name = words[1] if len(words) == 2 else re.sub(r"^(-[rc]|--\w+=)", "", words[0])
        if re.match(r"(?i)(?!file:)[a-z][a-z0-9+.-]*://", name):
            return
        if "${" in name or ":" in name:
            raise _outside(file, text)
        if is_read:
            return
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # told when it is read
            self._check(file, text, root / name, _decoded(read_bytes(root / name, _MAX_REQUIREMENTS)))

    def _check(self, file: Path, text: str, other: Path, content: str) -> None:
        """Refuse a file that did not come with the project, unless it holds requirements and nothing else."""
        if other.resolve().is_relative_to(self._top):
            return
        lines = re.sub(r"\\\r?\n", " ", content).splitlines()
        if not all(map(_REQUIREMENT.fullmatch, map(_without_comment, lines))):
            raise _outside(file, text)

    def _read(self, file: Path, other: Path, depth: int) -> str:
        content = read_bytes(other, _MAX_REQUIREMENTS)
        self._left -= max(len(content), _LEAST_REQUIREMENTS)
        if self._left < 0 or depth >= _MAX_INCLUDED:
            raise ProjectError(
                f"{file}: the files of requirements that include each other are more than {_MAX_REQUIREMENTS} bytes, "
                f"or {_MAX_INCLUDED} within each other; put them into one."
            )
        return _decoded(content)


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _names_file(word: str) -> bool:
    """Tell whether a word is an option with a file of requirements; pip takes the beginnings of long options too."""
    option = word.partition("=")[0]
    if option.startswith("--"):
        return len(option) > 2 and ("--requirement".startswith(option) or "--constraint".startswith(option))
    return bool(re.match("-[rc]", option))


def _outside(file: Path, text: str) -> ProjectError:
    return ProjectError(
        f"{file}: {text[:100]!r} names a file outside of the project with more than requirements in it; copy it into "
        "the project."
    )


def _top(project: Project) -> Path:
    """Return the folder of all that came with a project: what was fetched, or the repository that it is part of."""
    above = (folder for folder in (project.root, *project.root.parents) if exists(folder / ".git"))
    return project.top or next(above, project.root)


def names_files(requirements: Sequence[str]) -> bool:
    """Tell whether requirements name files or folders of the project, such as ``-e .``, ``./pkg`` or ``-c x.txt``."""
    option = r"-[ecf]|--(editable|constraint|find-links)\b"
    path = r"\.|/|file:|[^\s@]*/[^\s@]*$|\S+\.(whl|zip|tar\.\w+)$|.*@\s*file:"
    return any(re.match(rf"(?i){option}|(?!\w+://|\w+\+\w+://)(?:{path})", line.strip()) for line in requirements)


def _decoded(content: bytes) -> str:
    """Return a requirements file's text; PowerShell's ``>`` writes UTF-16, with a mark at its beginning."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode()
