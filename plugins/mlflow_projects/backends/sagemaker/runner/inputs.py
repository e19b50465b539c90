"""Inputs of the command that MLflow downloads."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from .errors import NO_INPUT, RunnerError
from .processes import Processes

_DOWNLOAD = (
    "import sys, mlflow.artifacts\n"
    "path = mlflow.artifacts.download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2])\n"
    "open(sys.argv[3], 'w').write(path)\n"
)


def download(uri: str, folder: Path, environment: dict[str, str], processes: Processes) -> str:
    """Fetch an input as MLflow does; return its path."""
    answer = folder.with_suffix(".path")
    folder.mkdir(parents=True)
    python = shutil.which("python", path=environment["PATH"]) if "VIRTUAL_ENV" in environment else None
    # Not in the project's folder: "-c" would import a project's own mlflow.py.
    status = processes.run(
        [python or sys.executable, "-c", _DOWNLOAD, uri, str(folder), str(answer)], folder, environment
    )
    if status:
        reason = processes.output.tail[-1] if processes.output.tail else f"exit status {status}"
        raise RunnerError(NO_INPUT, f"The input {uri} cannot be downloaded: {reason}")
    return answer.read_text()
