"""From the value of the parameter ``data`` to a folder of batches."""

import os
from dataclasses import dataclass
from pathlib import Path

from batches import BatchFolder, unpack
from download import download
from errors import DataError
from fashion_mnist import DEBIAN, write_fashion_mnist
from sample import write_sample

_AUTHORS = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True)
class Published:
    """An archive that CIFAR's authors publish.

    :param md5: as the authors' page tells it
    """

    title: str
    url: str
    md5: str


PUBLISHED = {
    "cifar10": Published("CIFAR-10", f"{_AUTHORS}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": Published("CIFAR-100", f"{_AUTHORS}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
}


@dataclass(frozen=True)
class DataSet:
    """Batches, and what they truly are.

    :param title: name of the data set
    :param origin: where it comes from
    """

    title: str
    origin: str
    batches: BatchFolder


def open_data_set(data: str, scratch: Path, downloads: Path) -> DataSet:
    """Bring a data set here.

    :param data: cifar10, cifar100, fashion-mnist, fashion-mnist:FOLDER, sample, or the path of CIFAR's batches
        (a folder, or an archive as the authors publish it)
    :param scratch: an empty folder for what is needed only now
    :param downloads: folder that keeps what was downloaded
    :raises DataError: it cannot be had
    """
    if published := PUBLISHED.get(data):
        archive = downloads / published.url.rpartition("/")[2]
        download(published.url, archive, published.md5)
        unpack(archive, scratch)
        return DataSet(published.title, published.url, BatchFolder(scratch))
    if data == "sample":
        write_sample(scratch)
        return _own(scratch, "drawn by this project")
    name, _, folder = data.partition(":")
    if name == "fashion-mnist":
        source = Path(folder) if folder else DEBIAN
        print(f"Reading Fashion-MNIST from {source}.")
        write_fashion_mnist(source, scratch)
        return _own(scratch, str(source))
    path = Path(data)
    if path.is_file():
        unpack(path, scratch)
        return _unknown(scratch, path)
    if path.is_dir():
        return _unknown(path, path)
    names = ", ".join([*PUBLISHED, "fashion-mnist", "sample"])
    raise DataError(f"There is no data set {data!r}; 'data' must be one of {names}, or the path of CIFAR's batches.")


def download_folder() -> Path:
    """Return the folder that keeps downloads for later runs on this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlflow-projects" / "cifar10"


def _own(folder: Path, origin: str) -> DataSet:
    batches = BatchFolder(folder)
    return DataSet(batches.title, origin, batches)


def _unknown(folder: Path, origin: Path) -> DataSet:
    batches = BatchFolder(folder)
    title = batches.title or f"batches in CIFAR's format, {len(batches.classes)} classes"
    return DataSet(title, str(origin), batches)
