"""Lines of requirements as an installer reads them: in a project's files, and in the files that these name."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.identity import copy_tree, path_hash, tree_hash
from mlflow_projects.project.paths import exists, is_file, is_folder
from mlflow_projects.project.spec import Project
from mlflow_projects.project.yaml_files import read_bytes

# Of all files of requirements together, each as often as it is included, and counted as at least so many bytes.
_MAX_REQUIREMENTS = 8 * 2**20
_LEAST_REQUIREMENTS = 8 * 2**10
_MAX_INCLUDED = 50
# A name with versions, an address or a marker behind it; an option; or nothing.
_REQUIREMENT = re.compile(
    r"(-[\w-]+.*|[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]*\])?\s*(\(?\s*([=!<>~]=|[<>@]|===)[^=\0].*)?(;.*)?)?", re.DOTALL
)
_NAMED_FILE = re.compile(
    r"(?:(?:-r\s*|--requirement(?:\s+|=))|(?P<constraint>-c\s*|--constraint(?:\s+|=)))(?P<name>.+)"
)
# A path of this machine in a line, without the extras and the marker behind it.
_LOCAL = re.compile(
    r"(?P<editable>-e\s*|--editable(?:\s+|=))?(?:[\w.-]+\s*(?:\[[^\]]*\])?\s*@\s*)?"
    r"(?:file:(?://(?=/))?)?(?P<path>[^\[;#]+?)(?:\[[^\]]*\])?\s*(?:[;#].*)?"
)
# Of a line of its own; pip takes the beginning of one too.
_OPTIONS = (
    *("--constraint", "--editable", "--extra-index-url", "--find-links", "--index-url", "--no-binary", "--no-index"),
    *("--only-binary", "--pre", "--prefer-binary", "--pypi-url", "--require-hashes", "--requirement"),
    *("--trusted-host", "--use-feature"),
)
_OPTION = re.compile(r"--[a-z][a-z-]*(?=[\s=]|$)")
FIND_LINKS = re.compile(r"(?:-f|--find-links)[\s=]*(.+)")
# As people write it for a shell: -e ".[dev]".
_QUOTED = re.compile(r"^(-e\s*|--editable(?:\s+|=))(['\"])(.*?)\2")


class Expansion:
    """Replaces ``-r other.txt`` by that file's lines, so that its content is part of the key.

    Files that include others twice, which do the same, become many: all lines together are limited. An installer
    prints the lines that it does not understand: a file that did not come with the project has none of these.

    :param project: what the files came with
    :param base: the folder that lines are relative to, where an installer is started
    """

    def __init__(self, project: Project, base: Path) -> None:
        self._top = top_of(project).resolve()
        self._base = base
        self._left = _MAX_REQUIREMENTS
        self._checked: set[tuple[Path, str]] = set()
        self._constraints = hashlib.sha256()

    def of(self, file: Path, lines: Sequence[str]) -> tuple[str, ...]:
        """Return the lines of a file as an installer reads them.

        :raises ProjectError: a file that they name cannot be read, or may not
        """
        return self._of(self._base, file, lines, ())

    @property
    def constraints(self) -> str:
        """A hash of all files that were named with ``-c``, whose lines stay where they are."""
        return self._constraints.hexdigest()

    def _of(self, folder: Path, file: Path, lines: Sequence[str], including: tuple[Path, ...]) -> tuple[str, ...]:
        found: list[str] = []
        # As an installer joins them, of which an item of YAML may hold many.
        for text in (text for line in _joined("\n".join(lines)) for text in _options(_without_comment(line))):
            named = _NAMED_FILE.fullmatch(text)
            if named and re.search(r"://|\$\{", named["name"]):
                named = None  # what only the installer can read stays as it is
            self._check_options(folder, file, text, is_read=named is not None)
            if named is None:
                found += [_with_path_of(folder, self._base, text)] if text else []
                continue
            name = _unquoted(named["name"])
            other = folder / name
            try:
                if other.resolve() in including:
                    raise ProjectError(f"{file}: {text!r} makes {other.name} include itself; remove the line.")
                content = self._read(file, other, len(including))
                self._check(file, text, other, content)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links
                reason = getattr(error, "strerror", None) or error
                raise ProjectError(f"{file}: {text[:100]!r} cannot be read: {reason}.") from error
            inner = self._of(other.parent, other, content.splitlines(), (*including, other.resolve()))
            if named["constraint"]:
                self._constraints.update("\n".join((*inner, "")).encode())
                # pip reads it from where it is started, not from the file that named it, once its line is ours.
                found.append(f"-c {shlex.quote(os.path.relpath(other, self._base))}")
            else:
                found += inner
        return tuple(found)

    def _check_options(self, folder: Path, file: Path, text: str, *, is_read: bool) -> None:
        """Refuse a file of this machine that only the installer will read.

        :param is_read: whether the file is read here too, and checked then
        """
        if "-" not in text or (folder, text) in self._checked:
            return
        self._checked.add((folder, text))
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
        name = words[1] if len(words) == 2 else re.sub(r"^(-[rc]|--\w+=?)", "", words[0])
        if not name:
            raise ProjectError(f"{file}: {text!r} names no file; write it behind the option.")
        if re.match(r"(?i)(?!file:)[a-z][a-z0-9+.-]*://", name):
            return
        if "${" in name or ":" in name or not is_read:
            raise _outside(file, text)

    def _check(self, file: Path, text: str, other: Path, content: str) -> None:
        """Refuse a file that did not come with the project, unless it holds requirements and nothing else."""
        if other.resolve().is_relative_to(self._top):
            return
        if not all(map(_REQUIREMENT.fullmatch, map(_without_comment, _joined(content)))):
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


def _with_path_of(folder: Path, base: Path, text: str) -> str:
    """Return a line whose folder of archives (``-f``) is relative to ``base``, as installers find it by its file."""
    links = FIND_LINKS.fullmatch(text) if folder != base else None
    path = folder / _unquoted(links[1]) if links else folder
    return f"--find-links {shlex.quote(os.path.relpath(path, base))}" if links and is_folder(path) else text


def _unquoted(text: str) -> str:
    return text.strip().strip("'\"")


def _joined(text: str) -> list[str]:
    """Return lines, of which a backslash at the end joins two, but not behind a comment of its own line."""
    joined, begun = [], ""
    for line in text.splitlines():
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            begun += line.rstrip("\\")
        else:
            joined.append(f"{begun} {line}" if is_comment else begun + line)
            begun = ""
    return [*joined, begun] if begun else joined


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()


def _options(text: str) -> list[str]:
    """Return a line of options as one line for each, by its whole name, as other installers than pip want it."""
    is_simple = text.startswith("-") and not re.search("['\"]|--(hash|config-s|global-o|install-o)", text)
    return [_OPTION.sub(_whole, part, 1) for part in (re.split(r"\s+(?=--?[a-z])", text) if is_simple else [text])]


def _whole(option: re.Match[str]) -> str:
    found = [name for name in _OPTIONS if name.startswith(option[0])]
    return found[0] if option.start() == 0 and len(found) == 1 else option[0]


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


def top_of(project: Project) -> Path:
    """Return the folder of all that came with a project: what was fetched, or the repository that it is part of."""
    above = (folder for folder in (project.root, *project.root.parents) if exists(folder / ".git"))
    return project.top or next(above, project.root)


def lines_of(file: Path, key: str, value: Any) -> tuple[str, ...]:
    """Return a list of requirements that a file declares under a key.

    :raises ProjectError: it is none
    """
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


@dataclass(frozen=True)
class LocalPackage:
    """A package that a line names by its path: a folder, or an archive."""

    path: Path
    is_editable: bool
    _line: tuple[str, str]
    _top: Path

    def hash(self) -> str:
        """Return the hash of what is in it."""
        ends = [link.resolve() for link in self._links_out()] if self.path.is_dir() else []
        return "".join(tree_hash(path) if path.is_dir() else path_hash(path) for path in (self.path, *ends))

    def copy(self, to: Path) -> Path:
        """Copy it into a folder; of a link to elsewhere in the project, what it points to. Return the copy's path."""
        copy = to / self.path.resolve().name
        if not self.path.is_dir():
            to.mkdir(parents=True)
            shutil.copy2(self.path, copy)
            return copy
        copy_tree(self.path, copy)
        for link in self._links_out():
            place = copy / link.relative_to(self.path)
            if place.is_symlink():  # not of a file that git ignores
                place.unlink()
                (copy_tree if link.is_dir() else shutil.copy2)(link.resolve(), place)
        return copy

    def _links_out(self) -> list[Path]:
        inside = self.path.resolve()
        links = [path for path in sorted(self.path.rglob("*")) if path.is_symlink()]
        ends = [(link, link.resolve()) for link in links if is_file(link) or is_folder(link)]
        # Not to a folder around it, which would be copied into itself.
        return [
            link
            for link, end in ends
            if end.is_relative_to(self._top) and not end.is_relative_to(inside) and not inside.is_relative_to(end)
        ]

    def line_for(self, path: Path) -> str:
        """Return the line with another path of the package; its extras and marker stay."""
        before, behind = self._line
        before, scheme, _ = before.partition("file:")
        # Behind an option pip takes a blank in quotes only, uv none in quotes; both take an address.
        is_plain = not scheme and "@" not in before and (not before or re.fullmatch(r"[\w./+-]+", str(path)))
        return f"{before}{path if is_plain else path.as_uri()}{behind}"


def local_package(line: str, base: Path, top: Path | None = None) -> LocalPackage | None:
    """Return the package of this machine that a line of requirements names, such as ``-e .`` or ``./pkg[dev]``.

    :param base: the folder that the line is relative to
    :param top: that of all that came with the project; default: ``base``
    """
    text = _QUOTED.sub(r"\1\3", line.strip())
    if not names_files([text]) or not (found := _LOCAL.fullmatch(text)):
        return None
    path = base / found["path"]
    if not _is_package(path):
        return None
    line_around = text[: found.start("path")], text[found.end("path") :]
    return LocalPackage(path, found["editable"] is not None, line_around, (top or base).resolve())


def _is_package(path: Path) -> bool:
    """Tell whether an installer takes a path; whatever else a line names is neither read nor copied (``-e /``)."""
    if is_folder(path):
        return any(is_file(path / name) for name in ("pyproject.toml", "setup.py", "setup.cfg"))
    return is_file(path) and path.name.endswith((".whl", ".zip", ".tar.gz", ".tar.bz2", ".tgz"))


def names_files(requirements: Sequence[str]) -> bool:
    """Tell whether requirements name files or folders of the project, such as ``-e .``, ``./pkg`` or ``-c x.txt``."""
    option = r"(?:-[ecf]|--(?:editable|constraint|find-links)\b)"
    remote = r"(?!file:)[a-z][\w+.-]*://"
    # uv takes a path behind "@" as well as an address.
    named = rf"[\w.-]+\s*(?:\[[^\]]*\])?\s*@\s*(?!\s|{remote}|\$)"
    path = rf"(?:\.|/|file:|[^\s@]*/[^\s@]*$|[^\s:]+\.(?:whl|zip|tar\.\w+)$|{named})"
    form = re.compile(rf"(?i){option}(?![\s=]*['\"]?{remote})|(?!-|{remote}){path}")
    return any(form.match(line.strip()) for line in requirements)


def _decoded(content: bytes) -> str:
    """Return a requirements file's text; PowerShell's ``>`` writes UTF-16, with a mark at its beginning.

    A comment in the first two lines may name another encoding, as in Python's files.

    :raises ValueError: it is no text of that encoding
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding)
    said = re.match(rb"(?:#.*\n)?#.*?coding[:=]\s*([-\w.]+)", content)
    try:
        return content.decode(said[1].decode() if said else "utf-8")
    except (LookupError, UnicodeDecodeError) as error:
        raise ValueError(f"{error}; save it as UTF-8") from error
