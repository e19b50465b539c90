"""CIFAR's format: what Python 2 pickled is read, what a stranger pickled does no harm, all data sets look alike."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.cifar10 import import_from

data_sets = import_from("preprocess", "data_sets")
BatchFolder, DataError = data_sets.BatchFolder, data_sets.DataError
sample, fashion_mnist = import_from("preprocess", "sample"), import_from("preprocess", "fashion_mnist")
RANDOM = np.random.default_rng(1)


def cifar10(folder: Path, batches: int = 2, **changes: Any) -> Path:
    """Write small batches as CIFAR-10's own: keys are bytes, protocol 2."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [b"airplane", b"automobile", b"bird"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names, b"num_vis": 3072}, 2))
    for name in [*(f"data_batch_{number + 1}" for number in range(batches)), "test_batch"]:
        content = {
            b"batch_label": name.encode(),
            b"labels": [0, 1, 2, 1],
            b"data": RANDOM.integers(0, 256, (4, 3072), np.uint8),
            b"filenames": [b"a_s_000001.png"] * 4,
            **{key.encode(): value for key, value in changes.items()},
        }
        (folder / name).write_bytes(pickle.dumps(content, 2))
    return folder


def archived(folder: Path, archive: Path, prefix: str = "cifar-10-batches-py") -> Path:
    with tarfile.open(archive, "w:gz") as target:
        for file in folder.iterdir():
            target.add(file, f"{prefix}/{file.name}")
    return archive


def test_batches_of_cifar10_are_read_from_a_folder_and_from_the_archive(tmp_path: Path) -> None:
    folder = cifar10(tmp_path / "batches", batches=11)
    (tmp_path / "scratch").mkdir()
    archive = archived(folder, tmp_path / "cifar.tar.gz")
    for data in (folder, archive):
        found = data_sets.open_data_set(str(data), tmp_path / "scratch", tmp_path)
        assert found.batches.classes == ["airplane", "automobile", "bird"]
        assert (found.title, found.origin) == ("batches in CIFAR's format, 3 classes", str(data))
        train = list(found.batches.batches("train"))
        assert len(train) == 11
        first = pickle.loads((folder / "data_batch_2").read_bytes())
        assert np.array_equal(train[1].images[3, :, :, 2].ravel(), first[b"data"][3, 2048:])
        assert (train[1].labels, train[1].names[0]) == ([0, 1, 2, 1], "a_s_000001.png")


def test_batches_that_python_2_pickled_are_read(tmp_path: Path) -> None:
    cifar10(tmp_path)
    # {"label_names": ["cat"]} as Python 2 writes it: texts are byte strings without an encoding.
    (tmp_path / "batches.meta").write_bytes(
        b"\x80\x02}q\x01U\x0blabel_namesq\x02]q\x03(U\x03catq\x04U\x03dogU\x03elkes."
    )
    assert BatchFolder(tmp_path).classes == ["cat", "dog", "elk"]


def test_cifar100_has_its_own_files_and_its_fine_labels(tmp_path: Path) -> None:
    names = [f"class {number}".encode() for number in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": names, b"coarse_label_names": [b"x"]}, 2))
    for split in ("train", "test"):
        content = {b"fine_labels": [99, 5], b"coarse_labels": [0, 0], b"data": np.zeros((2, 3072), np.uint8)}
        (tmp_path / split).write_bytes(pickle.dumps(content, 2))
    found = BatchFolder(tmp_path)
    assert len(found.classes) == 100
    assert [batch.labels for batch in found.batches("train")] == [[99, 5]]


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    cifar10(tmp_path / "batches", more=Harmful(tmp_path / "harm"))
    with pytest.raises(DataError, match=r"test_batch asks for posix\.mkdir when it is read"):
        list(BatchFolder(tmp_path / "batches").batches("test"))
    assert not (tmp_path / "harm").exists()


def test_an_archive_writes_nothing_but_batches(tmp_path: Path) -> None:
    folder = cifar10(tmp_path / "batches")
    with tarfile.open(tmp_path / "cifar.tar", "w") as target:
        for file in folder.iterdir():
            target.add(file, f"../{file.name}")
        target.add(folder / "test_batch", "evil.py")
        link = tarfile.TarInfo("x/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        target.addfile(link)
    (tmp_path / "deep" / "scratch").mkdir(parents=True)
    data_sets.unpack(tmp_path / "cifar.tar", tmp_path / "deep" / "scratch")
    assert {path.name for path in tmp_path.iterdir()} == {"batches", "cifar.tar", "deep"}
    found = {path.name: path.read_bytes() for path in (tmp_path / "deep" / "scratch").iterdir()}
    assert found == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": [0, 1, 2, 3]}, "'labels' must have a number below 3"),
        ({"labels": [0]}, "'labels' must have a number below 3"),
        ({"data": np.zeros((4, 100), np.uint8)}, "'data' must be an array"),
        ({"data": "pixels"}, "'data' must be an array"),
    ],
)
def test_a_wrong_batch_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}/test_batch: {words}"):
        list(BatchFolder(cifar10(tmp_path, **changes)).batches("test"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("cifar11", "There is no data set 'cifar11'"),
        ("{tmp}", "holds no batches of CIFAR"),
        ("{tmp}/file", "cannot be unpacked"),
        ("fashion-mnist:{tmp}", "Fashion-MNIST is not on this machine: {tmp}/train-images"),
    ],
)
def test_a_data_set_that_is_not_there_is_one_sentence(data: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "scratch").mkdir()
    with pytest.raises(DataError, match=words.format(tmp=tmp_path)):
        data_sets.open_data_set(data.format(tmp=tmp_path), tmp_path / "scratch", tmp_path)


def test_fashion_mnist_is_padded_and_says_what_it_is(tmp_path: Path) -> None:
    pictures = RANDOM.integers(0, 256, (5, 28, 28), np.uint8)
    for prefix in ("train", "t10k"):
        header = struct.pack(">4I", 0x803, 5, 28, 28)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pictures.tobytes()))
        header = struct.pack(">2I", 0x801, 5)
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + bytes([9, 0, 4, 1, 1])))
    (tmp_path / "scratch").mkdir()
    found = data_sets.open_data_set(f"fashion-mnist:{tmp_path}", tmp_path / "scratch", tmp_path)
    assert (found.title, found.batches.classes[9]) == ("Fashion-MNIST", "Ankle boot")
    (batch,) = found.batches.batches("train")
    assert np.array_equal(batch.images[:, 2:30, 2:30, 0], pictures)
    assert (batch.images == batch.images[..., :1]).all()
    assert batch.images.sum() == 3 * pictures.sum(dtype=int)
    # Whoever is given these batches is told as well that they are no CIFAR-10.
    assert data_sets.open_data_set(str(tmp_path / "scratch"), tmp_path, tmp_path).title == "Fashion-MNIST"


def test_the_sample_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        sample.write_sample(tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    found = BatchFolder(tmp_path / "one")
    (train,), (test,) = found.batches("train"), found.batches("test")
    assert np.bincount(train.labels).tolist() == [80] * 10
    assert np.bincount(test.labels).tolist() == [20] * 10
    assert len(set(found.classes)) == 10
