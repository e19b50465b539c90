"""The form of a connection of type "mlflow" in Airflow's UI; the hook reads the fields."""

from __future__ import annotations

from typing import Any


def _field(label: str, description: str, kind: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


BEHAVIOUR: dict[str, Any] = {
    # Airflow 3.3.2's Test button refuses a saved connection without a port:
    # https://github.com/apache/airflow/pull/73298
    "hidden-fields": ["schema"],
    "relabeling": {
        "host": "Tracking URI",
        "login": "User",
        "password": "Password, or token",
    },
    "placeholders": {
        "host": "http://mlflow.example.com",
        "port": "5000, for example; here or in the URI (Airflow 3.3.2's Test button needs it here)",
        "login": "leave empty to send the password as a bearer token",
        "password": "of the user; or a token, as in MLFLOW_TRACKING_TOKEN",
    },
}
FIELDS: dict[str, dict[str, Any]] = {
    "ui_url": _field("UI URL", "What your browser calls the server, if not the tracking URI; for links."),
    "insecure_tls": _field("Do not check the certificate", "Only for tests.", "boolean", default=False),
    "server_cert_path": _field("CA bundle", "Path of a PEM file on the workers."),
    "client_cert_path": _field("Client certificate", "Path of a PEM file with certificate and key."),
    "timeout": _field("Time-out", "Seconds that one request may take.", "number", default=60, minimum=1),
    "max_retries": _field(
        "Retries",
        "How often a step asks again while the server is away; 7 is about a minute.",
        "integer",
        default=7,
        minimum=0,
    ),
    "s3_endpoint_url": _field("S3 endpoint", "URL; for artifacts on an S3 server that is not AWS."),
    "aws_profile": _field("AWS profile", "Profile of the worker's AWS configuration, for artifacts on S3."),
}
