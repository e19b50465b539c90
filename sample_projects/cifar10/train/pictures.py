"""The pictures that preprocess wrote, in memory: 3 KB each, so that CIFAR-10 needs 185 MB."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import mlflow.artifacts
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from errors import TrainingError

SHAPE = (3, 32, 32)
CHUNK = 1000  # pictures that a process decodes at a time


@dataclass(frozen=True)
class Split:
    """Pictures and labels.

    :param images: (N, 3, 32, 32), 0 to 255
    :param labels: (N,)
    """

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """What preprocess made, decoded.

    :param classes: names, in the order of the labels
    :param fingerprint: of all pictures and labels
    """

    classes: list[str]
    train: Split
    test: Split
    fingerprint: str

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the training pictures, as parts of 255."""
        histogram = [np.bincount(self.train.images[:, channel].ravel(), minlength=256) for channel in range(3)]
        values = np.arange(256) / 255
        means = [float(np.average(values, weights=counts)) for counts in histogram]
        variances = [
            float(np.average((values - mean) ** 2, weights=counts))
            for mean, counts in zip(means, histogram, strict=True)
        ]
        # Rounded: the numbers in model.json are the very ones that were used.
        return [round(mean, 6) for mean in means], [max(round(variance**0.5, 6), 1e-3) for variance in variances]


class NormalisedBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Yields a whole batch for a list of indices: float32 (N, 3, 32, 32) and labels (N,)."""

    def __init__(self, split: Split, mean: list[float], std: list[float]) -> None:
        self._split = split
        self._mean, self._std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitem__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        images = normalise(self._split.images[indices], self._mean, self._std)
        return torch.from_numpy(images), torch.from_numpy(self._split.labels[indices])


def normalise(images: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return what the network takes, as float32.

    :param images: (N, 3, 32, 32), 0 to 255
    :param mean: (3, 1, 1), float32
    :param std: (3, 1, 1), float32
    """
    return (images.astype(np.float32) / np.float32(255) - mean) / std


def loader(
    batches: NormalisedBatches, batch_size: int, workers: int, shuffle: torch.Generator | None = None
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return the batches of an epoch.

    :param workers: processes that make batches; 0: this one
    :param shuffle: decides the order; without it the order is that of the files
    """
    sampler = RandomSampler(batches, generator=shuffle) if shuffle else SequentialSampler(batches)
    return DataLoader(
        batches,
        sampler=BatchSampler(sampler, batch_size, drop_last=False),
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # Draws the seed of the workers, which use no chance: it must not change the state that a checkpoint keeps.
        generator=torch.Generator(),
    )


def local_copy(upstream: str, folder: Path) -> Path:
    """Return the folder of an artifact URI, where it is if that is on this machine.

    :raises TrainingError: it is not there
    """
    parsed = urlparse(upstream)
    if parsed.scheme in ("", "file"):
        path = Path(unquote(parsed.path) if parsed.scheme else upstream)
        if not path.is_dir():
            raise TrainingError(f"upstream {upstream} is not a folder; it must be what preprocess made.")
        return path
    print(f"Copying {upstream}")
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=upstream, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise TrainingError(f"upstream {upstream} cannot be read: {error}") from error


def read_pictures(folder: Path, processes: int) -> Pictures:
    """Decode all pictures.

    :param processes: how many decode at a time
    :raises TrainingError: a file is missing or is no picture of the right size
    """
    classes = _json(folder / "classes.json")
    if not isinstance(classes, list) or not classes:
        raise TrainingError(f"{folder / 'classes.json'} must be a list of the classes' names.")
    # fork, and before torch starts threads: a fresh process would import torch and mlflow again.
    with ProcessPoolExecutor(max(processes, 1), mp_context=get_context("fork")) as pool:
        train, test = (_read_split(folder, name, len(classes), pool) for name in ("train", "test"))
    digest = hashlib.sha256(json.dumps(classes).encode())
    for split in (train, test):
        digest.update(split.images)
        digest.update(split.labels)
    return Pictures([str(name) for name in classes], train, test, digest.hexdigest())


def _read_split(folder: Path, name: str, classes: int, pool: ProcessPoolExecutor) -> Split:
    file = folder / f"meta_{name}.json"
    meta = _json(file)
    known = range(classes)
    if not isinstance(meta, dict) or not meta or not all(label in known for label in meta.values()):
        raise TrainingError(f"{file} must give each picture a label below {classes}, and name at least one.")
    paths = [f"{folder}/{name}/{label}/{picture}" for picture, label in meta.items()]
    images = np.empty((len(paths), *SHAPE), np.uint8)
    starts = range(0, len(paths), CHUNK)
    for start, part in zip(starts, pool.map(_decode, _chunks(paths)), strict=True):
        images[start : start + len(part)] = part
    print(f"{name}: {len(paths):,} pictures read")
    return Split(images, np.fromiter(meta.values(), np.int64, len(meta)))


def _chunks(paths: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(paths), CHUNK):
        yield paths[start : start + CHUNK]


def _decode(paths: list[str]) -> np.ndarray:
    images = np.empty((len(paths), *SHAPE), np.uint8)
    for index, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                images[index] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} is not a picture of 32×32: {error}") from None
    return images


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"{file} is missing: upstream must be what preprocess made.") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read: {error}") from None
