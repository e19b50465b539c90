"""Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist) as batches in the format of CIFAR-10."""

import gzip
from pathlib import Path

import numpy as np

from batches import SIDE, BatchWriter
from errors import DataError

TITLE = "Fashion-MNIST"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)  # fmt: skip
BATCH = 10_000
_FILES = {"train": "train", "test": "t10k"}


def write_fashion_mnist(source: Path, folder: Path) -> None:
    """Pad the grey 28×28 pictures to 32×32 with black, and write them with three equal channels.

    :param source: folder of the four ``…-ubyte.gz`` files
    :raises DataError: they are not there, or damaged
    """
    writer = BatchWriter(folder, TITLE, CLASSES)
    for split, prefix in _FILES.items():
        pictures = _read(source / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
        labels = _read(source / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
        if pictures.shape[1:] != (28, 28) or len(pictures) != len(labels) or labels.max(initial=0) >= len(CLASSES):
            raise DataError(f"The files {prefix}-… in {source} are not those of Fashion-MNIST.")
        margin = (SIDE - 28) // 2
        for start in range(0, len(pictures), BATCH):
            grey = np.pad(pictures[start : start + BATCH], ((0, 0), (margin, margin), (margin, margin)))
            names = [f"fashion_mnist_{split}_{start + index:05d}.png" for index in range(len(grey))]
            images = np.broadcast_to(grey[..., None], (*grey.shape, 3))
            writer.add(split, images, labels[start : start + BATCH].tolist(), names)


def _read(file: Path, dimensions: int) -> np.ndarray:
    """Return an IDX file's bytes as an array (https://github.com/zalandoresearch/fashion-mnist#get-the-data)."""
    try:
        with gzip.open(file) as stream:
            content = stream.read()
    except FileNotFoundError:
        hint = "install Debian's package dataset-fashion-mnist, or pass data=fashion-mnist:/folder/of/the/files"
        raise DataError(f"Fashion-MNIST is not on this machine: {file} does not exist; {hint}.") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from None
    header = np.frombuffer(content[: 4 * (dimensions + 1)], ">u4")
    if len(header) <= dimensions or header[0] != 0x0800 + dimensions:
        raise DataError(f"{file} is no IDX file of bytes with {dimensions} dimension(s).")
    shape = tuple(int(size) for size in header[1:])
    data = np.frombuffer(content, np.uint8, offset=header.nbytes)
    if data.size != np.prod(shape):
        raise DataError(f"{file} is cut off: it has {data.size:,} bytes of {np.prod(shape):,}.")
    return data.reshape(shape)
