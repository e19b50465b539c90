"""Read public MLproject files with MLflow's own code and with ours, and count where the two differ.

Usage: python tools/compare_with_mlflow.py [--shown] [FOLDER]     a folder of repositories; default: public_projects

Each file is loaded by both; each of its entry points gets the command of several sets of values from both, and is
linted. Nothing of a repository is run. Ends with a table; fails if a file or a command is refused that MLflow takes,
a command differs for no reason below, or something crashes. Each error of lint where MLflow builds the command is
printed: a person is to agree that the step must fail.

A command may differ, or be refused, for one of these:
  quoted      a value other than letters, digits and @%+=:,./-_ stands inside of quotes (MLflow lets it become shell)
  no place    such a value stands where nothing could make it safe
  number      a value that the DAG passes is not of the type int or float
  extra       undeclared parameters follow a command that ends a line (MLflow makes them a line of their own)
  none        a parameter without a value (MLflow passes the word None)

Of a docker_env with volumes or variables, those of MLflow's "docker run" line are compared too, as bash reads them; a
text that asks more of a shell than $(pwd) is not given to one, but counted.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from home import ROOT

PLAIN = {"int": "3", "float": "0.5", "uri": "s3://bucket/key", "path": "MLproject"}
HOSTILE = 'it\'s $(id) `id` "x" ; a\n b'
Values = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shown", action="store_true", help="print what is counted, not only what is wrong")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(ROOT) / "public_projects")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of Python's, about regular expressions and the like in other people's files
    _download_nothing()
    comparison = Comparison(arguments.folder.resolve())
    roots = sorted({file.parent for file in comparison.folder.rglob("*") if is_mlproject(file)})
    for root in roots:
        comparison.look_at(root)
    if not roots:
        print(f"{arguments.folder} holds no MLproject file; clone repositories into it.", file=sys.stderr)
        return 1
    comparison.report(shown=arguments.shown)
    repositories = {root.relative_to(comparison.folder).parts[:1] for root in roots}
    print(f"{len(roots)} files of {len(repositories)} repositories")
    return 1 if comparison.is_wrong else 0


class Comparison:
    """What was counted, and where."""

    WRONG = ("docker_env differs", "refused", "command refused", "command differs", "environment differs", "crash")
    TO_AGREE = "lint error where MLflow builds the command"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.where: dict[str, list[str]] = defaultdict(list)

    @property
    def is_wrong(self) -> bool:
        return any(self.counts[kind] for kind in self.WRONG)

    def look_at(self, root: Path) -> None:
        os.chdir(root)  # MLflow takes a relative path for one of the working folder
        try:
            self._look_at(root)
        except Exception:
            self._count("crash", root, traceback.format_exc())

    def _look_at(self, root: Path) -> None:
        from mlflow.projects import _project_spec

        from mlflow_projects.cli.check_rules import is_template
        from mlflow_projects.exceptions import ProjectError
        from mlflow_projects.project.spec import load_project

        try:
            theirs = _project_spec.load_project(str(root))
        except Exception as error:
            theirs = None
            reason = f"{type(error).__name__}: {error}"
        try:
            ours = load_project(root)
        except ProjectError as error:
            self._count("refused by both" if theirs is None else "refused", root, str(error))
            return
        if theirs is None:
            self._count("taken by ours only", root, reason)
            return
        self._count("file taken by both", root)
        environment = str(ours.environment_file) if ours.environment_file else None
        same = environment == theirs.env_config_path and ours.docker_env == theirs.docker_env
        self._count("environment equal" if same else "environment differs", root)
        if set(theirs.docker_env or ()) & {"volumes", "environment"}:
            self._docker_env(root, ours)
        built = [self._entry_point(root, ours, theirs, name) for name in theirs._entry_points]
        if not is_template(root):
            self._lint(root, all(built))

    def _docker_env(self, root: Path, ours: Any) -> None:
        """Compare the volumes and variables of a container."""
        from mlflow_projects.backends.local.docker_env import declared_variables, volumes_of
        from mlflow_projects.exceptions import ProjectError

        worker = {"HOME": "/home/worker", "PWD": str(root), **dict.fromkeys(_variables_in(ours.docker_env), "/value")}
        try:
            volumes = volumes_of(ours, worker)
            mine = {"-v": [*volumes.binds, *volumes.unnamed], "-e": declared_variables(ours, worker)}
        except ProjectError as error:
            self._count("docker_env refused, in a sentence", root, str(error))
            return
        theirs = _docker_line(root, ours.docker_env, worker)
        if theirs is None:
            self._count("docker_env needs a shell", root)
            return
        # A relative folder is the project's; MLflow leaves it to docker, of which only new versions take one.
        theirs["-v"] = [
            f"{(root / v.split(':')[0]).resolve()}:{v.partition(':')[2]}" if v[0] == "." else v for v in theirs["-v"]
        ]
        theirs["-e"] = {name: value for name, value in theirs["-e"].items() if name in mine["-e"]}
        same = mine == theirs
        self._count("docker_env equal" if same else "docker_env differs", root, f"MLflow {theirs}, ours {mine}")

    def _entry_point(self, root: Path, ours: Any, theirs: Any, name: str) -> bool:
        """Compare an entry point's commands; return whether MLflow builds the one of plain values."""
        entry = theirs.get_entry_point(name)
        sets = dict(_sets_of_values(entry))
        built = {kind: self._commands(root, ours, entry, name, kind, values) for kind, values in sets.items()}
        return built["plain"]

    def _commands(self, root: Path, ours: Any, entry: Any, name: str, kind: str, values: Values) -> bool:
        from mlflow_projects.exceptions import ProjectError
        from mlflow_projects.project.command import build_command, check_parameters

        storage = tempfile.mkdtemp()
        try:
            their_command = entry.compute_command(values, storage)
        except Exception as error:
            their_command = None
            reason = f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(storage)
        place = f"{root.relative_to(self.folder)} {name} ({kind})"
        try:
            entry_point = ours.entry_point(name)
            parameters = check_parameters(ours, entry_point, values)
            our_command = build_command(
                ours, entry_point, parameters, lambda uri, folder: f"{storage}/{folder}/{uri}"
            )
        except ProjectError as error:
            if their_command is None:
                self._count("command refused by both", place, str(error))
            else:
                kind_of = _why(ours, name, kind, values)
                self._count(f"command refused: {kind_of}" if kind_of else "command refused", place, str(error))
            return their_command is not None
        if their_command is None:
            self._count("command built by ours only", place, reason)
        elif our_command == their_command:
            self._count("command equal", place)
        else:
            kind_of = _why(ours, name, kind, values)
            self._count(
                f"command differs: {kind_of}" if kind_of else "command differs",
                place,
                f"MLflow {their_command!r}\n   ours   {our_command!r}",
            )
        return their_command is not None

    def _lint(self, root: Path, is_built: bool) -> None:
        from mlflow_projects.cli.check_rules import lint_project

        errors = [finding for finding in lint_project(root).findings if finding.is_error]
        for finding in errors:
            self._count(self.TO_AGREE if is_built else "lint error where MLflow fails too", root, finding.message)
        if not errors:
            self._count("lint without an error", root)

    def _count(self, kind: str, where: Path | str, text: str = "") -> None:
        self.counts[kind] += 1
        place = where.relative_to(self.folder) if isinstance(where, Path) else where
        self.where[kind].append(f"{place}: {text}")

    def report(self, *, shown: bool) -> None:
        quiet = ("command equal", "file taken by both", "environment equal", "lint without an error")
        for kind in sorted(self.counts):
            if kind in (*self.WRONG, self.TO_AGREE) or (shown and kind not in quiet):
                print(f"== {kind}")
                for line in self.where[kind]:
                    print(f"   {line}")
        print()
        for kind, count in sorted(self.counts.items(), key=lambda item: (item[0] in self.WRONG, item[0])):
            print(f"{kind:45} {count:7}")


def _variables_in(docker_env: Mapping[str, Any]) -> list[str]:
    """Return the variables of the worker that a docker_env names."""
    texts = [*map(str, docker_env.get("volumes") or ())]
    names = []
    for item in docker_env.get("environment") or ():
        (texts if isinstance(item, list) else names).append(str(item[-1] if isinstance(item, list) else item))
    return [
        *names,
        *(name for text in texts for name in re.findall(r"\$\{?(\w+)", text) if name not in ("PWD", "HOME")),
    ]


def _docker_line(root: Path, docker_env: Mapping[str, Any], worker: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the volumes and variables of MLflow's ``docker run``, as bash reads it in the project's folder."""
    import mlflow
    from mlflow.projects.backend import local

    mlflow.set_tracking_uri("http://tracking.test")
    info = SimpleNamespace(run_id="r", experiment_id="0", artifact_uri="mlflow-artifacts:/r")
    with patch.dict(os.environ, worker):
        line = " ".join(
            local._get_docker_command(
                SimpleNamespace(tags=["image"]), SimpleNamespace(info=info), None,
                docker_env.get("volumes"), docker_env.get("environment"),
            )
        )  # fmt: skip
    if re.search(r"[;&|<>()`]|\$[({]", re.sub(r"\$\(pwd\)|\$\{\w+\}", "", line)):
        return None
    command = ["bash", "-c", f"printf '%s\\0' {line}"]
    done = subprocess.run(
        command, cwd=root, env={"PATH": os.environ["PATH"], **worker}, capture_output=True, check=True
    )
    words = done.stdout.decode().split("\0")
    after = [(word, words[index + 1]) for index, word in enumerate(words) if word in ("-v", "-e")]
    return {
        "-v": [value for option, value in after if option == "-v"],
        "-e": dict(value.split("=", 1) for option, value in after if option == "-e"),
    }


def is_mlproject(file: Path) -> bool:
    return file.name.lower() == "mlproject" and file.is_file()


def _download_nothing() -> None:
    from mlflow.tracking import artifact_utils

    artifact_utils._download_artifact_from_uri = lambda artifact_uri, output_path: f"{output_path}/{artifact_uri}"


def _sets_of_values(entry: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and values by parameter, for an entry point as MLflow read it."""
    plain = {
        name: PLAIN.get(parameter.type, f"word{n}") for n, (name, parameter) in enumerate(entry.parameters.items())
    }
    missing = {name: plain[name] for name, parameter in entry.parameters.items() if parameter.default is None}
    yield "plain", plain
    yield "defaults", missing
    yield "defaults and others", {**missing, "another": "1", "one_more": "a b"}
    yield "text everywhere", dict.fromkeys(plain, "word")
    for name, parameter in entry.parameters.items():
        if parameter.type not in ("int", "float", "path"):
            yield f"hostile {name}", {**plain, name: f"s3://b/{HOSTILE}" if parameter.type == "uri" else HOSTILE}
        yield f"no {name}", {**plain, name: None}


def _why(project: Any, name: str, kind: str, values: Values) -> str | None:
    """Return the reason of those above for which a command may differ, or None."""
    from mlflow_projects.project import quoting

    entry_point = project.entry_points[name]
    types = {key: parameter.type for key, parameter in entry_point.parameters.items()}
    if any(value is None for value in values.values()):
        return "none"
    if any(types.get(key) in ("int", "float") and value == "word" for key, value in values.items()):
        return "number"
    end = entry_point.command.rstrip()
    if "another" in values and ("\n" in entry_point.command[len(end) :] or end.endswith("\\")):
        return "extra"
    defaults = {key: parameter.default for key, parameter in entry_point.parameters.items()}
    marks: dict[str, str] = {}
    for key in types:
        value = str(values.get(key, defaults[key]))
        marks[key] = f"mlflowvalue{len(marks)}z" if shlex.quote(value) != value else value
    used = [mark for mark in marks.values() if mark.startswith("mlflowvalue")]
    filled = entry_point.command.format(**marks)
    found = quoting.places(filled, [mark for mark in used if filled.count(mark) == 1])
    return "quoted or no place" if any(place.quoted for place in found) else None


if __name__ == "__main__":
    sys.path.insert(0, str(Path(ROOT) / "plugins"))
    sys.exit(main())
