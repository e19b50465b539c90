"""Paths that a DAG or an MLproject file names: any text, also one that no file can have as its name."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow_projects.exceptions import ProjectError


def exists(path: Path) -> bool:
    """Tell whether there is a file or folder of that name; False where Path.exists raises (a name of 300 letters)."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Tell whether there is a file of that name; see :func:`exists`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder of that name; see :func:`exists`."""
    return os.path.isdir(path)  # noqa: PTH112


def local_path_of(uri: str) -> str | None:
    """Return the path that a plain path or ``file:`` URI means, or None for another kind of URI."""
    try:
        parsed = urlparse(uri)
    except ValueError:  # "http://[", say
        return None
    if not parsed.scheme or (parsed.scheme == "file" and not parsed.netloc):
        return url2pathname(parsed.path if uri.startswith("file:") else uri)
    return None


def existing_path(root: Path, name: str, value: str) -> str:
    """Return the absolute path that a ``path`` parameter means: absolute, or relative to the project.

    :param root: the project's folder
    :raises ProjectError: no such file or folder
    """
    local = local_path_of(value)
    path = os.path.abspath(root / (local or ""))  # noqa: PTH100  (Path.absolute keeps "..", MLflow's command does not)
    if not local or not exists(Path(path)):  # "" would mean the project's folder
        raise ProjectError(
            f"Parameter {name!r} is the path {value!r}, but no such file or folder exists"
            + (f" in {root}" if local and not Path(local).is_absolute() else "")
            + "; make it, or pass another path."
        )
    return path
