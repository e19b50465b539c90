"""A search in a loop, then in a pool, with random values."""

import random
from concurrent.futures import ThreadPoolExecutor

import mlflow

with mlflow.start_run(run_name="search"):
    first = mlflow.projects.run("step", run_name="data", env_manager="local")
    data = mlflow.get_run(first.run_id).info.artifact_uri

    with mlflow.start_run(run_name="in a loop", nested=True):
        for rate in (0.1, 0.2, 0.3):
            mlflow.projects.run("step", "train", parameters={"data": data, "rate": rate}, env_manager="local")

    def train(rate):
        submitted = mlflow.projects.run(
            "step", "train", parameters={"data": "x", "rate": rate}, env_manager="local", synchronous=False
        )
        return submitted.wait()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(train, [random.uniform(0, 1) for _ in range(4)]))

    # MLflow itself fails without parameters where it does not wait.
    left = mlflow.run("step", run_name="left", parameters={"data": "l"}, env_manager="local", synchronous=False)
    right = mlflow.run("step", run_name="right", parameters={"data": "r"}, env_manager="local", synchronous=False)
    left.wait()
    right.wait()
    mlflow.run("step", run_name="last", env_manager="local")
