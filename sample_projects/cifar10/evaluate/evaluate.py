"""Start the server that building left, send it every test image, and record how good and how quick it is.

Every image is sent twice over gRPC: in batches, which gives the predictions, and one by one, which gives the times.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import servers
from client import Client

BATCH = 256  # images of one request; 3 MiB


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--upstream", required=True, help="artifact URI or folder with server.json, from building")
    parser.add_argument("--downstream", default="", help="folder for the results, which are artifacts anyway")
    parser.add_argument("--test_data_directory", required=True, help="artifact URI or folder with <label>/<file>.png")
    parser.add_argument("--dockerimage", default="", help="image to run; default: the one that building made")
    parser.add_argument("--container_name", default="", help="default: one per run")
    parser.add_argument("--ready_seconds", type=float, default=120, help="longest wait for the server")
    return parser.parse_args()


def fetch(uri: str, folder: Path) -> Path:
    """Return where an artifact lies on this machine: in place if it is local, else downloaded into a folder."""
    local = urlparse(uri).scheme in ("", "file")
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=None if local else str(folder)))


def read_images(folder: Path, classes: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names (label/file), pixels (uint8, (N, 3, 32, 32)) and labels of a folder of pictures.

    :param folder: ``<label>/<file>.png``, or a folder with that as ``test/``
    :param classes: the number of labels that the model knows
    :raises SystemExit: there is no picture, or one that the model was not made for
    """
    if (folder / "test").is_dir():
        folder = folder / "test"
    files = sorted(folder.glob("*/*.png"))
    if not files:
        sys.exit(f"--test_data_directory: there is no <label>/<file>.png in {folder}.")
    names = [file.relative_to(folder).as_posix() for file in files]
    labels = [file.parent.name for file in files]
    if wrong := sorted({label for label in labels if not label.isdigit() or int(label) >= classes}):
        sys.exit(f"--test_data_directory: the label {wrong[0]!r} is none of the {classes} classes of the model.")
    pixels = np.empty((len(files), 3, 32, 32), np.uint8)
    for index, file in enumerate(files):
        with Image.open(file) as picture:
            if picture.size != (32, 32):
                sys.exit(f"{file} has {picture.width}x{picture.height} pixels; the model takes 32x32.")
            pixels[index] = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    return names, pixels, np.array([int(label) for label in labels])


def normalised(pixels: np.ndarray, model: dict[str, Any]) -> np.ndarray:
    """Return pixels as the model was trained on them: divided by 255, less the training set's mean, by its spread."""
    mean = np.array(model["mean"], np.float32).reshape(1, -1, 1, 1)
    spread = np.array(model["std"], np.float32).reshape(1, -1, 1, 1)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / spread


def send_in_batches(client: Client, pixels: np.ndarray, model: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Return the logits of all images, and the seconds that the requests took."""
    logits, seconds = [], 0.0
    for first in range(0, len(pixels), BATCH):
        images = normalised(pixels[first : first + BATCH], model)
        start = time.perf_counter()
        logits.append(client.predict(images, model["input"], model["output"]))
        seconds += time.perf_counter() - start
    return np.concatenate(logits), seconds


def send_one_by_one(client: Client, pixels: np.ndarray, model: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of all images, and the seconds of each request."""
    logits, seconds = [], np.empty(len(pixels))
    for index in range(len(pixels)):
        image = normalised(pixels[index : index + 1], model)
        start = time.perf_counter()
        logits.append(client.predict(image, model["input"], model["output"]))
        seconds[index] = time.perf_counter() - start
        if (index + 1) % 1000 == 0:
            print(f"{index + 1} of {len(pixels)} images one by one", flush=True)
    return np.concatenate(logits), seconds


def check_http(client: Client, pixels: np.ndarray, model: dict[str, Any], expected: np.ndarray) -> None:
    """Send one image over HTTP.

    :raises SystemExit: the answer is not the one that gRPC gave
    """
    found = client.predict_over_http(normalised(pixels[:1], model), model["input"], model["output"])
    if not np.array_equal(found, expected[:1]):
        sys.exit(f"The server answers {found.tolist()} over HTTP, but {expected[:1].tolist()} over gRPC.")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> Figure:
    """Draw how often each label (row) got each prediction (column)."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    colours = axes.imshow(counts, cmap="Blues")
    axes.set(title=f"{len(labels)} test images", xlabel="predicted", ylabel="label")
    if len(classes) <= 20:  # more names are not legible
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(counts):
            dark = count > counts.max() / 2
            axes.text(column, row, count, ha="center", va="center", color="white" if dark else "black", fontsize=8)
    figure.colorbar(colours)
    return figure


def start(arguments: argparse.Namespace, record: dict[str, Any], run: Any, folder: Path) -> AbstractContextManager:
    """Return the server to start, as ``server.json`` or ``--dockerimage`` say."""
    if not (arguments.dockerimage or record["kind"] == "image"):
        packed = fetch(f"{arguments.upstream.rstrip('/')}/server", folder)
        return servers.process(packed)
    built = record["image"] or {}
    name = arguments.container_name or (
        f"training_pattern_cifar10_evaluate_{run.info.experiment_id}_{run.info.run_id[:12]}"
    )
    image = arguments.dockerimage or built["id"]
    return servers.container(image, name, run.info.run_id, record["ports"], built.get("engine"))


def evaluate(client: Client, names: list[str], pixels: np.ndarray, labels: np.ndarray, model: dict[str, Any]) -> dict:
    """Return the metrics, and each image's label, prediction and probabilities."""
    logits, batch_seconds = send_in_batches(client, pixels, model)
    single_logits, seconds = send_one_by_one(client, pixels, model)
    check_http(client, pixels, model, single_logits)
    predicted = logits.argmax(axis=1)
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
    metrics = {
        "total_tested": len(names),
        "total_time": float(seconds.sum()),
        "accuracy": int((predicted == labels).sum()) / len(names),
        "average_duration_second": float(seconds.mean()),
        "latency_p50_ms": float(p50),
        "latency_p95_ms": float(p95),
        "latency_p99_ms": float(p99),
        "batch_images_per_second": len(names) / batch_seconds,
        "largest_difference_of_batches": float(np.abs(logits - single_logits).max()),
    }
    answers = zip(names, labels, predicted, softmax(logits), strict=True)
    return {
        "evaluation": metrics,
        "predictions": {
            name: {"label": int(label), "prediction": int(found), "probabilities": [round(float(p), 6) for p in each]}
            for name, label, found, each in answers
        },
    }


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped by SIGTERM."))  # so that the server is taken down
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        upstream = arguments.upstream.rstrip("/")
        record = json.loads(fetch(f"{upstream}/server.json", folder).read_text(encoding="utf-8"))
        model = record["model"]
        names, pixels, labels = read_images(fetch(arguments.test_data_directory, folder), len(model["classes"]))
        proto = fetch(f"{upstream}/server/prediction.proto", folder)
        mlflow.set_tag("server_kind", "image" if arguments.dockerimage else record["kind"])
        begin = time.perf_counter()
        with start(arguments, record, run, folder) as server:
            client = servers.wait_until_ready(server, proto, arguments.ready_seconds)
            ready = time.perf_counter() - begin
            print(f"The server is ready after {ready:.1f} s; sending {len(names)} images.", flush=True)
            try:
                result = evaluate(client, names, pixels, labels, model)
            finally:
                client.close()
        result["evaluation"]["startup_seconds"] = ready
        downstream = Path(arguments.downstream or folder) / run.info.run_id
        downstream.mkdir(parents=True, exist_ok=True)
        (downstream / "predictions.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        predicted = np.array([answer["prediction"] for answer in result["predictions"].values()])
        confusion(labels, predicted, model["classes"]).savefig(downstream / "confusion_matrix.png")
        for file in ("predictions.json", "confusion_matrix.png"):
            mlflow.log_artifact(os.fspath(downstream / file), "downstream_directory")
        mlflow.log_metrics(result["evaluation"])
        print(f"Accuracy {result['evaluation']['accuracy']:.4f} on {len(names)} images.", flush=True)


if __name__ == "__main__":
    main()
