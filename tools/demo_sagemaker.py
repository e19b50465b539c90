"""Run a DAG like ``make demo``, every step as a training job on the SageMaker stand-in, with no AWS account."""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from demo import fail, run
from home import BIN, HOME, ROOT, embedded_store, environment, prepare
from up import start, stop, wait_for

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14.0-cpu-amzn2023-sagemaker"
WAIT_SECONDS = 60


def main() -> int:
    env = environment()
    # What the user has for AWS itself must not be used here, and not be charged.
    env = {name: value for name, value in env.items() if not name.startswith("AWS_")}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "plugins"), str(ROOT), env.get("PYTHONPATH")]))
    prepare(env)
    logs = HOME / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    ready = HOME / "sagemaker.json"
    ready.unlink(missing_ok=True)
    services = []
    try:
        command = [
            BIN / "python", "-m", "sagemaker_local", "--port", "0", "--home", HOME / "sagemaker",
            "--ready-file", ready, "--start-seconds", "1",
        ]  # fmt: skip
        services.append(start("the SageMaker stand-in", command, env, "", logs / "sagemaker.log"))
        if env["MLFLOW_TRACKING_URI"] == embedded_store():  # a training job needs a server
            url = f"http://127.0.0.1:{free_port()}"
            command = [
                BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", url.rpartition(":")[2], "--workers", "1",
                "--backend-store-uri", embedded_store(), "--artifacts-destination", HOME / "mlartifacts",
            ]  # fmt: skip
            quiet = {**env, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            services.append(start("MLflow", command, quiet, f"{url}/health", logs / "mlflow.log"))
            if problem := wait_for(services[-1][1], f"{url}/health"):
                return fail(f"MLflow {problem}; see {os.path.relpath(logs / 'mlflow.log', ROOT)}")
            env["MLFLOW_TRACKING_URI"] = url
        stand_in = wait_until_ready(services[0][1], ready)
        if not stand_in:
            return fail(f"The stand-in does not start; see {os.path.relpath(logs / 'sagemaker.log', ROOT)}")
        settings = {"role": stand_in["role"], "s3_uri": f"s3://{stand_in['bucket']}/mlflow", "image_uri": IMAGE}
        env.update(stand_in["environment"], AIRFLOW__MLFLOW_PROJECTS__SAGEMAKER=json.dumps(settings))
        return run(env, {"backend": "sagemaker"})
    finally:
        stop([service[1] for service in services])


def wait_until_ready(process, ready) -> dict:
    deadline = time.monotonic() + WAIT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if ready.exists():
            return json.loads(ready.read_text())
        time.sleep(0.1)
    return {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
