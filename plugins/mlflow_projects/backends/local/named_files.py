"""The files that lines of requirements name, as hashes: part of what an environment is told by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow_projects.exceptions import StepFailedError
from mlflow_projects.project.identity import path_hash, tree_hash
from mlflow_projects.project.paths import is_folder
from mlflow_projects.project.python_environment import base_of
from mlflow_projects.project.requirements_files import FIND_LINKS, local_package, names_files, top_of
from mlflow_projects.project.spec import Project


def hashes_of(requirements: Sequence[str], constraints: str, project: Project) -> list[str]:
    """Return hashes of the files that lines of requirements name: two projects may each have a ``./pkg``."""
    base, hashes, is_unknown = base_of(project), {}, False  # type: Path, dict[Path, str], bool
    for line in requirements:
        if package := local_package(line, base, top_of(project)):
            hashes[package.path.resolve()] = package.hash()
        elif folder := _folder_of_links(line, project):
            hashes[folder] = path_hash(folder)
        elif names_files([line]) and not line.startswith("-c "):
            is_unknown = True  # what only the installer can find: all files of the project count
    return [constraints, *hashes.values(), *([tree_hash(project.root)] if is_unknown else [])]


def check_unchanged(requirements: Sequence[str], hashes: Sequence[str], project: Project, cache: Path) -> None:
    """Refuse an environment whose packages of the project are not those that its key names any more.

    :param cache: its folder; a package that it is in always changes
    :raises StepFailedError: somebody changed them meanwhile (git-sync, say)
    """
    base = base_of(project)
    packages = filter(None, (local_package(line, base, top_of(project)) for line in requirements))
    kept = [package for package in packages if not cache.resolve().is_relative_to(package.path.resolve())]
    if changed := [package.path for package in kept if package.hash() not in hashes]:
        raise StepFailedError(
            f"{changed[0]} changed while the environment of {project.environment_file} was built from it; run again."
        )


def _folder_of_links(line: str, project: Project) -> Path | None:
    """Return the folder of archives that a line names with ``-f``, if it is one inside the project."""
    found = FIND_LINKS.fullmatch(line)
    folder = (base_of(project) / found[1].strip("'\"")).resolve() if found else None
    return folder if folder and is_folder(folder) and project.root.resolve() in folder.parents else None
