"""Zip the files below an artifact location and log the archive as an artifact.

The location may be anything that MLflow can read: s3://…, mlflow-artifacts:/…, runs:/…, file:… or a plain
path. One file at a time is on this machine's disk, whatever the size of the whole.
"""

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

import mlflow
import mlflow.artifacts
from mlflow.exceptions import MlflowException

CHUNK = 1024 * 1024


def local_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name in the archive, path) of a file, or of every file below a folder."""
    if root.is_file():
        yield root.name, root
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def remote_files(location: str, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name in the archive, downloaded path); the download is gone when the next one is asked for."""

    def walk(folder: str) -> Iterator[str]:
        below = f"{location}/{folder}" if folder else location
        for entry in mlflow.artifacts.list_artifacts(artifact_uri=below) or []:
            # The listing counts from the location's own root: only the last part is surely ours.
            name = str(PurePosixPath(folder) / PurePosixPath(entry.path).name)
            if entry.is_dir:
                yield from walk(name)
            else:
                yield name

    names = list(walk(""))
    for name in names:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            source = f"{location}/{name}"
            path = mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=folder)
            yield name, Path(path)


def write_archive(archive: Path, files: Iterator[tuple[str, Path]]) -> tuple[int, int]:
    """Write a zip file piece by piece; return (number of files, bytes before compression)."""
    count = size = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name, path in files:
            # A fixed date makes the archive of equal files equal.
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            member.file_size = path.stat().st_size
            with path.open("rb") as source, target.open(member, "w") as sink:
                while chunk := source.read(CHUNK):
                    sink.write(chunk)
                    size += len(chunk)
            count += 1
    return count, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", required=True, help="artifact location to zip")
    upstream = parser.parse_args().upstream.rstrip("/")
    parsed = urlparse(upstream)
    with mlflow.start_run(), tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "upstream.zip"
        try:
            if parsed.scheme in ("", "file"):
                path = Path(unquote(parsed.path) if parsed.scheme else upstream)
                if not path.exists():
                    sys.exit(f"upstream {upstream} does not exist.")
                files = local_files(path)
            else:
                files = remote_files(upstream, Path(folder))
            count, size = write_archive(archive, files)
        except (MlflowException, OSError) as error:
            sys.exit(f"upstream {upstream} cannot be read: {error}")
        if count == 0:
            sys.exit(f"upstream {upstream} is empty or missing: there is nothing to zip.")
        zipped = archive.stat().st_size
        mlflow.log_artifact(str(archive), "downstream")
        mlflow.log_metrics({"files": count, "bytes_in": size, "bytes_out": zipped, "ratio": zipped / max(size, 1)})
        print(f"Zipped {count} file(s): {size} bytes became {zipped}.")


if __name__ == "__main__":
    main()
