"""Full-size figures of cifar10 on Fashion-MNIST: ``FULL_SIZE=1 pytest tests/system/test_cifar10_full_size.py``.

Each test writes its figures to build/cifar10-full-size.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cifar10 import PROJECTS, ROOT, project_environment, project_python

pytestmark = pytest.mark.full_size
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FIGURES = ROOT / "build" / "cifar10-full-size.json"

# The same work without MLflow and without care: the IDX files become batches in CIFAR's format (its
# pickle protocol too), the batches become pictures, with one process for each processor.
BARE = """
import gzip, json, multiprocessing, os, pathlib, pickle, sys
import numpy as np
from PIL import Image

source, folder = map(pathlib.Path, sys.argv[1:])

def write(part):
    images, labels, split, first = part
    for index, (image, label) in enumerate(zip(images, labels), start=first):
        Image.fromarray(image).save(f"{folder}/{split}/{label}/{index:05d}.png")

def parts():
    for split, prefix in (("train", "train"), ("test", "t10k")):
        grey = np.frombuffer(gzip.open(source / f"{prefix}-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
        labels = np.frombuffer(gzip.open(source / f"{prefix}-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
        padded = np.pad(grey.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2))).reshape(-1, 1024)
        for label in range(10):
            (folder / split / str(label)).mkdir(parents=True)
        for start in range(0, len(padded), 10_000):
            rows = np.tile(padded[start : start + 10_000], 3)
            batch = folder / f"{split}_{start}"
            batch.write_bytes(pickle.dumps({"data": rows, "labels": labels[start : start + 10_000]}, protocol=2))
            read = pickle.loads(batch.read_bytes())
            images = np.ascontiguousarray(read["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            for first in range(0, len(images), 1000):
                yield images[first : first + 1000], read["labels"][first : first + 1000], split, start + first
        (folder / f"meta_{split}.json").write_text(json.dumps(dict(enumerate(labels.tolist()))))

with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
    for _ in pool.imap(write, parts()):
        pass
"""


def note(**figures: Any) -> None:
    FIGURES.parent.mkdir(exist_ok=True)
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps({**known, **figures}, indent=1))


def measured(argv: list[str], cwd: Path, environment: dict[str, str]) -> tuple[float, int]:
    """Run a command; return its seconds and the largest sum of memory, in bytes, of its processes."""
    import psutil

    started, largest = time.monotonic(), 0
    with subprocess.Popen(argv, cwd=cwd, env=environment) as process:
        tree = psutil.Process(process.pid)
        while process.poll() is None:
            largest = max(largest, memory(tree))
            time.sleep(0.2)
    assert process.returncode == 0
    return time.monotonic() - started, largest


def memory(tree: Any) -> int:
    """Return the memory of a process and its children; what they share is counted once."""
    import psutil

    total = 0
    try:
        for process in [tree, *tree.children(recursive=True)]:
            total += process.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        pass
    return total


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    from mlflow import MlflowClient

    if not DEBIAN.exists():
        pytest.skip("Fashion-MNIST is missing: apt-get install dataset-fashion-mnist")
    folder = tmp_path_factory.mktemp("full-size")
    uri = f"sqlite:///{folder}/mlflow.db"
    MlflowClient(uri).create_experiment("full size", artifact_location=str(folder / "artifacts"))
    return uri


def run(name: str, uri: str, *arguments: str) -> tuple[Any, float, int]:
    """Run a project; return its MLflow run, seconds and bytes of memory."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run_id = client.create_run(client.get_experiment_by_name("full size").experiment_id).info.run_id
    seconds, largest = measured(
        [str(project_python(name)), f"{name}.py", *arguments],
        PROJECTS / name,
        project_environment(uri, {"MLFLOW_RUN_ID": run_id}),
    )
    return client.get_run(run_id), seconds, largest


@pytest.fixture(scope="module")
def pictures(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70,000 pictures of Fashion-MNIST; making them is measured against a bare script, each three times in turn."""
    folder = tmp_path_factory.mktemp("bare")
    python = str(project_python("preprocess"))
    run("preprocess", uri, "--data", "sample")  # what is compiled and cached first counts for neither
    bare, ours, largest = [], [], 0
    for round_ in range(3):
        bare.append(
            measured([python, "-c", BARE, str(DEBIAN), str(folder / str(round_))], folder, dict(os.environ))[0]
        )
        made, seconds, memory_used = run("preprocess", uri, "--data", "fashion-mnist")
        ours.append(made.data.metrics["seconds"])
        largest = max(largest, memory_used)
    note(
        bare_seconds=bare,
        preprocess_seconds=ours,
        preprocess_process_seconds=seconds,
        preprocess_ratio=min(ours) / min(bare),
        preprocess_bytes=largest,
    )
    assert made.data.metrics["images"] == 70_000
    return Path(made.info.artifact_uri) / "downstream_directory"


@pytest.mark.timeout(3600)
def test_preprocess_needs_less_than_2_gb(pictures: Path) -> None:
    assert json.loads(FIGURES.read_text())["preprocess_bytes"] < 2e9


@pytest.mark.timeout(3600)
def test_simple_learns_fashion_mnist(uri: str, pictures: Path) -> None:
    arguments = ("--upstream", str(pictures), "--model_type", "simple", "--epochs", "3")
    trained, seconds, largest = run("train", uri, *arguments)
    note(simple_metrics=trained.data.metrics, simple_seconds=seconds, simple_bytes=largest)
    assert trained.data.metrics["accuracy"] >= 0.85


@pytest.mark.timeout(3600)
def test_vgg11_learns_from_2000_pictures(uri: str, pictures: Path, tmp_path: Path) -> None:
    for split, count in (("train", 2000), ("test", 1000)):
        meta = dict(list(json.loads((pictures / f"meta_{split}.json").read_text()).items())[:count])
        for name, label in meta.items():
            (tmp_path / split / str(label)).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / str(label) / name).hardlink_to(pictures / split / str(label) / name)
        (tmp_path / f"meta_{split}.json").write_text(json.dumps(meta))
    (tmp_path / "classes.json").write_bytes((pictures / "classes.json").read_bytes())
    trained, seconds, largest = run("train", uri, "--upstream", str(tmp_path), "--epochs", "2")
    note(vgg11_metrics=trained.data.metrics, vgg11_seconds=seconds, vgg11_bytes=largest)
    assert trained.data.metrics["accuracy"] >= 0.40
