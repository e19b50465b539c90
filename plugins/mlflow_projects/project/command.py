"""From parameters to the command line, byte for byte as MLflow builds it.

Values may come from a DAG's trigger form, so they are untrusted: each is quoted for the place where it stands, and
only the author of the MLproject file writes shell. MLflow quotes as if no place were inside of quotes.
"""

from __future__ import annotations

import functools
import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import plain_values, quoting, shell_syntax
from mlflow_projects.project.paths import existing_path, local_path_of
from mlflow_projects.project.placeholders import MAX_ARGUMENT, TOO_LONG, each_filled_in, placeholders, unfillable
from mlflow_projects.project.shell_misreading import OWN_TEXT
from mlflow_projects.project.spec import EntryPoint, Parameter, Project

# What MLflow takes as a parameter's key (mlflow.utils.validation).
MAX_KEY_LENGTH = 250
_MAX_JUDGED = 10**6  # bytes of the command, as often as it is looked at for another undeclared parameter
_LEAST_JUDGED = 1000
_MAX_VALUE = 2**20  # characters
_KEY_PATTERN = re.compile(r"^[/\w.\- :]*$")


class FilledLater(str):
    """A word that stands for a value until the job fills the value in, quoted for a place outside of quotes."""


@dataclass(frozen=True)
class Parameters:
    """An entry point's parameters, checked.

    :param declared: value per parameter of the MLproject, defaults included
    :param extra: values of parameters that the MLproject does not declare; the command gets them
        as ``--key value``
    :param defaults: the parameters whose value is the default that the MLproject's author wrote
    """

    declared: Mapping[str, Any]
    extra: Mapping[str, Any]
    defaults: frozenset[str] = frozenset()

    def as_record(self) -> dict[str, str]:
        """Return every parameter as text, the way the MLflow run records it."""
        return {str(key): str(value) for key, value in {**self.declared, **self.extra}.items()}


def check_parameters(project: Project, entry_point: EntryPoint, given: Mapping[str, Any]) -> Parameters:
    """Check values against the MLproject, before anything is started.

    :param given: the values that the DAG passes, by parameter name; None means that it passes none
    :raises ProjectError: a parameter is missing, is not of its type, or cannot be recorded by MLflow
    """
    where = f"{project.file or project.root}, entry point {entry_point.name!r}"
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        _check_text(where, name, value)
    declared = {}
    for name, parameter in entry_point.parameters.items():
        value = given.get(name, parameter.default)
        if value is None:
            continue
        if name not in given:
            _check_text(where, name, value)
        if name in given or parameter.type not in ("int", "float"):  # a number has the default that the author wrote
            check_type(where, parameter, value)
        declared[name] = value
    if missing := [name for name in entry_point.parameters if name not in declared]:
        raise ProjectError(
            f"{where}: no value for the parameter {', '.join(map(repr, missing))}; "
            "pass it in the operator's 'parameters' or give it a default in the MLproject."
        )
    extra = {key: value for key, value in given.items() if key not in declared}
    parameters = Parameters(declared, extra, defaults=frozenset(declared) - frozenset(given))
    _check_recordable(where, parameters.as_record())
    return parameters


def build_command(
    project: Project,
    entry_point: EntryPoint,
    parameters: Parameters,
    download: Callable[[str, str], str],
    localize: Callable[[str, str], str] | None = None,
) -> str:
    """Return the shell command of an entry point with its parameters.

    :param download: called with (artifact URI, name of a folder to create) for the value of a ``path``
        parameter that is not local; returns the local path
    :param localize: called with (parameter's name, value) for a ``path`` value that is local; default: its
        absolute path on this machine
    :raises ProjectError: a ``path`` value does not exist, or the command uses an unknown placeholder
    """
    values: dict[str, str] = {}
    for position, (name, parameter) in enumerate(entry_point.parameters.items()):
        value = str(parameters.declared[name])
        if parameter.type == "path":
            if local_path_of(value) is None:
                value = download(value, f"param_{position}")
            else:
                value = (localize or functools.partial(existing_path, project.root))(name, value)
        values[name] = value
    key = f"{project.file}: 'entry_points.{entry_point.name}.command'"
    command = _filled_in(key, entry_point.command, values, parameters.defaults)
    extras = [f"--{shlex.quote(str(k))} {shlex.quote(str(v))}" for k, v in parameters.extra.items()]
    if not extras:
        return command
    _check_end(
        key, _without_end(_judged(key, entry_point.command, command, values, parameters.defaults)), parameters.extra
    )
    return " ".join([_without_end(command), *extras])


def _judged(key: str, command: str, filled_in: str, values: Mapping[str, str], defaults: Set[str]) -> str:
    """Return a command with its values, without one name in them that would be a reason to refuse others."""
    others = {name: OWN_TEXT.sub("x", value) for name, value in values.items() if OWN_TEXT.search(value)}
    return _filled_in(key, command, {**values, **others}, defaults) if others else filled_in


def _filled_in(key: str, command: str, values: Mapping[str, str], defaults: Set[str]) -> str:
    """Return a command with its values; one of ``defaults`` is the author's, so at worst it gets MLflow's quotes."""
    quoted = {name: shlex.quote(value) for name, value in values.items()}
    parts = placeholders(key, command)
    try:
        filled_in = list(each_filled_in(key, parts, quoted))
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise unfillable(key, f"{type(error).__name__}: {str(error)[:100]}") from error
    as_mlflow = "".join(filled_in)
    stem = _unused_word(shell_syntax.MARK, as_mlflow)
    marked = without = plain_marked = ""  # with the plain values; without those that are given; with marks for all
    marks: dict[str, str] = {}
    plain: dict[str, str] = {}  # mark: parameter
    for text, (literal, field, spec, conversion) in zip(filled_in, parts, strict=True):
        if field is None:
            marked += text
            without += text
            plain_marked += text
            continue
        without += text if field in defaults else literal + stem
        is_given = field not in defaults and not isinstance(values[field], FilledLater)
        if is_given and shell_syntax.is_plain(values[field]):
            plain[f"{stem}p{len(plain)}z"] = field
            plain_marked += literal + next(reversed(plain))
        else:
            plain_marked += text
        is_changed = bool(spec or conversion)
        is_trusted = is_changed and field in defaults
        if shell_syntax.is_plain(values[field]):  # that name, among the author's words, would be read as theirs
            is_trusted = is_changed or not OWN_TEXT.search(values[field])
        if is_trusted and not isinstance(values[field], FilledLater):
            marked += text
        elif is_changed:
            raise ProjectError(
                f"{key} changes the value of parameter {field!r} ({{{field}…}}), which is only possible for values "
                "of letters, digits and @%+=:,./-_; write {" + field + "}."
            )
        else:
            mark = f"{stem}{len(marks)}z"
            marked += literal + mark
            marks[mark] = field
    if len(shell_syntax.ending_lines(marked)) > len(shell_syntax.ending_lines(without)):
        raise ProjectError(
            f"{key}: a line of values is the word that ends a here-document (<<), so what follows would be read as "
            "commands; pass another value, or end the here-document with another word."
        )
    if refused := plain_values.refused(plain_marked, {mark: values[name] for mark, name in plain.items()}):
        name = plain[refused]
        raise ProjectError(
            f"{key}: the value of parameter {name!r} cannot be passed safely, as it stands in a program's code, "
            f"which may read it as more than data; take a number, write {{{name}}} into a string of the code, or as "
            "a word of its own behind it."
        )
    texts: dict[str, str] = {}
    while len(texts) < len(marks):
        texts = {}
        for (mark, name), place in zip(marks.items(), quoting.places(marked, list(marks)), strict=True):
            try:
                texts[mark] = _written(place, values[name])
            except quoting.PlaceError as error:
                if name not in defaults or isinstance(values[name], FilledLater):
                    raise ProjectError(_refusal(key, name, str(error))) from error
                marked = marked.replace(mark, quoted[name])
                del marks[mark]
                break  # what it is may have changed where the others stand
    if not marks:
        return as_mlflow
    filled = re.sub("|".join(marks), lambda found: texts[found.group()], marked)
    try:
        is_same = shell_syntax.shape(filled) == shell_syntax.shape(marked)
    except shell_syntax.TooComplexError as error:
        if defaults >= {*marks.values()}:
            return as_mlflow
        raise ProjectError(_refusal(key, ", ".join(marks.values()), str(error))) from error
    if not is_same:
        if defaults >= {*marks.values()}:
            return as_mlflow
        raise ProjectError(_refusal(key, ", ".join(marks.values()), "where it would change the command"))
    return filled


def _unused_word(stem: str, text: str) -> str:
    """Return a word that is no part of a text: the stem, with an x more than it has there."""
    found = re.findall(f"{stem}(x*)", text)
    return stem + "x" * (max(map(len, found)) + 1) if found else stem


def _written(place: quoting.Place, value: str) -> str:
    if not isinstance(value, FilledLater):
        return place.write(value)
    if place.around is None:
        raise quoting.PlaceError("where no path can be filled in later")
    return place.around[0] + value + place.around[1]


def _refusal(key: str, names: str, where: str) -> str:
    return (
        f"{key}: the value of parameter {names!r} cannot be passed safely, as it stands {where}; take values of "
        f"letters, digits and @%+=:,./-_ only, or write {{{names}}} as a word of its own, without quotes around it."
    )


def _without_end(command: str) -> str:
    """Return a command without what ends its last line, so that more arguments become its own."""
    end = command.rstrip()
    if "\n" in command[len(end) :] or (end == command and _is_escaped_after(end)):
        while _is_escaped_after(end) and command[len(end) :][:1] in ("", "\n"):  # a line that goes on nowhere
            end = end[:-1].rstrip()
        command = command[: len(end) + _is_escaped_after(end)]  # a space behind a backslash is a word
    return command


def _check_end(key: str, command: str, extra: Mapping[str, Any]) -> None:
    """Check that more arguments become a command's own.

    :raises ProjectError: they would not, as after a here-document or a comment, or could become shell
    """
    try:
        takes_arguments = shell_syntax.takes_arguments(command)
    except shell_syntax.TooComplexError:  # as MLflow, for values that are safe anywhere
        takes_arguments = True
    if not takes_arguments:
        raise ProjectError(
            f"{key} ends with something that takes no arguments, so the parameters {', '.join(map(repr, extra))} "
            "would be lost; declare them in the MLproject."
        )
    mark = _unused_word(shell_syntax.MARK, command)
    # A function's arguments, say, may come to eval: the names too.
    words = [(name, f"--{mark} x", name) for name in extra]
    words += [(name, f"--{shlex.quote(str(name))} {mark}", value) for name, value in extra.items()]
    judged = [(name, end, str(word)) for name, end, word in words if not shell_syntax.is_plain(str(word))]
    ends = {end for _, end, _ in judged}
    if len(ends) * max(len(command), _LEAST_JUDGED) > _MAX_JUDGED:
        raise ProjectError(
            f"{key}: too many parameters that it does not declare ({len(ends)}) have other characters than letters, "
            "digits and @%+=:,./-_; declare them in the MLproject."
        )
    places: dict[str, quoting.Place] = {}  # names stand in the same one
    for name, end, word in judged:
        try:
            if end not in places:
                places[end] = quoting.places(f"{command} {end}", [mark])[0]
            places[end].write(word)
        except quoting.PlaceError as error:
            raise ProjectError(
                f"{key}: the undeclared parameter {name!r} cannot be passed safely at its end, as it stands {error}; "
                "take letters, digits and @%+=:,./-_ only, or declare it."
            ) from error


def _is_escaped_after(text: str) -> bool:
    return shell_syntax.is_escaped(text.encode("utf-8", "replace"))


def check_length(entry_point: EntryPoint, command: str) -> None:
    """Refuse a command that Linux cannot start."""
    if len(command.encode()) >= MAX_ARGUMENT:
        raise ProjectError(
            f"The command of entry point {entry_point.name!r} has {len(command.encode())} bytes; {TOO_LONG}"
        )


def check_type(where: str, parameter: Parameter, value: Any) -> None:
    """Check a value against its parameter's type.

    :param where: begins the error's sentence
    :raises ProjectError: the value is not of that type
    """
    text = str(value)
    if parameter.type in ("int", "float"):
        try:
            {"int": int, "float": float}[parameter.type](text)
        except ValueError as error:
            raise ProjectError(
                f"{where}: parameter {parameter.name!r} must be of type {parameter.type}, not {text[:100]!r}."
            ) from error
    if parameter.type in ("uri", "path"):
        try:
            scheme = urlparse(text).scheme
        except ValueError as error:
            raise ProjectError(
                f"{where}: parameter {parameter.name!r} is no valid {parameter.type} ({error}): {text[:100]!r}."
            ) from error
        if parameter.type == "uri" and not scheme:
            raise ProjectError(
                f"{where}: parameter {parameter.name!r} must be a URI with a scheme such as s3://, "
                f"not {text[:100]!r}."
            )


def _check_text(where: str, name: Any, value: Any) -> None:
    """Check that a value has a text: that a DAG's number is not of 6,000 digits, nor a list within itself."""
    try:
        name, size = str(name), len(str(value))
    except (ValueError, RecursionError) as error:
        problem = "is nested too deeply" if isinstance(error, RecursionError) else f"cannot become text ({error})"
        shown = name[:100] if isinstance(name, str) else type(name).__name__
        raise ProjectError(f"{where}: the value of parameter {shown!r} {problem}; pass it as text.") from error
    if size > _MAX_VALUE:
        raise ProjectError(
            f"{where}: the value of parameter {name[:100]!r} has {size} characters; at most {_MAX_VALUE} are taken. "
            "Put it into a file and pass its path."
        )


def is_recordable(key: str) -> bool:
    """Tell whether MLflow takes a parameter of that name (mlflow.utils.validation)."""
    path_like = key in ("", ".") or key.startswith(("/", "..")) or posixpath.normpath(key) != key
    return len(key) <= MAX_KEY_LENGTH and not path_like and bool(_KEY_PATTERN.match(key))


def _check_recordable(where: str, record: Mapping[str, str]) -> None:
    for key, text in record.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ProjectError(f"{where}: parameter {key[:100]!r} holds half a character; mend its text.") from error
        if "\0" in text:
            raise ProjectError(f"{where}: parameter {key[:100]!r} holds a NUL character; remove it.")
        if not is_recordable(key):
            raise ProjectError(
                f"{where}: MLflow does not take the parameter name {key[:100]!r}; use letters, digits, "
                f"'_', '-', '.', ' ', ':' and '/' (not as a path), at most {MAX_KEY_LENGTH} characters."
            )
