"""Put a trained ONNX model and its server into a container image, or pack both to run as a process.

The artifact ``downstream_directory/server.json`` tells the next step what there is to start: ``kind`` is ``image``
or ``process``. The same is in the run's tags (``server_kind``, ``server_reason``, ``image_name``, ``image_id``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import onnxruntime
from grpc_tools import protoc

import image

HERE = Path(__file__).resolve().parent
REPOSITORY = "mlflow-projects/cifar10"
PORTS = {"grpc": 50051, "http": 8001}
DESCRIPTION = ("classes", "mean", "std", "shape", "input", "output", "model_type")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model_directory", required=True, help="artifact URI or folder with model.json, from train")
    parser.add_argument(
        "--model_filename", default="", help="the .onnx file in it; default: the one model.json names"
    )
    parser.add_argument("--dockerfile_path", default="Dockerfile", help="relative to this project")
    parser.add_argument("--entrypoint_path", default="server/entrypoint.sh", help="relative to this project")
    parser.add_argument("--dockerimage", default="", help="name:tag of the image; default: one per experiment")
    parser.add_argument("--mode", default="auto", choices=["auto", "image", "process"],
                        help="auto: an image where an engine has or gets the base image, else a process")  # fmt: skip
    parser.add_argument("--base_image", default="python:3.11-slim-bookworm", help="image that has python3 with venv")
    arguments = parser.parse_args()
    for name in ("dockerfile_path", "entrypoint_path"):
        path = HERE / getattr(arguments, name)
        if not path.is_file():
            parser.error(f"--{name}: there is no file {path}")
        setattr(arguments, name, path)
    return arguments


def fetch(uri: str, folder: Path) -> Path:
    """Return where an artifact lies on this machine: in place if it is local, else downloaded into a folder."""
    local = urlparse(uri).scheme in ("", "file")
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=None if local else str(folder)))


def fetch_model(directory: str, filename: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """Return train's description of the model, and the .onnx file.

    :raises SystemExit: the file is not what model.json describes
    """
    directory = directory.rstrip("/")
    about = json.loads(fetch(f"{directory}/model.json", folder).read_text(encoding="utf-8"))
    file = fetch(f"{directory}/{filename or about['onnx']}", folder)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in (*session.get_inputs(), *session.get_outputs())]
    if names != [about["input"], about["output"]]:
        sys.exit(f"{file.name} has the inputs and outputs {names}, but model.json of {directory} names "
                 f"{about['input']!r} and {about['output']!r}.")  # fmt: skip
    return about, file


def pack(model: Path, entrypoint: Path, folder: Path) -> None:
    """Fill a folder with all that the server needs but its packages."""
    folder.mkdir()
    for name in ("server.py", "prediction.proto", "requirements.txt"):
        shutil.copy(HERE / "server" / name, folder)
    shutil.copy(model, folder / "model.onnx")
    shutil.copy(entrypoint, folder / "entrypoint.sh")
    (folder / "entrypoint.sh").chmod(0o755)
    options = [f"--proto_path={folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *options, "prediction.proto"]):
        sys.exit("prediction.proto cannot be compiled; protoc's message is above.")


def build(arguments: argparse.Namespace, name: str, run_id: str, server: Path) -> tuple[dict[str, str], str]:
    """Build the image as far as ``--mode`` wants one; return it, or {} and the reason why there is none."""
    if arguments.mode == "process":
        return {}, "mode is process"
    try:
        with image.engine() as (client, address):
            image.require(client, arguments.base_image)
            settings = {"BASE_IMAGE": arguments.base_image, "RUN_ID": run_id}
            built = image.build(client, arguments.dockerfile_path, server, name, settings)
            return {**built, "engine": address}, ""
    except image.UnavailableError as error:
        if arguments.mode == "image":
            sys.exit(f"{error} Start an engine or name another --base_image, or take --mode process.")
        return {}, str(error)


def main() -> None:
    arguments = parse_arguments()
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as temporary:
        downstream, server = Path(temporary) / "downstream_directory", Path(temporary) / "server"
        about, model = fetch_model(arguments.model_directory, arguments.model_filename, Path(temporary))
        pack(model, arguments.entrypoint_path, server)
        name = arguments.dockerimage or f"{REPOSITORY}:training_pattern_cifar10_evaluate_{run.info.experiment_id}"
        built, reason = build(arguments, name, run.info.run_id, server)
        kind = "image" if built else "process"
        # With an image, the rest is in there.
        left_out = (lambda _, names: {*names} - {"prediction.proto"}) if built else None
        shutil.copytree(server, downstream / "server", ignore=left_out)
        record = {
            "kind": kind,
            "reason": reason,
            "image": built or None,
            "files": sorted(f"server/{file.name}" for file in (downstream / "server").iterdir()),
            "ports": PORTS,
            "model": {key: about[key] for key in DESCRIPTION}
            | {"file": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
            "run_id": run.info.run_id,
        }
        (downstream / "server.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        mlflow.log_artifacts(str(downstream), "downstream_directory")
        mlflow.set_tags(
            {"server_kind": kind, "server_reason": reason}
            | ({"image_name": built["name"], "image_id": built["id"]} if built else {})
        )
        mlflow.log_metric("model_bytes", model.stat().st_size)
        packed = f"Packed the server to run as a process: {reason.rstrip('.')}."
        print(f"Built the image {built['name']} ({built['id']})." if built else packed)


if __name__ == "__main__":
    main()
