"""Prepare the stack of docker-compose.yaml: databases, users, buckets, connections. Runs at each start, and changes
only what is missing or has another password in ``.env``. Secrets come in variables, never in a command line.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import httpx

BUCKETS = ("mlflow", "airflow-logs", "airflow-checkpoints")
MLFLOW = "http://mlflow:5000"
S3 = "http://s3:8333"
SAGEMAKER = "http://sagemaker:4599"
KEY = "any-key-does"  # of the stand-in for SageMaker; logs show *** in its place
PROFILES = os.environ.get("COMPOSE_PROFILES", "").split(",")


def main() -> None:
    """Do all of it; an error ends the start of the stack."""
    make_buckets()
    make_mlflow_user()
    subprocess.run(["airflow", "db", "migrate"], check=True)
    make_airflow_admin()
    make_connections()
    if "sagemaker" in PROFILES:
        make_secret_for_jobs()
    print("The stack is prepared.")


def make_buckets() -> None:
    """Make the buckets that are missing."""
    import boto3

    client = boto3.client("s3", endpoint_url=S3, region_name="us-east-1")
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in BUCKETS:
        if name not in there:
            client.create_bucket(Bucket=name)


def make_mlflow_user() -> None:
    """Make Airflow's user of MLflow: not its administrator, but the owner of the experiments that Airflow makes."""
    password = os.environ["MLFLOW_AIRFLOW_PASSWORD"]
    admin = (os.environ["MLFLOW_ADMIN_USER"], os.environ["MLFLOW_ADMIN_PASSWORD"])
    # The engine may not know the name of a container yet that was started a moment ago.
    patient = httpx.HTTPTransport(retries=6)  # connections only, 15 s in all
    with httpx.Client(base_url=f"{MLFLOW}/api/2.0/mlflow/users", auth=admin, timeout=60, transport=patient) as users:
        if users.get("/get", params={"username": "airflow"}).status_code == httpx.codes.NOT_FOUND:
            done = users.post("/create", json={"username": "airflow", "password": password})
        else:
            done = users.patch("/update-password", json={"username": "airflow", "password": password})
        done.raise_for_status()


def make_airflow_admin() -> None:
    """Make Airflow's first user; with ``airflow users create`` the password would be in a command line."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    name, password = os.environ["AIRFLOW_ADMIN_USER"], os.environ["AIRFLOW_ADMIN_PASSWORD"]
    with get_application_builder() as builder:
        manager = builder.sm
        if user := manager.find_user(username=name):
            done = manager.reset_password(user.id, password)
        else:
            role = manager.find_role("Admin")
            done = manager.add_user(name, "Stack", "Administrator", f"{name}@example.com", role, password)
    if not done:
        raise SystemExit(f"Airflow's user {name!r} could not be made.")


def make_secret_for_jobs() -> None:
    """Put the password of Airflow's user of MLflow where a training job of the stand-in finds it, as on AWS."""
    import boto3

    key = {"aws_access_key_id": KEY, "aws_secret_access_key": KEY}
    client = boto3.client("secretsmanager", endpoint_url=SAGEMAKER, region_name="us-east-1", **key)
    value = os.environ["MLFLOW_AIRFLOW_PASSWORD"]
    try:
        client.create_secret(Name="mlflow", SecretString=value)
    except client.exceptions.ResourceExistsException:
        client.put_secret_value(SecretId="mlflow", SecretString=value)


def make_connections() -> None:
    """Write the connections whose values are those of this stack; others stay as people made them."""
    save_connection(
        "mlflow_default",
        conn_type="mlflow",
        host="http://mlflow",
        port=5000,
        login="airflow",
        password=os.environ["MLFLOW_AIRFLOW_PASSWORD"],
        extra=json.dumps({"ui_url": os.environ["MLFLOW_UI_URL"]}),
    )
    save_connection(
        "aws_default",
        conn_type="aws",
        login="airflow",
        password=os.environ["AIRFLOW_S3_SECRET_KEY"],
        extra=json.dumps({"region_name": "us-east-1", "endpoint_url": S3}),
    )
    if "git" in PROFILES:
        save_connection(
            "git_default",
            conn_type="git",
            host="http://git:3000",
            login=os.environ["GIT_USER"],
            password=os.environ["GIT_PASSWORD"],
        )
    if "sagemaker" in PROFILES:
        save_connection(
            "sagemaker_local",
            conn_type="aws",
            login=KEY,
            password=KEY,
            extra=json.dumps({"region_name": "us-east-1", "endpoint_url": SAGEMAKER}),
        )


def save_connection(conn_id: str, **values: Any) -> None:
    """Write one connection; its password is encrypted with the Fernet key."""
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id == conn_id))
        session.add(Connection(conn_id=conn_id, **values))


if __name__ == "__main__":
    main()
