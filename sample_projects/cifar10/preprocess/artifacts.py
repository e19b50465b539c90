"""The artifact ``downstream_directory`` of this run and of earlier ones; in place if the store is a local folder."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import mlflow.artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from errors import DataError

NAME = "downstream_directory"
STEP_TAG = "cifar10.step"  # written when a preprocess run is complete, and what a later run looks for
STEP = "preprocess"
_FILES = {"classes.json", "meta_train.json", "meta_test.json", "train", "test"}
_UPLOADS = 8  # at a time; the files are small, so each upload is mostly waiting


def local_folder(uri: str) -> Path | None:
    """Return the folder of an artifact URI that is on this machine, or None."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return None if parsed.scheme else Path(uri)


def finished_run(run_id: str) -> Run:
    """Return the complete preprocess run of an id, whatever its experiment.

    :raises DataError: it is unknown, deleted, not finished, or the run of something else
    """
    where = f"cached_data_id {run_id!r}"
    try:
        run = mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise DataError(f"{where}: there is no such run on {mlflow.get_tracking_uri()}.") from None
    if run.info.lifecycle_stage != "active":
        raise DataError(f"{where}: this run was deleted.")
    if run.info.status != "FINISHED":
        raise DataError(f"{where}: this run is {run.info.status}; only a FINISHED one can be reused.")
    if run.data.tags.get(STEP_TAG) != STEP:
        raise DataError(f"{where}: this run ({run.info.run_name}) is not one of cifar10's preprocess.")
    found = {Path(item.path).name for item in mlflow.MlflowClient().list_artifacts(run_id, NAME)}
    if missing := sorted(_FILES - found):
        raise DataError(f"{where}: {', '.join(missing)} is missing in its artifact {NAME}.")
    return run


def copy_artifact(run: Run, folder: Path) -> None:
    """Put the files of a run's artifact into a folder, without opening a picture.

    :param folder: not there yet; linked, not copied, if the run's store is on the same disk
    """
    uri = f"{run.info.artifact_uri}/{NAME}"
    if source := local_folder(uri):
        shutil.copytree(source, folder, copy_function=_link)
        return
    print(f"Copying {uri}")
    fetched = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder.parent))
    Path(fetched).replace(folder)


def log_folder(folder: Path, run: Run) -> None:
    """Make a folder the artifact of this run, if it is not there already.

    MLflow sends the files of one call one after the other; 70,000 of them would take their time.
    """
    if target := local_folder(f"{run.info.artifact_uri}/{NAME}"):
        if target != folder:
            shutil.copytree(folder, target)
        return
    client = mlflow.MlflowClient()
    parts = list(_parts(folder))
    print(f"Sending the artifact in {len(parts)} part(s)")

    def send(part: Path) -> None:
        client.log_artifacts(run.info.run_id, str(part), str(Path(NAME) / part.relative_to(folder)))

    with ThreadPoolExecutor(_UPLOADS) as pool:
        for done, _ in enumerate(pool.map(send, parts), start=1):
            print(f"  {done} of {len(parts)} sent")
    for file in folder.glob("*.json"):
        client.log_artifact(run.info.run_id, str(file), NAME)


def _parts(folder: Path) -> Iterator[Path]:
    """Yield the folders of pictures; an empty one has nothing to send."""
    for part in sorted(folder.glob("*/*")):
        if any(part.iterdir()):
            yield part


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
