"""Turn a data set in CIFAR's format into PNG files with labels, logged as the artifact ``downstream_directory``.

A finished run of this project, in any experiment, can be given as ``cached_data_id``: its files are taken over
without a download and without decoding.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from artifacts import NAME, STEP, STEP_TAG, copy_artifact, finished_run, local_folder, log_folder
from data_sets import download_folder, open_data_set
from errors import DataError
from pictures import write_pictures

TAKEN_OVER = ("train_images", "test_images", "bytes", "classes")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        default="cifar10",
        help="cifar10, cifar100, fashion-mnist, fashion-mnist:FOLDER, sample, or the path of CIFAR's batches",
    )
    parser.add_argument("--downstream", default="", help="also keep the files below this local folder")
    parser.add_argument("--cached_data_id", default="", help="id of a finished run of this project to take over")
    return parser.parse_args()


def take_over(run_id: str, folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Take over the files of an earlier run; return its tags (data set and origin) and its figures."""
    earlier = finished_run(run_id)
    print(f"Taking over the files of run {run_id}: no download, no decoding.")
    copy_artifact(earlier, folder)
    tags = {name: earlier.data.tags.get(name, "") for name in ("cifar10.data_set", "cifar10.origin")}
    return {**tags, "cifar10.reused_run": run_id}, {name: earlier.data.metrics[name] for name in TAKEN_OVER}


def make(data: str, folder: Path, scratch: Path) -> tuple[dict[str, str], dict[str, float]]:
    """Make the files; return tags (data set and origin) and figures."""
    data_set = open_data_set(data, scratch, download_folder())
    classes = data_set.batches.classes
    print(f"Data set: {data_set.title} with {len(classes)} classes, from {data_set.origin}")
    figures = write_pictures(data_set.batches, folder)
    tags = {"cifar10.data_set": data_set.title, "cifar10.origin": data_set.origin}
    return tags, {**figures, "classes": len(classes)}


def log_parameters(run: mlflow.ActiveRun, values: dict[str, Any]) -> None:
    """Log the parameters that whoever started the run did not log yet: MLflow refuses another text for one."""
    logged = mlflow.MlflowClient().get_run(run.info.run_id).data.params
    mlflow.log_params({name: value for name, value in values.items() if name not in logged})


def main() -> None:
    arguments = parse_arguments()
    started = time.monotonic()
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as temporary:
        log_parameters(run, vars(arguments))
        scratch = Path(temporary) / "batches"
        scratch.mkdir()
        # Where the artifact store is a local folder the files are written to their last place at once.
        folder = local_folder(f"{run.info.artifact_uri}/{NAME}") or Path(temporary) / NAME
        if arguments.downstream:
            folder = Path(arguments.downstream) / run.info.run_id
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            if arguments.cached_data_id:
                tags, figures = take_over(arguments.cached_data_id, folder)
                print(f"The data set is {tags['cifar10.data_set']}; data={arguments.data} does not count.")
            else:
                tags, figures = make(arguments.data, folder, scratch)
            log_folder(folder, run)
        except DataError as error:
            raise SystemExit(str(error)) from None
        except (OSError, MlflowException) as error:
            raise SystemExit(f"The files cannot be made or stored: {error}") from error
        figures["images"] = figures["train_images"] + figures["test_images"]
        figures["seconds"] = time.monotonic() - started
        mlflow.log_metrics(figures)
        mlflow.set_tags({**tags, STEP_TAG: STEP})
        print(
            f"{int(figures['images']):,} pictures, {int(figures['bytes']):,} bytes, {figures['seconds']:.1f} s: "
            f"{run.info.artifact_uri}/{NAME}"
        )


if __name__ == "__main__":
    main()
