"""Variables whose values are in AWS Secrets Manager."""

from __future__ import annotations

import json

from .errors import NO_SECRET, RunnerError, one_line
from .output import Output


def read_secrets(wanted: dict[str, str], output: Output) -> dict[str, str]:
    """Return variables with their values from AWS Secrets Manager; they are masked from then on.

    An ARN may go on with ``:json-key:version-stage:version-id``, each of them possibly empty:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
    """
    if not wanted:
        return {}
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise RunnerError(NO_SECRET, "Secrets need boto3, which this image's python3 lacks.") from None
    config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 5})
    answers: dict[str, str] = {}
    values = {}
    for name, arn in wanted.items():
        parts = arn.split(":")
        if len(parts) < 7 or parts[2] != "secretsmanager" or len(parts) > 10:
            raise RunnerError(NO_SECRET, f"The secret for {name} is not a Secrets Manager ARN: {arn!r}.")
        key, stage, version = ([*parts[7:], "", "", ""])[:3]
        request = {"SecretId": ":".join(parts[:7]), "VersionStage": stage, "VersionId": version}
        request = {field: value for field, value in request.items() if value}
        asked = repr(request)
        try:
            if asked not in answers:
                client = boto3.client("secretsmanager", region_name=parts[3], config=config)
                answer = client.get_secret_value(**request)
                answers[asked] = answer.get("SecretString") or bytes(answer.get("SecretBinary", b"")).decode()
                output.hide(answers[asked])
        except Exception as error:
            raise RunnerError(NO_SECRET, f"The secret for {name} cannot be read: {one_line(error)}") from None
        values[name] = _member_of(answers[asked], key, name) if key else answers[asked]
        output.hide(values[name])
    return values


def _member_of(secret: str, key: str, name: str) -> str:
    try:
        value = json.loads(secret)[key]
    except (ValueError, KeyError, TypeError):  # whose texts may quote the secret
        raise RunnerError(NO_SECRET, f"The secret for {name} is no JSON object with the key {key!r}.") from None
    return value if isinstance(value, str) else json.dumps(value)
