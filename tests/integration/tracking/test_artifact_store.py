"""What a real S3 server's refusals become: one sentence, or silence where the store is not the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlflow_projects.tracking.artifact_store import explain_failure
from mlflow_projects.tracking.client import Run
from mlflow_projects.tracking.connect import connect
from mlflow_projects.tracking.server import TrackingSettings
from tests.support.object_store import ObjectStore, running_object_store
from tests.support.servers import free_port

REFUSED_WRITE = (
    "boto3.exceptions.S3UploadFailedError: Failed to upload /tmp/a.txt to kept/runs/1/a.txt: An error occurred "
    "(AccessDenied) when calling the PutObject operation: Access Denied."
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with running_object_store(tmp_path_factory.mktemp("s3"), ["kept"]) as running:
        yield running


def explained(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, uri: str, output: str = "", **changes: str) -> str:
    for name, value in {**store.environment, "AWS_EC2_METADATA_DISABLED": "true", **changes}.items():
        monkeypatch.setenv(name, value)
    client = connect(TrackingSettings(uri="http://127.0.0.1:9"))  # is not asked about artifacts direct in S3
    return explain_failure(client, Run("r", "1", "step", "RUNNING", uri), output)


@pytest.mark.parametrize(
    ("uri", "output", "changes", "words"),
    [
        ("s3://lost/runs", "", {}, "s3://lost cannot be used: the bucket 'lost' does not exist; create it"),
        (
            "s3://kept/runs",
            "",
            {"AWS_ACCESS_KEY_ID": "x"},
            "refuses the access key, it does not know it",
        ),
        (
            "s3://kept/runs",
            "",
            {"AWS_SECRET_ACCESS_KEY": "x"},
            "refuses the secret key, it does not fit",
        ),
        (
            "s3://kept/runs",
            "",
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"},
            "cannot be used: Unable to locate credentials.",
        ),
        (
            "s3://kept/runs",
            "",
            {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"},
            "cannot be used: Could not connect to the endpoint URL",
        ),
        (
            "s3://kept/runs",
            REFUSED_WRITE,
            {},
            "S3 does not let the access key write to the bucket ",
        ),
    ],
    ids=["missing bucket", "unknown key", "wrong secret", "no key", "server away", "may only read"],
)
def test_a_refusal_is_one_sentence(
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    output: str,
    changes: dict[str, str],
    words: str,
) -> None:
    sentence = explained(store, monkeypatch, uri, output, **changes)
    assert sentence.startswith("Its artifact store s3://")
    assert words in sentence
    assert store.environment["AWS_SECRET_ACCESS_KEY"] not in sentence


@pytest.mark.parametrize(
    ("uri", "output"),
    [
        ("s3://kept/runs", "ValueError: the model does not converge"),
        ("s3://kept/runs", REFUSED_WRITE.replace("to kept/", "to a-bucket-of-the-project/")),
        ("file:///tmp/mlruns", REFUSED_WRITE),
    ],
    ids=["other reason", "other bucket", "no S3"],
)
def test_a_store_that_works_is_not_blamed(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, uri: str, output: str
) -> None:
    assert explained(store, monkeypatch, uri, output) == ""
