"""The named faults of a real training, which can go on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import httpx

from tests.faults.stack import Stack, Way
from tests.faults.table import fault, run
from tests.support.cifar10 import PROJECTS, project_python, run_project
from tests.support.flaky import FlakyProxy, refuse


def keep_in_epoch_2(proxy: FlakyProxy) -> None:
    """Refuse what a training wants to log of its second epoch, so that it cannot be over before it is killed."""
    queue = proxy.faults["runs/log-batch"] = []

    def fault(handler: BaseHTTPRequestHandler, forward: Callable[[], httpx.Response]) -> bool:
        queue.append(fault)  # each counts once
        metrics = json.loads(handler.body).get("metrics", [])  # type: ignore[attr-defined]
        return any(int(metric["step"]) > 1 for metric in metrics) and refuse(handler, forward)

    queue.append(fault)


@fault("a real training is killed in epoch 2 of 3", "success", own_way=True)
def _(stack: Stack, way: Way) -> tuple[str, str]:
    from mlflow import MlflowClient

    pictures = stack.home / "pictures"
    made = run_project(
        "preprocess", f"sqlite:///{stack.home}/pictures.db", "--data", "sample", "--downstream", str(pictures)
    )
    assert made.returncode == 0, made.stdout
    (upstream,) = pictures.iterdir()
    keep_in_epoch_2(way.proxy)
    # Batches of one picture, so that an epoch of the small network lasts seconds. (VGG11's files are too large for
    # the small disk of the MLflow server here.)
    dag_id, run_id = run(
        stack, way.again,
        f"cd {PROJECTS / 'train'} && exec {project_python('train')} train.py --upstream {upstream} "
        "--model_type simple --batch_size 1 --epochs 3 --num_workers 0",
    )  # fmt: skip

    def losses() -> dict[str, dict[int, list[float]]]:
        """Return the values of each try's loss by epoch, the last try last."""
        client = MlflowClient(stack.mlflow_uri)
        found: dict[str, dict[int, list[float]]] = {}
        for attempt in stack.runs(run_id):
            if attempt.info.run_name == "step":
                found[attempt.info.run_id] = {}
                for metric in client.get_metric_history(attempt.info.run_id, "train_loss"):
                    found[attempt.info.run_id].setdefault(metric.step, []).append(metric.value)
        return found

    stack.wait(lambda: any(1 in epochs for epochs in losses().values()), "epoch 1")
    stack.task_process(run_id).kill()
    stack.wait_command_ended(run_id)
    way.proxy.faults.clear()
    (killed,) = losses().values()
    assert sorted(killed) == [1]
    assert stack.wait_end(dag_id, run_id) == "success"
    *_, resumed = losses().values()
    assert {epoch: len(values) for epoch, values in resumed.items()} == {1: 1, 2: 1, 3: 1}
    assert resumed[1] == killed[1], "epoch 1 is that of the killed try, not a new one"
    return dag_id, run_id
