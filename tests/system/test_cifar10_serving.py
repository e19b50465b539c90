"""cifar10's building and evaluate: the server as a process and as a container, and what is left after failures."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from tests.support.cifar10 import PROJECTS, project_environment, project_python
from tests.support.cifar10_serving import accuracy, make_model, make_pictures, predicted_directly, run_and_find
from tests.support.engine import on_both_engines
from tests.support.waiting import PATIENCE, wait

pytestmark = pytest.mark.timeout(900)
PREDICT = "/v1/models/default/versions/1:predict"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("trained") / "downstream_directory")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), per_class=30)


@pytest.fixture(scope="module")
def packed(mlflow_server: str, model: Path) -> Any:
    """The run of building that packed a process."""
    run, output = run_and_find("building", mlflow_server, "--model_directory", str(model), "--mode", "process")
    assert "Packed the server to run as a process: mode is process." in output
    return run


def downstream(run: Any) -> str:
    return f"{run.info.artifact_uri}/downstream_directory"


@pytest.fixture(scope="module")
def server_folder(packed: Any, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    return Path(download_artifacts(f"{downstream(packed)}/server", dst_path=str(folder), tracking_uri=mlflow_server))


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    environment = {"PATH": f"{project_python('evaluate').parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["sh", "entrypoint.sh", "--host=127.0.0.1", "--grpc-port=0", "--http-port=0", *options],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def check_figures(run: Any, logits: dict[str, list[float]], folder: Path, tracking_uri: str) -> None:
    """Compare the record of an evaluate with what the ONNX file says without a server."""
    metrics = run.data.metrics
    assert metrics["accuracy"] == accuracy(logits)
    assert metrics["total_tested"] == len(logits)
    assert metrics["average_duration_second"] == pytest.approx(metrics["total_time"] / len(logits))
    assert 0 < metrics["latency_p50_ms"] <= metrics["latency_p95_ms"] <= metrics["latency_p99_ms"]
    assert metrics["largest_difference_of_batches"] < 1e-4
    results = Path(download_artifacts(downstream(run), dst_path=str(folder), tracking_uri=tracking_uri))
    assert (results / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    answers = json.loads((results / "predictions.json").read_text())["predictions"]
    assert {name: answer["prediction"] for name, answer in answers.items()} == {
        name: values.index(max(values)) for name, values in logits.items()
    }
    for name, answer in answers.items():
        assert answer["label"] == int(name.partition("/")[0])
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)


def test_a_process_gives_the_same_answers_as_the_file(
    mlflow_server: str, model: Path, pictures: Path, packed: Any, tmp_path: Path
) -> None:
    assert packed.data.tags["server_kind"] == "process"
    before = set(psutil.pids())
    run, output = run_and_find(
        "evaluate", mlflow_server, "--upstream", downstream(packed), "--test_data_directory", str(pictures)
    )
    assert run.info.status == "FINISHED"
    assert run.data.tags["server_kind"] == "process"
    assert left_of(before) == [], output
    check_figures(run, predicted_directly(model, pictures / "test"), tmp_path, mlflow_server)


def left_of(before: set[int]) -> list[str]:
    """Return the command lines of servers that were started since."""
    found = []
    for pid in set(psutil.pids()) - before:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if "--idle-seconds=60" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def test_grpc_and_http_speak_the_old_servers_protocol(server_folder: Path) -> None:
    with (
        serving(server_folder) as (process, ports),
        grpc.insecure_channel(f"127.0.0.1:{ports['grpc_port']}") as channel,
    ):
        http = httpx.Client(base_url=f"http://127.0.0.1:{ports['http_port']}", trust_env=False, timeout=60)
        assert http.get("/healthz").json() == {"status": "SERVING"}
        raw = struct.pack("<3072f", *[0.5] * 3072)
        tensor = {"dims": [1, 3, 32, 32], "dataType": 1, "rawData": base64.b64encode(raw).decode()}
        answer = http.post(PREDICT, json={"inputs": {"input": tensor}}).json()["outputs"]["output"]
        assert answer["dims"] == ["1", "10"]
        logits = base64.b64decode(answer["rawData"])

        # The message by hand: a map entry {1: "input", 2: {1: dims, 2: float32, 9: raw}} in field 2.
        def field(number: int, content: bytes) -> bytes:
            size, length = b"", len(content)
            while length > 127:
                size, length = size + bytes([length & 127 | 128]), length >> 7
            return bytes([number << 3 | 2]) + size + bytes([length]) + content

        old = field(1, bytes([1, 3, 32, 32])) + bytes([2 << 3, 1]) + field(9, raw)
        request = field(2, field(1, b"input") + field(2, old))
        call = channel.unary_unary("/onnxruntime.server.PredictionService/Predict")
        assert logits in call(request, timeout=60)
        binary = http.post(PREDICT, content=request, headers={"Content-Type": "application/octet-stream"})
        assert binary.headers["Content-Type"] == "application/octet-stream"
        assert binary.content == call(request, timeout=60)
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=60) == bytes([1 << 3, 1])  # SERVING

        short = {**tensor, "rawData": base64.b64encode(raw[:-4]).decode()}
        for body, words in (
            ({"inputs": {"picture": tensor}}, "the inputs must be ['input'], not ['picture']"),
            ({"inputs": {"input": short}}, "do not fit its shape"),
            ({"inputs": {"input": {**tensor, "dims": [3, 32, 32]}}}, "Invalid rank"),
            ({"inputs": {"input": {**tensor, "dataType": 16}}}, "data type 16"),
            ({"inputs": {"input": tensor}, "outputFilter": ["other"]}, "has no output ['other']"),
            ({"input": 1}, "no field named"),
        ):
            refused = http.post(PREDICT, json=body)
            assert (refused.status_code, refused.json()["error_code"]) == (400, 400)
            assert words in refused.json()["error_message"]
        with pytest.raises(grpc.RpcError) as error:
            call(b"", timeout=60)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert http.post(PREDICT, content=b"x").status_code == 400
        assert http.post("/v1/models/default", json={}).status_code == 404
        assert http.get("/").status_code == 404

        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
        assert "The server has ended." in process.stdout.read()  # type: ignore[union-attr]


def test_a_port_in_use_is_said_and_an_idle_server_ends(server_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        second = subprocess.run(
            [project_python("evaluate"), "server.py", "--host=127.0.0.1", "--grpc-port=0", f"--http-port={port}"],
            cwd=server_folder, capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
    assert second.returncode == 1
    assert "A port cannot be used: " in second.stderr
    with serving(server_folder, "--idle-seconds=1") as (process, _):
        assert process.wait(timeout=PATIENCE) == 0
        assert "No request for 1 s: the server ends." in process.stdout.read()  # type: ignore[union-attr]


def test_a_server_that_never_is_ready_fails_with_its_last_lines(
    mlflow_server: str, model: Path, pictures: Path, tmp_path: Path
) -> None:
    for script, options, words in (
        ("echo 'the model is broken'; exit 3", (), "The server ended before it was ready."),
        (
            "echo 'the model is broken'; exec sleep 600",
            ("--ready_seconds", "5"),
            "The server is not ready after 5 s.",
        ),
    ):
        entrypoint = tmp_path / "entrypoint.sh"
        entrypoint.write_text(f"#!/bin/sh\n{script}\n")
        built, _ = run_and_find(
            "building", mlflow_server, "--model_directory", str(model), "--mode", "process",
            "--entrypoint_path", str(entrypoint),
        )  # fmt: skip
        arguments = ("--upstream", downstream(built), "--test_data_directory", str(pictures), *options)
        run, output = run_and_find("evaluate", mlflow_server, *arguments, ok=False)
        assert run.info.status == "FAILED"
        assert output.rstrip().endswith(f"{words} Its last lines:\nthe model is broken")


def test_bad_input_is_one_sentence(mlflow_server: str, model: Path, packed: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "pictures"
    wrong.mkdir()
    _, output = run_and_find(
        "evaluate", mlflow_server, "--upstream", downstream(packed), "--test_data_directory", str(wrong), ok=False
    )
    assert output.rstrip().endswith(f"--test_data_directory: there is no <label>/<file>.png in {wrong}.")
    _, output = run_and_find(
        "building", mlflow_server, "--model_directory", str(model), "--mode", "image", ok=False,
        DOCKER_HOST=f"unix://{tmp_path}/none.sock",
    )  # fmt: skip
    assert f"No container engine answers (tried unix://{tmp_path}/none.sock)." in output.splitlines()[-1]


# --- as a container


def make_image(engine: Any, base_image: str, command: str) -> str:
    """Make an image that runs a shell command whatever its arguments are."""
    name = f"localhost/cifar10-test-{abs(hash(command))}:1"
    with contextlib.closing(engine.client()) as client:
        made = client.containers.create(base_image, ["true"])
        entrypoint = json.dumps(["sh", "-c", command])
        repository, _, tag = name.rpartition(":")
        made.commit(repository, tag, changes=[f"ENTRYPOINT {entrypoint}"])
        made.remove()
    return name


@pytest.mark.nightly
@on_both_engines
def test_a_container_that_ends_at_once_fails_with_its_last_lines(
    mlflow_server: str, packed: Any, pictures: Path, engine: Any, base_image: str
) -> None:
    image = make_image(engine, base_image, "echo the model is broken; exit 3")
    arguments = ("--upstream", downstream(packed), "--test_data_directory", str(pictures), "--dockerimage", image)
    run, output = run_and_find("evaluate", mlflow_server, *arguments, ok=False)
    assert run.info.status == "FAILED"
    assert "Its last lines:\nthe model is broken" in output
    assert engine.leftovers() == []


@pytest.mark.nightly
@on_both_engines
def test_a_killed_evaluate_leaves_no_container(
    mlflow_server: str, packed: Any, pictures: Path, engine: Any, base_image: str
) -> None:
    image = make_image(engine, base_image, "exec sleep 600")
    arguments = ["--upstream", downstream(packed), "--test_data_directory", str(pictures), "--dockerimage", image]
    client = MlflowClient(mlflow_server)

    def start() -> tuple[subprocess.Popen[bytes], str]:
        run_id = client.create_run("0").info.run_id
        process = subprocess.Popen(
            [project_python("evaluate"), "evaluate.py", *arguments],
            cwd=PROJECTS / "evaluate",
            env=project_environment(mlflow_server, {"MLFLOW_RUN_ID": run_id}),
        )
        wait(lambda: running(engine, run_id), "the container")
        return process, run_id

    process, _ = start()
    process.terminate()
    assert process.wait(timeout=PATIENCE) != 0
    assert engine.leftovers() == []

    process, killed = start()
    process.kill()
    process.wait()
    assert running(engine, killed), "nobody is left to remove it at once"
    client.set_terminated(killed, "KILLED")  # what the next try of the task does
    process, _ = start()
    assert not running(engine, killed)
    process.terminate()
    assert process.wait(timeout=PATIENCE) != 0
    assert engine.leftovers() == []


def running(engine: Any, run_id: str) -> bool:
    with contextlib.closing(engine.client()) as client:
        label = f"mlflow_projects.evaluate_run={run_id}"
        return bool(client.containers.list(filters={"label": label}, ignore_removed=True))


@pytest.mark.nightly
@on_both_engines
def test_an_image_is_built_run_evaluated_and_removed(
    mlflow_server: str, model: Path, pictures: Path, engine: Any, base_image: str, tmp_path: Path
) -> None:
    with contextlib.closing(engine.client()) as client:
        before = {found.id for found in client.images.list(all=True)}
        built, _ = run_and_find(
            "building", mlflow_server, "--model_directory", str(model), "--base_image", base_image, timeout=800
        )
        tags = built.data.tags
        assert (tags["server_kind"], tags["image_name"]) == (
            "image", f"mlflow-projects/cifar10:training_pattern_cifar10_evaluate_{built.info.experiment_id}",
        )  # fmt: skip
        image = client.images.get(tags["image_id"])
        assert image.labels["mlflow_projects.run_id"] == built.info.run_id
        assert image.attrs["Config"]["User"] not in ("", "root", "0")
        run, _ = run_and_find(
            "evaluate", mlflow_server, "--upstream", downstream(built), "--test_data_directory", str(pictures),
            timeout=300,
        )  # fmt: skip
        assert run.data.tags["server_kind"] == "image"
        check_figures(run, predicted_directly(model, pictures / "test"), tmp_path, mlflow_server)
        assert engine.leftovers() == []

        # Nobody asks it anything: it ends, and the engine removes it.
        idle = client.containers.run(image.id, ["--idle-seconds=1"], detach=True, auto_remove=True)
        wait(lambda: f"container {idle.name}" not in engine.leftovers(), "the end of the idle container")

        client.images.remove(image.id, force=True)
        packages = client.images.list(all=True, filters={"label": "mlflow_projects.role=cifar10-server-packages"})
        for found in packages:
            with contextlib.suppress(Exception):  # gone with one that was made from it
                client.images.remove(found.id, force=True)
        assert {found.id for found in client.images.list(all=True)} <= before
