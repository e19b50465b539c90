"""Why a step could not write its artifacts, in one sentence.

When a bucket is missing or a key is wrong, all that a command leaves is boto3's traceback, or with artifacts
behind the tracking server "500 Internal Server Error". So after a failure, and only then, the store is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingRefusedError
from mlflow_projects.public_uri import public_uri
from mlflow_projects.tracking.client import Run, TrackingClient
from mlflow_projects.tracking.connect import connect

_SECONDS = 3  # to connect, and to answer: Airflow may be waiting for the task to end
_ACCESS_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the worker, or 'aws_profile' of the MLflow connection"
# S3's error codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
_PROBLEMS = {
    "NoSuchBucket": "the bucket {bucket!r} does not exist; create it, or correct the experiment's artifact location",
    "InvalidAccessKeyId": f"S3 refuses the access key, it does not know it; correct {_ACCESS_KEYS}",
    "SignatureDoesNotMatch": f"S3 refuses the secret key, it does not fit the access key; correct {_ACCESS_KEYS}",
    "AccessDenied": "S3 does not let the access key {action} the bucket {bucket!r}; ask its owner for that right",
    "ExpiredToken": "S3 refuses the session token, it has expired; renew the worker's AWS credentials",
}
_PROBLEMS["AllAccessDisabled"] = _PROBLEMS["AccessDenied"]
_PROBLEMS["InvalidToken"] = _PROBLEMS["ExpiredToken"]
# As requests' raise_for_status, and urllib3 after the last retry, put it.
_FAILED_WRITE = re.compile(
    r"\b(?P<a>5\d\d) Server Error.*/mlflow-artifacts/artifacts/"
    r"|/mlflow-artifacts/artifacts/.*too many (?P<b>5\d\d) error"
)


def explain_failure(client: TrackingClient, run: Run, output: str) -> str:
    """Return what is wrong with a failed run's artifact store, "" if nothing can be found.

    :param client: knows the tracking server, and what the command got from its connection
    :param output: the last lines of the command's output
    """
    try:
        uri = urlsplit(run.artifact_uri)
    except ValueError:
        return f"The run's artifact URI {public_uri(run.artifact_uri)} is no valid one."
    if uri.scheme == "s3":
        problem = _refusal_of_s3(client.settings.extra_environment, uri.netloc, uri.path.lstrip("/"), output)
        return f"Its artifact store s3://{uri.netloc} cannot be used: {problem}." if problem else ""
    if uri.scheme == "mlflow-artifacts":
        said = _refusal_of_server(client, run, output)
        return (
            f"The artifact store behind the tracking server cannot be used; the server says: {said.rstrip('.')}. "
            "Whoever runs the server must mend that."
            if said
            else ""
        )
    return ""


def _refusal_of_s3(variables: Mapping[str, str], bucket: str, prefix: str, output: str) -> str:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:  # then the command had another Python, or says so itself
        return ""
    try:
        _s3(boto3, variables).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except ClientError as error:
        said = error.response.get("Error", {})
        return _problem(bucket, "list", str(said.get("Code", "")), str(said.get("Message") or error))
    except (BotoCoreError, ValueError) as error:  # the latter: no name of a bucket, or of an endpoint
        return str(error).rstrip(".")
    # May be listed, but not written to: boto3.s3.transfer, S3UploadFailedError.
    refused = re.search(
        rf" to {re.escape(bucket)}/\S*: An error occurred \((\w+)\) when calling the "
        r"\w+ operation(?: \(.*?\))?: (.*)",
        output,
    )
    return _problem(bucket, "write to", *refused.groups()) if refused else ""


def _s3(boto3: Any, variables: Mapping[str, str]) -> Any:
    """Return a client with the settings that MLflow's own has (source: mlflow.store.artifact.s3_artifact_repo)."""
    from botocore.config import Config

    # For boto3 a profile in a variable is weaker than keys in variables, but one in an argument is stronger.
    profile = None if os.environ.get("AWS_ACCESS_KEY_ID") else variables.get("AWS_PROFILE")
    addressing = os.environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"
    return boto3.Session(profile_name=profile).client(
        "s3",
        endpoint_url=variables.get("MLFLOW_S3_ENDPOINT_URL") or os.environ.get("MLFLOW_S3_ENDPOINT_URL"),
        verify=False if os.environ.get("MLFLOW_S3_IGNORE_TLS", "").lower() in ("1", "true") else None,
        config=Config(
            connect_timeout=_SECONDS,
            read_timeout=_SECONDS,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": addressing},
        ),
    )


def _problem(bucket: str, action: str, code: str, message: str) -> str:
    known = _PROBLEMS.get(code)
    return (
        known.format(bucket=bucket, action=action) if known else f"S3 answers {code}: {message.strip().rstrip('.')}"
    )


def _refusal_of_server(client: TrackingClient, run: Run, output: str) -> str:
    try:
        hasty = connect(replace(client.settings, max_retries=0, timeout=float(_SECONDS)))
        try:
            hasty.list_artifacts(run.run_id)
        finally:
            hasty.close()
    except (ProjectError, TrackingRefusedError):
        return ""  # the login is the problem, not the store
    except TrackingError as error:
        return str(error)
    # May be listed, but not written to; of a write the server tells a client only that it failed.
    refused = _FAILED_WRITE.search(output)
    return (
        f"HTTP {refused['a'] or refused['b']} to the step; the reason is in the server's own log" if refused else ""
    )
