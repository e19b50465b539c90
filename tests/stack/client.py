"""The stack as its users reach it: Airflow's, MLflow's and S3's addresses, with the passwords of ``.env``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.faults.observed import ENDED


class StackClient:
    """REST access to a running stack.

    :param env: what ``.env`` sets
    """

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.airflow_url = f"http://127.0.0.1:{env.get('AIRFLOW_PORT', '8080')}"
        self.mlflow_url = f"http://127.0.0.1:{env.get('MLFLOW_PORT', '5000')}"
        self.s3_url = f"http://127.0.0.1:{env.get('S3_PORT', '8333')}"
        self._token = ""

    # Airflow

    def airflow(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask Airflow's REST API; logs in first, and again when the token is refused.

        :param path: below ``/api/v2``
        """
        for _ in range(2):
            if not self._token:
                self._token = self._log_in()
            headers = {"Authorization": f"Bearer {self._token}", **request.pop("headers", {})}
            response = httpx.request(
                method, f"{self.airflow_url}/api/v2{path}", headers=headers, timeout=60, **request
            )
            if response.status_code != 401:
                break
            self._token = ""
        return response

    def get(self, path: str, **params: Any) -> Any:
        """Return what Airflow's REST API answers to GET."""
        return self.airflow("GET", path, params=params).raise_for_status().json()

    def _log_in(self) -> str:
        login = {"username": self.env["AIRFLOW_ADMIN_USER"], "password": self.env["AIRFLOW_ADMIN_PASSWORD"]}
        response = httpx.post(f"{self.airflow_url}/auth/token", json=login, timeout=60)
        return str(response.raise_for_status().json()["access_token"])

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a DAG run, of a DAG that may be paused; return its id."""
        self.airflow("PATCH", f"/dags/{dag_id}", json={"is_paused": False}).raise_for_status()
        body = {"logical_date": None, "conf": conf or {}}
        return str(self.airflow("POST", f"/dags/{dag_id}/dagRuns", json=body).raise_for_status().json()["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return a DAG run."""
        found: dict[str, Any] = self.get(f"/dags/{dag_id}/dagRuns/{run_id}")
        return found

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run, mapped ones each."""
        found: list[dict[str, Any]] = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return found

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try, as Airflow's page shows it."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.get(path, map_index=map_index, full_content=True)["content"]
        return "\n".join(line if isinstance(line, str) else json.dumps(line) for line in content)

    def wait_for_end(self, dag_id: str, run_id: str, timeout: float = 600) -> str:
        """Wait until a DAG run has ended; return its state."""
        return str(
            wait_until(
                lambda: (state := self.dag_run(dag_id, run_id)["state"]) in ENDED and state,
                timeout,
                f"the end of {dag_id} {run_id}",
            )
        )

    def wait_for_dag(self, dag_id: str, timeout: float = 180) -> None:
        """Wait until Airflow knows a DAG."""
        wait_until(lambda: self.airflow("GET", f"/dags/{dag_id}").status_code == 200, timeout, f"the DAG {dag_id}")

    # MLflow

    def mlflow(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask MLflow's REST API as its administrator.

        :param path: below ``/api/2.0/mlflow``
        """
        auth = (self.env["MLFLOW_ADMIN_USER"], self.env["MLFLOW_ADMIN_PASSWORD"])
        return httpx.request(method, f"{self.mlflow_url}/api/2.0/mlflow{path}", auth=auth, timeout=60, **request)

    def experiments(self) -> list[dict[str, Any]]:
        """Return MLflow's experiments."""
        answer = self.mlflow("POST", "/experiments/search", json={"max_results": 1000}).raise_for_status().json()
        found: list[dict[str, Any]] = answer.get("experiments", [])
        return found

    def runs(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the MLflow runs of a DAG run, newest first; ``params``, ``metrics`` and ``tags`` are dicts."""
        body = {
            "experiment_ids": [experiment["experiment_id"] for experiment in self.experiments()],
            "filter": f"tags.`airflow.dag_id` = '{dag_id}' AND tags.`airflow.run_id` = '{run_id}'",
            "max_results": 1000,
        }
        answer = self.mlflow("POST", "/runs/search", json=body).raise_for_status().json()
        return [
            {
                "info": run["info"],
                **{
                    kind: {item["key"]: item["value"] for item in run.get("data", {}).get(kind, [])}
                    for kind in ("params", "metrics", "tags")
                },
            }
            for run in answer.get("runs", [])
        ]

    def artifacts(self, run_id: str, path: str = "") -> list[str]:
        """Return the paths of a run's artifacts, files only, folders searched."""
        params = {"run_id": run_id, **({"path": path} if path else {})}
        found: list[str] = []
        for item in self.mlflow("GET", "/artifacts/list", params=params).raise_for_status().json().get("files", []):
            found += self.artifacts(run_id, item["path"]) if item["is_dir"] else [item["path"]]
        return found

    # S3

    def s3(self, access_key: str = "", secret_key: str = "") -> Any:
        """Return boto3's client, of the administrator's key unless another is given."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.s3_url,
            region_name="us-east-1",
            aws_access_key_id=access_key or self.env["S3_ACCESS_KEY"],
            aws_secret_access_key=secret_key or self.env["S3_SECRET_KEY"],
            config=Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def objects(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of a bucket."""
        pages = self.s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


def wait_until(condition: Callable[[], Any], timeout: float, what: str, pause: float = 1) -> Any:
    """Ask until the answer is true, and return it; a server that is away counts as no.

    :param timeout: seconds
    """
    deadline = time.monotonic() + timeout
    problem = ""
    while True:
        try:
            if answer := condition():
                return answer
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            problem = f" ({error})"
        assert time.monotonic() < deadline, f"{timeout:.0f} s have passed without {what}{problem}"
        time.sleep(pause)
