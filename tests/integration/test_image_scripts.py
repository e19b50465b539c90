"""The image scripts, run with an engine and an aws CLI that only record what they are told."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "custom_images"
SCRIPTS = ("pull_base_image.sh", "build.sh", "push.sh")
PASSWORD = "a/registry+password=="
ACCOUNT = "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com"
TOOLS = ("bash", "env", "dirname", "sed", "tail", "mktemp", "rm", "cat")

# Records its arguments, and its standard input where a password is to come; fails as $FAIL tells.
ENGINE = f"""#!{sys.executable} -S
import json, os, sys
name, argv = os.path.basename(sys.argv[0]), sys.argv[1:]
stdin = sys.stdin.read() if "--password-stdin" in argv else ""
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([name, argv, stdin]) + "\\n")
sys.exit(any(" ".join(argv).startswith(start) for start in os.environ.get("FAIL", "-").split(",")))
"""

AWS = f"""#!/bin/sh
echo "aws $*" >>"$RECORD.aws"
case "$*" in
  *nowhere*) echo 'Could not connect to the endpoint URL: "https://sts.eu-nowhere-1.amazonaws.com/"' >&2; exit 255 ;;
  --version) exit "${{AWS_MISSING:-0}}" ;;
  "configure get region") echo eu-west-1 ;;
  sts*) [ -z "$NO_CREDENTIALS" ] || {{ echo; echo "Unable to locate credentials." >&2; exit 253; }}; echo {ACCOUNT} ;;
  *get-login-password*) [ -z "$NO_CREDENTIALS" ] || {{ echo "Unable to locate credentials." >&2; exit 253; }}
    echo '{PASSWORD}' ;;
  *describe-repositories*) [ -n "$HAS_REPOSITORY" ] ;;
  *create-repository*) echo '{{"repository": {{}}}}' ;;
esac
"""


class Machine:
    """A machine with nothing on its PATH but what the scripts may use."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.record = folder / "record"
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.bin / tool).symlink_to(found)
        self.install("docker", ENGINE)
        self.install("aws", AWS)
        self.environment = {"PATH": str(self.bin), "RECORD": str(self.record), "HOME": str(folder)}

    def install(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.record.write_text("")
        return subprocess.run(
            [str(IMAGES / script), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def error(self, script: str, *arguments: str, **environment: str) -> str:
        """Run a script that must fail; return its only sentence."""
        done = self.run(script, *arguments, **environment)
        assert (done.returncode, done.stdout) == (1, ""), done
        lines = done.stderr.splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    @property
    def calls(self) -> list[str]:
        """What the engine was asked, without asking whether it is there."""
        calls = [json.loads(line) for line in self.record.read_text().splitlines()]
        assert all((call[2] == PASSWORD + "\n") == (call[1][0] == "login") for call in calls)
        assert PASSWORD not in str([call[1] for call in calls])
        return [" ".join(call[1]) for call in calls if call[1] != ["info"]]

    def aws_calls(self) -> str:
        return Path(f"{self.record}.aws").read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE | re.IGNORECASE)
    assert found
    return found[1]


@pytest.mark.parametrize("image", ["sagemaker_pytorch", "sagemaker_cpu"])
def test_the_images_have_the_versions_of_the_lock(image: str) -> None:
    dockerfile = (IMAGES / image / "Dockerfile").read_text()
    assert f"ARG MLFLOW_VERSION={pinned('mlflow')}\n" in dockerfile
    assert f"ARG GITPYTHON_VERSION={pinned('gitpython')}\n" in dockerfile


def test_the_image_of_cifar10_has_the_packages_of_its_projects() -> None:
    wanted = set()
    for project in ("preprocess", "train"):
        file = ROOT / "sample_projects" / "cifar10" / project / "python_env.yaml"
        wanted |= set(yaml.safe_load(file.read_text())["dependencies"])
    assert (IMAGES / "cifar10" / "requirements.txt").read_text().splitlines() == sorted(wanted)
    assert all(re.fullmatch(r"[a-z0-9]+==[0-9.]+", line) for line in wanted)
    assert f"mlflow=={pinned('mlflow')}" in wanted


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_explains_itself(machine: Machine, script: str) -> None:
    done = machine.run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: {script}" in done.stdout
    assert "set -euo" not in done.stdout
    assert machine.error(script, "--nonsense") == "error: There is no option '--nonsense'; see --help."


def test_a_base_image_of_aws_is_pulled_after_a_login_in_the_region_asked_for(machine: Machine) -> None:
    done = machine.run("pull_base_image.sh", "--region", "eu-west-1")
    aws = "763104351884.dkr.ecr.eu-west-1.amazonaws.com"
    image = f"{aws}/pytorch:2.14.0-cu133-amzn2023-sagemaker"
    assert (done.returncode, done.stdout) == (0, f"{image}\n"), done
    assert machine.calls == [
        f"login --username AWS --password-stdin {aws}",
        f"pull --platform linux/amd64 {image}",
    ]
    assert "ecr get-login-password --region eu-west-1" in machine.aws_calls()
    assert PASSWORD not in machine.aws_calls()


def test_a_public_base_image_needs_no_login(machine: Machine) -> None:
    assert machine.run("pull_base_image.sh", "python:3.11-slim").returncode == 0
    assert machine.calls == ["pull --platform linux/amd64 python:3.11-slim"]
    assert "--region is for images in a private" in machine.error(
        "pull_base_image.sh", "--region", "eu-west-1", "python:3.11-slim"
    )


def test_an_image_is_built_from_its_folder_and_its_own_base(machine: Machine) -> None:
    done = machine.run("build.sh", "sagemaker_cpu/", "--", "--no-cache", "--label", "a b")
    assert (done.returncode, done.stdout) == (0, "mlflow-projects/sagemaker-cpu:latest\n"), done
    assert machine.calls == [
        "build --platform linux/amd64 --build-arg BASE_IMAGE=python:3.11-slim "
        f"--tag mlflow-projects/sagemaker-cpu:latest --file {IMAGES}/sagemaker_cpu/Dockerfile "
        f"--no-cache --label a b {IMAGES}/sagemaker_cpu"
    ]
    done = machine.run("build.sh", "sagemaker_pytorch", "--base-image", "local:1", "--name", "mine:2", PLATFORM="x/y")
    assert machine.calls == [
        f"build --platform x/y --build-arg BASE_IMAGE=local:1 --tag mine:2 "
        f"--file {IMAGES}/sagemaker_pytorch/Dockerfile {IMAGES}/sagemaker_pytorch"
    ]
    machine.run("build.sh", "airflow", "--base-image", "local:1")
    assert machine.calls[0].endswith(f"--file {IMAGES}/airflow/Dockerfile {ROOT}")  # it holds the library


def test_a_base_image_of_aws_must_have_been_pulled(machine: Machine) -> None:
    error = machine.error("build.sh", "sagemaker_pytorch", FAIL="image inspect")
    assert re.fullmatch(r"error: The base image 763104351884\S+ is not on this machine; pull it first: .*", error)


@pytest.mark.parametrize("has_repository", ["", "yes"])
def test_an_image_is_pushed_to_the_accounts_own_registry(machine: Machine, has_repository: str) -> None:
    done = machine.run("push.sh", "sagemaker_cpu", "--account", ACCOUNT, HAS_REPOSITORY=has_repository)
    uri = f"{REGISTRY}/mlflow-projects/sagemaker-cpu:mlflow-{pinned('mlflow')}"
    assert (done.returncode, done.stdout) == (0, f"{uri}\n"), done
    assert machine.calls == [
        "image inspect mlflow-projects/sagemaker-cpu:latest",
        f"login --username AWS --password-stdin {REGISTRY}",
        f"tag mlflow-projects/sagemaker-cpu:latest {uri}",
        f"push {uri}",
    ]
    created = "ecr create-repository --region eu-west-1 --repository-name mlflow-projects/sagemaker-cpu"
    assert (created in machine.aws_calls()) == (not has_repository)


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        ([], {}, "Say which image: airflow, cifar10, sagemaker_cpu, sagemaker_pytorch."),
        (
            ["other"],
            {},
            "There is no image 'other' here; choose one of: airflow, cifar10, sagemaker_cpu, sagemaker_pytorch.",
        ),
        (["sagemaker_cpu", "--tag"], {}, "--tag needs a value; see --help."),
        (
            ["sagemaker_cpu", "--region", "europe"],
            {},
            "'europe' is not an AWS region; it should look like eu-west-1.",
        ),
        (
            ["sagemaker_cpu", "--region", "eu-nowhere-1"],
            {},
            "No AWS credentials that work in eu-nowhere-1: "
            'Could not connect to the endpoint URL: "https://sts.eu-nowhere-1.amazonaws.com/"',
        ),
        (
            ["sagemaker_cpu"],
            {"NO_CREDENTIALS": "1"},
            "No AWS credentials that work in eu-west-1: Unable to locate credentials.",
        ),
        (
            ["sagemaker_cpu", "--account", "210987654321"],
            {},
            f"The AWS credentials belong to account {ACCOUNT}, not 210987654321.",
        ),
        (
            ["sagemaker_cpu"],
            {"FAIL": "image inspect"},
            "There is no image mlflow-projects/sagemaker-cpu:latest on this machine; build it first: "
            f"{IMAGES}/build.sh sagemaker_cpu",
        ),
        (["sagemaker_cpu"], {"FAIL": "login"}, f"docker cannot log in to {REGISTRY}."),
        (["sagemaker_cpu"], {"FAIL": "info"}, "docker is installed but does not answer; is its service running?"),
        (
            ["sagemaker_cpu"],
            {"CONTAINER_ENGINE": "nerdctl"},
            "CONTAINER_ENGINE is 'nerdctl', which is not installed.",
        ),
        (
            ["sagemaker_cpu"],
            {"AWS_MISSING": "127"},
            "No AWS region is set; give --region or set AWS_REGION.",
        ),
        (
            ["sagemaker_cpu", "--region", "eu-west-1"],
            {"AWS_MISSING": "127"},
            "No AWS credentials that work in eu-west-1: neither the aws CLI nor a python3 with boto3 is installed",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    machine: Machine, arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    assert machine.error("push.sh", *arguments, **environment) == f"error: {sentence}"


def test_the_engine_that_answers_is_taken(machine: Machine) -> None:
    machine.install("podman", ENGINE)
    machine.install("docker", "#!/bin/sh\nexit 1\n")
    assert machine.run("build.sh", "sagemaker_cpu").returncode == 0
    assert json.loads(machine.record.read_text().splitlines()[-1])[0] == "podman"
    (machine.bin / "podman").unlink()
    (machine.bin / "docker").unlink()
    assert machine.error("build.sh", "sagemaker_cpu") == (
        "error: Neither docker nor podman is installed; install one of them or set CONTAINER_ENGINE."
    )


@pytest.fixture
def aws_api() -> Iterator[tuple[str, list[str]]]:
    """Serve the four AWS calls; yield the endpoint and the list of calls as they come."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            action = (self.headers.get("X-Amz-Target") or "STS.GetCallerIdentity").partition(".")[2]
            calls.append(action.removeprefix("ContainerRegistry_V20150921.") + body.partition("Action=")[0])
            status, answer = 200, "{}"
            if "Identity" in action:
                answer = (
                    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentity'
                    f"Result><Account>{ACCOUNT}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
                )
            elif "Authorization" in action:
                token = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()
                answer = json.dumps({"authorizationData": [{"authorizationToken": token}]})
            elif "Describe" in action:
                status, answer = 400, '{"__type": "RepositoryNotFoundException", "message": "not found"}'
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", calls
    server.shutdown()
    server.server_close()


def test_boto3_does_what_the_aws_cli_does(machine: Machine, aws_api: tuple[str, list[str]]) -> None:
    endpoint, calls = aws_api
    machine.install("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    without_cli = {
        "AWS_MISSING": "127",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    done = machine.run("push.sh", "sagemaker_cpu", **without_cli, **keys)
    assert done.returncode == 0, done
    assert done.stdout.startswith(f"{REGISTRY}/mlflow-projects/sagemaker-cpu:mlflow-")
    assert machine.calls[1] == f"login --username AWS --password-stdin {REGISTRY}"
    assert [re.sub(r"\W.*", "", call) for call in calls] == [
        "GetCallerIdentity",
        "DescribeRepositories",
        "CreateRepository",
        "GetAuthorizationToken",
    ]
    assert machine.error("push.sh", "sagemaker_cpu", **without_cli) == (
        "error: No AWS credentials that work in eu-west-1: Unable to locate credentials"
    )
