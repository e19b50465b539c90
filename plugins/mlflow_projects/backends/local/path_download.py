"""Values of ``path`` parameters that are not on this worker: downloaded, as MLflow does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow_projects.backends.contract import Job
from mlflow_projects.exceptions import ProjectError


def downloader(job: Job, variables: Mapping[str, str]) -> Callable[[str, str], str]:
    """Return what fetches a remote ``path`` value, see :func:`build_command`."""
    return lambda uri, folder: _download(uri, job.workspace / folder, variables)


def _download(uri: str, folder: Path, variables: Mapping[str, str]) -> str:
    """Fetch a remote ``path`` value as MLflow does, in a process of its own: mlflow is heavy."""
    folder.mkdir()
    script = (
        "import sys, mlflow.artifacts as a\n"
        "print(a.download_artifacts(artifact_uri=sys.stdin.read(), dst_path=sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        input=uri,  # no argument: it may be signed, and everybody reads the list of processes
        env=dict(variables),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ProjectError(f"The 'path' value {uri!r} cannot be downloaded: {reason}")
    return done.stdout.strip().splitlines()[-1]
