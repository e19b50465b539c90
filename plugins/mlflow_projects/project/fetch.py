"""From a project's URI to a folder on this machine, and to what the record says of its source."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project import archive, local_repository, repository
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.git_authentication import GitCredentials
from mlflow_projects.project.paths import exists, is_folder
from mlflow_projects.project.spec import Parameter, Project, load_project
from mlflow_projects.project.work_tree import BundleCheckout, head_commit
from mlflow_projects.public_uri import public_uri

_LONGEST = 16_384  # characters of a uri, or a version


@dataclass(frozen=True)
class Source:
    """Where a project's files come from, for the record.

    :param name: the URI, without credentials, with ``#subdirectory`` if any
    :param commit: the git commit, if the files are in a repository
    :param branch: the branch that was asked for
    :param repo_url: the repository's URL
    :param changed: True if a local work tree differs from its commit, None if that is unknown
    :param sha256: of a zip file
    """

    name: str
    commit: str | None = None
    branch: str | None = None
    repo_url: str | None = None
    changed: bool | None = False
    sha256: str | None = None


@dataclass(frozen=True)
class FetchedProject:
    """A project, ready to be run from its folder."""

    project: Project
    source: Source


def fetch(
    uri: str,
    version: str | None,
    cache: Cache,
    workspace: Path,
    credentials: GitCredentials | None = None,
    bundle: BundleCheckout | None = None,
    trusted_dirs: Sequence[Path] = (),
) -> FetchedProject:
    """Return a project's folder for one attempt.

    A local folder is used in place, as MLflow does. From git and from a zip file the attempt gets a
    private copy in its workspace, so that a project which writes into its own folder changes neither the
    code of a later attempt nor what its record claims to have run.

    :param uri: folder, ``file://``, git URL or zip file, each with an optional ``#sub/directory``
    :param version: branch, tag or commit, for git only
    :param workspace: an existing folder that belongs to the attempt
    :param bundle: the checkout that the DAG file is in, if it comes from git
    :param trusted_dirs: where git may read repositories of other users
    :raises ProjectError: the project cannot be had; the sentence says why
    """
    uri = uri.strip("'\" ")
    location, local, subdirectory, user = read_uri(uri, version)
    uri = f"{location}#{subdirectory}" if "#" in uri else location
    if user and credentials:
        credentials = replace(credentials, username=credentials.username or user)
    copy = workspace / "project"
    if location.lower().endswith(".zip") and not (local and is_folder(local)):
        if version is not None:
            raise ProjectError(f"version {version!r} is for git projects; {location} is a zip file.")
        with archive.unpacked(location, local, cache) as unpacked:
            shutil.copytree(unpacked.root, copy, symlinks=True)
        source = Source(name=public_uri(uri), sha256=unpacked.sha256)
        return FetchedProject(replace(load_project(_subfolder(copy, subdirectory, uri)), top=copy), source)
    if local is not None and not (repository.is_bare_repository(local) or version is not None):
        folder = _subfolder(local, subdirectory, uri)
        return FetchedProject(load_project(folder), _local_source(uri, folder, bundle, trusted_dirs))
    if local is not None and exists(local) and not repository.is_repository(local):
        raise ProjectError(f"version {version!r} is for git projects; {local} is no git repository.")
    if local is not None and exists(local) and not local_repository.is_trusted(local, trusted_dirs):
        raise ProjectError(
            f"The git repository {local} belongs to another user, whose settings git would obey. Name the folder in "
            "[mlflow_projects] git_trusted_dirs of Airflow's configuration and in git's own safe.directory, or give "
            "it to the worker's user."
        )
    url = location if local is None else local.as_uri()
    with repository.checked_out(url, version, cache, credentials) as checkout:
        shutil.copytree(checkout.root, copy, symlinks=True)
    name = f"{url}#{subdirectory}" if subdirectory else url
    source = Source(name=public_uri(name), commit=checkout.commit, branch=checkout.branch, repo_url=url)
    return FetchedProject(replace(load_project(_subfolder(copy, subdirectory, uri)), top=copy), source)


def declared_parameters(
    uri: str, version: str | None, commit: str | None, cache: Cache, entry_point: str
) -> tuple[Mapping[str, Parameter], Path | None]:
    """Return the parameters that an entry point of a fetched project declares, and the folder, if it is a local one.

    Nothing is copied, and nothing is fetched anew: of a zip file elsewhere nothing is known.

    :param commit: what was fetched, of a repository
    :raises ProjectError: the project is not what it was
    """
    location, local, subdirectory, _ = read_uri(uri, version)
    with contextlib.ExitStack() as stack:
        if location.lower().endswith(".zip") and not (local and is_folder(local)):
            if local is None:
                return {}, None
            root = stack.enter_context(archive.unpacked(location, local, cache)).root
        elif local is not None and not (repository.is_bare_repository(local) or version is not None):
            folder = _subfolder(local, subdirectory, uri)
            return load_project(folder).entry_point(entry_point).parameters, folder
        else:
            url = location if local is None else local.as_uri()
            root = stack.enter_context(repository.checked_out(url, commit or version, cache)).root
        return load_project(_subfolder(root, subdirectory, uri)).entry_point(entry_point).parameters, None


def read_uri(uri: str, version: str | None) -> tuple[str, Path | None, str, str]:
    """Return what a project's uri says: the location, its path if that is local, the subdirectory, the user's name.

    :raises ProjectError: it says nothing that can be used
    """
    _check_text("uri", uri, os.fsencode)
    _check_text("version", version or "")
    try:
        uri, user = repository.split_user(uri.strip("'\" "))
        location, subdirectory = _split(uri)
        local = _local(location, may_be_gone=repository.names_commit(version))
    except (ValueError, RuntimeError, OSError) as error:
        raise ProjectError(f"The project's uri {public_uri(uri)[:200]} cannot be read: {error}.") from error
    if local is None:
        _check_text("uri", uri)  # a file's name may hold any bytes, an address only characters
    return location, local, subdirectory, user


def _check_text(name: str, text: str, encode: Callable[[str], bytes] = str.encode) -> None:
    """Refuse what neither a file's name nor an argument of git can hold.

    :raises ProjectError: it does; the sentence does not repeat it
    """
    if "\0" in (unquote(text) if name == "uri" else text):
        raise ProjectError(f"The project's {name} holds a NUL character; remove it.")
    if len(text) > _LONGEST:
        raise ProjectError(f"The project's {name} has {len(text)} characters; at most {_LONGEST} are taken.")
    try:
        encode(text)
    except ValueError as error:
        raise ProjectError(f"The project's {name} holds half of a character; write it anew.") from error


def _split(uri: str) -> tuple[str, str]:
    location, _, subdirectory = uri.partition("#")
    if not location:
        raise ProjectError("The project's uri is empty; give a folder, a git URL or a zip file.")
    if Path(subdirectory).is_absolute() or ".." in Path(subdirectory).parts:
        raise ProjectError(f"The subdirectory {subdirectory!r} of {location} leaves the project.")
    return location, subdirectory


def _local(location: str, *, may_be_gone: bool) -> Path | None:
    """Return the absolute local path that a location means, or None if it is on another host.

    :param may_be_gone: a repository that is gone may still have left the wanted commit in the cache
    """
    if urlsplit(location).scheme == "file":
        path = Path(unquote(urlsplit(location).path))
    elif exists(Path(location)) or not repository.looks_like_git(location):
        path = Path(os.path.realpath(os.path.expanduser(location)))  # noqa: PTH111  (Path raises where it cannot)
    else:
        return None
    if not exists(path) and not may_be_gone:
        raise ProjectError(f"The project {location} does not exist on this worker; check the uri.")
    return path


def _subfolder(root: Path, subdirectory: str, uri: str) -> Path:
    folder = Path(os.path.realpath(root / subdirectory))  # Path raises for a link to itself
    if not folder.is_relative_to(root.resolve()) or not is_folder(folder):
        raise ProjectError(f"{uri}: the project has no folder {subdirectory!r}.")
    return folder


def _local_source(uri: str, folder: Path, bundle: BundleCheckout | None, trusted_dirs: Sequence[Path]) -> Source:
    head = head_commit(folder, bundle, trusted_dirs)
    return Source(name=public_uri(uri), **head._asdict()) if head else Source(name=public_uri(uri))
