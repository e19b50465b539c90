"""CIFAR's own file format: pickled batches of 32×32 pictures (https://www.cs.toronto.edu/~kriz/cifar.html).

A pickle can run any code when it is read. These files come from the network or from a user, so the reader here
admits arrays, texts, numbers, lists and mappings, and refuses everything else.
"""

import codecs
import io
import pickle
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from errors import DataError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
MAX_FILE = 512 * 1024 * 1024  # bytes; the largest file of CIFAR has 155 MB


@dataclass(frozen=True)
class Layout:
    """How a folder of batches is arranged.

    :param meta: file with the names of the classes
    :param class_names: key of these names
    :param labels: key of the labels in a batch
    :param train: pattern of the training batches
    :param test: name of the test batch
    """

    meta: str
    class_names: str
    labels: str
    train: str
    test: str


CIFAR10 = Layout("batches.meta", "label_names", "labels", "data_batch_*", "test_batch")
CIFAR100 = Layout("meta", "fine_label_names", "fine_labels", "train", "test")


@dataclass(frozen=True)
class Batch:
    """Pictures with labels.

    :param images: (N, 32, 32, 3), red, green, blue, 0 to 255
    """

    images: np.ndarray
    labels: list[int]
    names: list[str]


class BatchFolder:
    """A folder of batches.

    :raises DataError: it is none
    """

    def __init__(self, folder: Path) -> None:
        for layout in (CIFAR10, CIFAR100):
            if (folder / layout.meta).is_file() and (folder / layout.test).is_file():
                break
        else:
            raise DataError(
                f"{folder} holds no batches of CIFAR: the files batches.meta, data_batch_… and test_batch (or, of "
                "CIFAR-100, meta, train and test) must be in it."
            )
        self.folder, self.layout = folder, layout
        meta = _read(folder / layout.meta)
        self.classes = [_text(name) for name in meta.get(layout.class_names) or ()]
        #: What the batches say they are; CIFAR's own files say nothing.
        self.title = _text(meta.get("data_set") or "")
        if not self.classes:
            raise DataError(f"{folder / layout.meta} names no classes under '{layout.class_names}'.")

    def batches(self, split: str) -> Iterator[Batch]:
        """Yield the batches of "train" or "test", one at a time in memory.

        :raises DataError: one of them is wrong
        """
        pattern = self.layout.train if split == "train" else self.layout.test
        # data_batch_10 comes after data_batch_9.
        files = sorted(self.folder.glob(pattern), key=lambda file: (len(file.name), file.name))
        if not files:
            raise DataError(f"{self.folder} has no file {pattern}.")
        for file in files:
            yield self._batch(file)

    def _batch(self, file: Path) -> Batch:
        content = _read(file)
        data, labels = content.get("data"), content.get(self.layout.labels)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (PIXELS,):
            raise DataError(f"{file}: 'data' must be an array of N rows of {PIXELS} bytes.")
        known = range(len(self.classes))
        if not isinstance(labels, list) or len(labels) != len(data) or not all(label in known for label in labels):
            raise DataError(f"{file}: '{self.layout.labels}' must have a number below {len(known)} for each picture.")
        names = [_text(name) for name in content.get("filenames") or ()]
        images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        return Batch(np.ascontiguousarray(images), labels, names if len(names) == len(labels) else [""] * len(labels))


class BatchWriter:
    """Writes pictures of another origin in the format of CIFAR-10, labelled as what they are.

    :param title: name of the data set
    """

    def __init__(self, folder: Path, title: str, classes: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, 0
        _write(folder / CIFAR10.meta, {"label_names": list(classes), "num_vis": PIXELS, "data_set": title})

    def add(self, split: str, images: np.ndarray, labels: Sequence[int], names: Sequence[str]) -> None:
        """Write one batch; there is one of "test" and there are any number of "train".

        :param images: (N, 32, 32, 3), 0 to 255
        """
        name = CIFAR10.test
        if split == "train":
            self._count += 1
            name = CIFAR10.train.replace("*", str(self._count))
        data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), PIXELS)
        content = {"batch_label": name, "labels": [int(label) for label in labels], "data": data}
        _write(self._folder / name, {**content, "filenames": list(names)})


def unpack(archive: Path, folder: Path) -> None:
    """Take the batches, and nothing else, out of a ``.tar.gz`` as CIFAR's authors publish it.

    :param folder: an empty folder
    :raises DataError: it is no such archive
    """
    expected = {layout.meta for layout in (CIFAR10, CIFAR100)} | {CIFAR100.train, CIFAR100.test, CIFAR10.test}
    try:
        with tarfile.open(archive, "r:*") as content:
            for member in content:
                path = PurePosixPath(member.name)
                wanted = path.name in expected or path.match(CIFAR10.train)
                if not (member.isreg() and len(path.parts) <= 2 and wanted):
                    continue
                if member.size > MAX_FILE:
                    raise DataError(f"{archive}: {member.name} has {member.size:,} bytes, more than any batch.")
                stream = content.extractfile(member)
                assert stream is not None
                # Only the last part of the name counts: nothing lands outside the folder.
                (folder / path.name).write_bytes(stream.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}.") from None


def _write(file: Path, content: dict[str, Any]) -> None:
    with file.open("wb") as stream:
        pickle.dump(content, stream, protocol=2)  # as CIFAR's own


def _read(file: Path) -> dict[str, Any]:
    """Return a file's mapping; its keys are texts, whatever Python wrote them."""
    if file.stat().st_size > MAX_FILE:
        raise DataError(f"{file} has {file.stat().st_size:,} bytes, more than any batch.")
    try:
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{file} {error}") from None
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"{file} cannot be read as a batch of CIFAR: {error}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is no batch of CIFAR: it holds no mapping.")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 pickled with protocol 2."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"holds a text in {encoding!r}, which no batch of CIFAR does.")
    return codecs.encode(text, "latin-1")


def _admitted() -> dict[tuple[str, str], Callable[..., Any]]:
    array = np.empty(0, np.uint8)
    reconstruct = array.__reduce__()[0]
    frombuffer = array.__reduce_ex__(5)[0]
    found: dict[tuple[str, str], Callable[..., Any]] = {("_codecs", "encode"): _encode}
    for package in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
        found[f"{package}.multiarray", "_reconstruct"] = reconstruct
        found[f"{package}.numeric", "_frombuffer"] = frombuffer
    found["numpy", "ndarray"] = np.ndarray
    found["numpy", "dtype"] = np.dtype
    return found


class _Unpickler(pickle.Unpickler):
    _ADMITTED = _admitted()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise DataError(f"asks for {module}.{name} when it is read, which no batch of CIFAR does.") from None
