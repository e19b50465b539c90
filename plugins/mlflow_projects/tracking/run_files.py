"""The files of a run, folder by folder."""

from __future__ import annotations

from mlflow_projects.tracking.client import Artifact, TrackingClient


def run_files(client: TrackingClient, run_id: str, *, limit: int = 100, max_folders: int = 100) -> list[Artifact]:
    """Return the files of a run in the order of a directory listing.

    :param limit: how many files to return at most
    :param max_folders: how many folders to look into at most
    """
    files: list[Artifact] = []
    folders = [""]
    while folders and len(files) < limit and max_folders:
        max_folders -= 1
        listed = client.list_artifacts(run_id, folders.pop(0))
        files += [entry for entry in listed if not entry.is_dir]
        folders = [entry.path for entry in listed if entry.is_dir] + folders
    return files[:limit]
