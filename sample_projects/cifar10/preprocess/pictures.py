"""From batches to PNG files, with all processors."""

import json
import os
import re
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from batches import BatchFolder

CHUNK = 1000  # pictures: about 3 MB go to a process at a time
AHEAD = 10  # chunks that wait for a process while the next batch is read
SPLITS = ("train", "test")


def write_pictures(batches: BatchFolder, folder: Path) -> dict[str, int]:
    """Write ``{train,test}/<label>/<file>.png``, classes.json, meta_train.json and meta_test.json.

    :return: numbers of pictures (train_images, test_images) and the size of all files (bytes)
    """
    found = {}
    size = 0
    pending: deque[Future[int]] = deque()
    # fork: a process that starts afresh would import mlflow again, which takes longer than the work.
    with ProcessPoolExecutor(processors(), mp_context=get_context("fork")) as pool:
        for split in SPLITS:
            for label in range(len(batches.classes)):
                (folder / split / str(label)).mkdir(parents=True)
            meta: dict[str, int] = {}
            for batch in batches.batches(split):
                names = [file_name(len(meta) + index, name) for index, name in enumerate(batch.names)]
                paths = [f"{folder}/{split}/{label}/{name}" for label, name in zip(batch.labels, names, strict=True)]
                for start in range(0, len(paths), CHUNK):
                    chunk = slice(start, start + CHUNK)
                    pending.append(pool.submit(_write, batch.images[chunk], paths[chunk]))
                    while len(pending) > AHEAD:
                        size += pending.popleft().result()
                meta.update(zip(names, batch.labels, strict=True))
                print(f"{split}: {len(meta):,} pictures so far")
            found[f"{split}_images"] = len(meta)
            size += _write_json(folder / f"meta_{split}.json", meta)
        size += sum(future.result() for future in pending)
    size += _write_json(folder / "classes.json", batches.classes)
    return {**found, "bytes": size}


def file_name(index: int, name: str) -> str:
    """Return a name that no other picture of the split has, and that is safe in any store.

    :param name: in the batch; may be empty
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name.rpartition(".")[0] or name)
    return f"{index:05d}_{stem}.png" if stem else f"{index:05d}.png"


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _write(images: np.ndarray, paths: list[str]) -> int:
    size = 0
    for image, path in zip(images, paths, strict=True):
        with open(path, "wb") as stream:  # noqa: PTH123 - 70,000 Path objects cost a second
            Image.fromarray(image).save(stream, "PNG")
            size += stream.tell()
    return size


def _write_json(file: Path, content: object) -> int:
    return file.write_bytes(json.dumps(content, ensure_ascii=False, indent=1).encode())
