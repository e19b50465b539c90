"""The runner, as it runs in the container, run as a process of its own, in a folder that plays /opt/ml."""

from __future__ import annotations

import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlflow_projects.backends.sagemaker import runner
from mlflow_projects.backends.sagemaker.request import runner_archive
from mlflow_projects.backends.sagemaker.runner import errors
from mlflow_projects.backends.sagemaker.runner import output as output_module
from tests.support.waiting import wait

SECRET = 'p\'w/ "quoted" & äöü'
ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:tracking-AbCdEf"


class Box:
    """A job's folder, as SageMaker lays it out."""

    def __init__(self, base: Path) -> None:
        self.base = base / "opt ml"
        self.job = self.base / "input/data/job"
        self.archive = self.base / "input/data/project/project.tar.gz"
        for folder in (self.job, self.archive.parent, self.base / "output", self.base / "input/config"):
            folder.mkdir(parents=True)
        (self.job / "runner.pyz").write_bytes(runner_archive())
        self.environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(base),
            "SAGEMAKER_BASE_DIR": str(self.base),
        }
        self.pack({"README": "a project"})

    def pack(self, files: dict[str, str]) -> None:
        members = []
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(text.encode()), 0o755 if name.endswith(".sh") else 0o644
            members.append((member, text.encode()))
        self.pack_members(members)

    def pack_members(self, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        with tarfile.open(self.archive, "w:gz") as tar:
            for member, data in members:
                tar.addfile(member, io.BytesIO(data))

    def spec(self, command: str, **more: Any) -> None:
        digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        text = textwrap.dedent(command)
        (self.job / "spec.json").write_text(json.dumps({"version": 1, "command": text, "sha256": digest, **more}))

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start the runner; ``-I -S`` prove that it needs nothing but the standard library."""
        return subprocess.Popen(
            [sys.executable, *options, str(self.job / "runner.pyz")],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str) -> tuple[int, list[str]]:
        """Run to the end; return the exit status and the lines of output, without the runner's own."""
        with self.start(*(options or ("-I", "-S"))) as process:
            out, _ = process.communicate(timeout=300)
        self.out = out
        return process.returncode, [line for line in out.splitlines() if not line.startswith("[mlflow_projects]")]

    @property
    def failure(self) -> str | None:
        file = self.base / "output/failure"
        return file.read_bytes().decode() if file.exists() else None


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@contextlib.contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, dict[str, Any]], tuple[int, dict[str, Any]]]) -> Iterator[str]:
    """Serve JSON over HTTP; the function takes the request and its body and gives status and answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            status, value = answer(self, body)
            data = json.dumps(value).encode()
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_it_is_written_for_python_3_8() -> None:
    for file in Path(runner.__file__).parent.glob("*.py"):
        ast.parse(file.read_text(), feature_version=(3, 8))


def test_a_command_runs_in_the_project_with_its_environment_as_often_as_it_is_started(box: Box) -> None:
    (box.base / "checkpoints").mkdir()
    box.pack(
        {"sub/step.sh": '#!/bin/bash\necho "$1: ${#LONG_VALUE} $MLFLOW_RUN_ID $MLFLOW_EXPERIMENT_ID"\n', "data": "1"}
    )
    box.spec(
        'sub/step.sh "with space"; cat data; echo; echo err >&2; echo $MLFLOW_PROJECTS_CHECKPOINT_DIR; echo 2 > data',
        environment={"LONG_VALUE": "x" * 100_000, "MLFLOW_TRACKING_URI": "http://tracking"},
        run_id="r1",
        experiment_id="7",
    )
    (box.base / "output/failure").write_text("of an earlier start")
    for _ in range(2):  # what the first start changed in its copy is gone
        status, lines = box.run()
        assert (status, box.failure) == (0, None)
        assert lines == ["with space: 100000 r1 7", "1", "err", str(box.base / "checkpoints")]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("no-such-program", 127)])
def test_the_exit_status_is_the_commands_own_and_the_failure_file_quotes_its_end(
    box: Box, script: str, code: int
) -> None:
    box.spec(
        f'for i in $(seq 100); do echo -e "\\e[31mschön $i\\e[0m {"ä" * 50}"; done; echo the reason >&2; {script}'
    )
    status, lines = box.run()
    assert status == code
    assert len(lines) >= 101
    assert box.failure is not None
    first, *rest = box.failure.splitlines()
    assert first == f"Entry point command failed with exit status {code}."
    assert 1000 < len(box.failure.encode()) <= 1024
    assert "the reason" in rest
    assert f"schön 100 {'ä' * 50}" in rest


def test_a_failure_text_never_breaks_a_character_or_the_limit() -> None:
    for length in range(1020, 1030):
        assert len(output_module.failure_text("é" * length, ["x"])) <= 1024
        text = output_module.failure_text("It failed.", ["ä" * length, "", "\x1b[1mend\x1b[0m  "])
        assert len(text) <= 1024
        assert text.decode().startswith("It failed.\n")
        assert text.decode().endswith("ä\nend")


def test_a_stop_reaches_the_grandchildren_which_have_time_to_write_their_checkpoint(box: Box, tmp_path: Path) -> None:
    box.pack(
        {
            "train.sh": f"trap 'until [ -e {tmp_path}/told ]; do sleep 0.05; done; echo saved; exit 0' TERM; "
            "until [ -e set ]; do sleep 0.05; done; "
            "echo ready; while :; do sleep 0.1; done",
            "aside.sh": f"trap 'touch {tmp_path}/told; exit' TERM; touch set; while :; do sleep 0.1; done",
        }
    )
    # The shell itself dies of the signal at once; aside.sh has left the group and is told when the shell is gone.
    box.spec("setsid bash aside.sh & bash train.sh; true")
    with box.start("-I", "-S") as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert "ready\n" in lines
        process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "saved\n" in rest
    assert (tmp_path / "told").exists(), rest
    assert process.returncode == 143
    assert (box.failure or "").startswith("Entry point command failed with exit status 143.\n")


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_what_a_command_leaves_behind_goes_with_it(box: Box, tmp_path: Path) -> None:
    box.spec(
        "(trap '' TERM; setsid sleep 300 & echo $!; touch noted; while :; do echo noise; sleep 0.01; done) & "
        "until [ -e noted ]; do sleep 0.01; done; exit 3"
    )
    status, lines = box.run()
    assert status == 3
    assert "Stopping" in box.out
    # The kernel may take a moment to clear a killed process away.
    wait(lambda: not is_alive(int(lines[0])), "the end of what it left")


@pytest.mark.parametrize(
    ("restarts", "reason", "before", "after"),
    [
        (False, False, "FINISHED", "KILLED"),  # a person stopped it
        (True, True, "FINISHED", "KILLED"),  # the same, of a job that may be restarted
        (True, False, "FINISHED", "RUNNING"),  # a spot interruption: the run goes on
        (True, False, "RUNNING", "RUNNING"),
    ],
)
def test_a_stopped_command_leaves_its_run_with_the_true_status(
    box: Box, restarts: bool, reason: bool, before: str, after: str
) -> None:
    run: dict[str, Any] = {"status": before}
    tags = [{"key": "mlflow_projects.reason", "value": "Stopped."}] if reason else []
    authorizations = set()

    def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        authorizations.add(request.headers["Authorization"])
        if request.path == "/sub/api/2.0/mlflow/runs/get?run_id=r1":
            return 200, {"run": {"info": {"run_id": "r1", "status": run["status"]}, "data": {"tags": tags}}}
        assert request.path == "/sub/api/2.0/mlflow/runs/update"
        assert body.pop("run_id") == "r1"
        run.update(body)
        return 200, {}

    with serving(answer) as url:
        box.spec(
            "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done",
            environment={
                "MLFLOW_TRACKING_URI": f"{url}/sub/",
                "MLFLOW_TRACKING_USERNAME": "ann",
                "MLFLOW_TRACKING_PASSWORD": "pässword",
            },
            run_id="r1",
            restarts=restarts,
        )
        with box.start("-I", "-S") as process:
            assert process.stdout is not None
            lines = iter(process.stdout)
            assert "ready\n" in lines
            process.send_signal(signal.SIGTERM)
            list(lines)
    assert (process.returncode, box.failure) == (0, None)
    assert run["status"] == after
    assert ("end_time" in run) == (after == "KILLED")
    assert authorizations == {"Basic " + base64.b64encode("ann:pässword".encode()).decode()}


def test_a_server_that_is_away_does_not_change_the_end_of_a_stopped_command(box: Box) -> None:
    environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    box.spec("echo ready; sleep 300", environment=environment, run_id="r1")
    with box.start("-I", "-S") as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert "ready\n" in lines
        process.send_signal(signal.SIGINT)
        assert "status cannot be set" in "".join(lines)
    assert process.returncode == 130


asked_for_slow, may_answer = threading.Event(), threading.Event()


def secrets_manager(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    assert "eu-west-1/secretsmanager" in request.headers["Authorization"]
    if body == {"SecretId": ARN}:
        return 200, {"SecretString": json.dumps({"password": SECRET, "user": "ann-the-user"})}
    if body == {"SecretId": ARN, "VersionStage": "AWSPREVIOUS", "VersionId": "00000000-0000-0000-0000-000000000001"}:
        return 200, {"SecretString": "first-line-of-a-key\nsecond-line-of-a-key"}
    if body["SecretId"].endswith("slow"):
        asked_for_slow.set()
        may_answer.wait(600)
    return 400, {"__type": "AccessDeniedException", "message": "not authorized"}


def with_secrets(box: Box, url: str) -> None:
    box.environment.update(
        AWS_ENDPOINT_URL=url, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_EC2_METADATA_DISABLED="true"
    )


def test_secrets_reach_the_command_and_are_masked_wherever_it_shows_them(box: Box, tmp_path: Path) -> None:
    script = (
        "import os, sys, urllib.parse; secret = os.environ['PASSWORD']; print('Hi', secret, os.environ['USERNAME'])\n"
        "print('http://ann:' + urllib.parse.quote(secret, safe='') + '@host'); print(os.environ['KEY'])\n"
        "sys.stdout.write('x' * 40000 + secret); sys.stdout.flush()\n"
        "open(sys.argv[1], 'w').write(secret + os.environ['KEY']); sys.exit('Wrong password: ' + secret)\n"
    )
    box.pack({"show.py": script})
    with serving(secrets_manager) as url:
        with_secrets(box, url)
        secrets = {
            "PASSWORD": f"{ARN}:password::",
            "USERNAME": f"{ARN}:user",
            "KEY": f"{ARN}::AWSPREVIOUS:00000000-0000-0000-0000-000000000001",
        }
        box.spec(f"python3 show.py {tmp_path}/seen", secret_environment=secrets)
        status, lines = box.run("-B")
    assert status == 1, box.out
    assert (tmp_path / "seen").read_text() == f"{SECRET}first-line-of-a-key\nsecond-line-of-a-key"
    assert lines[:3] == ["Hi *** ***", "http://ann:***@host", "***"]
    assert "Wrong password: ***" in box.out
    for text in (box.out, box.failure or ""):
        assert "quoted" not in text
        assert "line-of-a-key" not in text
    assert (box.failure or "").endswith("Wrong password: ***")


@pytest.mark.parametrize(
    ("arn", "sentence"),
    [
        (f"{ARN}:nothing", "The secret for PASSWORD is no JSON object with the key 'nothing'."),
        (ARN.replace("tracking", "other"), "The secret for PASSWORD cannot be read: An error occurred (AccessDenied"),
        ("arn:aws:ssm:eu-west-1:123456789012:parameter/x", "The secret for PASSWORD is not a Secrets Manager ARN"),
    ],
)
def test_a_secret_that_cannot_be_read_is_told_in_one_sentence(box: Box, arn: str, sentence: str) -> None:
    with serving(secrets_manager) as url:
        with_secrets(box, url)
        box.spec("echo started", secret_environment={"PASSWORD": arn})
        assert box.run("-B") == (errors.NO_SECRET, [])
    assert (box.failure or "").startswith(sentence)
    assert sentence in box.out


def test_a_stop_before_the_command_ends_the_job_at_once(box: Box) -> None:
    with serving(secrets_manager) as url:
        with_secrets(box, url)
        box.spec("echo started", secret_environment={"PASSWORD": ARN + "slow"})
        with box.start("-B") as process:
            assert asked_for_slow.wait(120)  # in the middle of boto3's call
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)
        may_answer.set()
    assert process.returncode == 143
    assert box.failure == "The job was stopped before the command began."


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


EVIL = {
    "parent": [member("../evil")],
    "parent in the middle": [member("a/../../evil")],
    "absolute": [member("/tmp/evil-absolute")],
    "link out": [member("evil", tarfile.SYMTYPE, "../../input")],
    "absolute link": [member("evil", tarfile.SYMTYPE, "/etc")],
    "write through a link": [member("d", tarfile.SYMTYPE, ".."), member("d/evil")],
    "links that add up": [
        member("e", tarfile.SYMTYPE, "a/b/c/../../evil"),  # inside, until the next one changes what it means
        member("a/b/c", tarfile.SYMTYPE, "../.."),
    ],
    "hard link out": [member("evil", tarfile.LNKTYPE, "../../../input/data/job/spec.json")],
    "absolute hard link": [member("evil", tarfile.LNKTYPE, "/etc/passwd")],
    "device": [member("evil", tarfile.CHRTYPE)],
    "pipe": [member("evil", tarfile.FIFOTYPE)],
    "too big": [member("evil", size=60 * 2**30)],
}


@pytest.mark.parametrize("members", EVIL.values(), ids=EVIL)
def test_an_archive_that_reaches_outside_is_refused(box: Box, members: list[tarfile.TarInfo], tmp_path: Path) -> None:
    with tarfile.open(box.archive, "w:gz") as tar:
        for info in members:
            tar.fileobj.write(info.tobuf())  # no data, even where a size is claimed: addfile insists since 3.13
    box.spec("echo started")
    before = {path for path in tmp_path.rglob("*") if "mlflow_project" not in path.parts}
    status, lines = box.run()
    assert (status, lines) == (errors.BAD_ARCHIVE, [])
    assert (box.failure or "").startswith("The project's archive cannot be used: ")
    after = {path for path in tmp_path.rglob("*") if "mlflow_project" not in path.parts}
    assert after - before == {box.base / "output/failure"}
    assert not Path("/tmp/evil-absolute").exists()


def test_links_inside_a_project_are_kept(box: Box) -> None:
    data = member("a/file", size=4)
    box.pack_members(
        [
            (member("a/up", tarfile.SYMTYPE, "../b/soft"), b""),
            (data, b"text"),
            (member("b/hard", tarfile.LNKTYPE, "a/file"), b""),
            (member("b/soft", tarfile.SYMTYPE, "../a/file"), b""),
            (member("folder", tarfile.SYMTYPE, "a"), b""),
        ]
    )
    box.spec("cat a/up b/hard b/soft folder/file")
    assert box.run() == (0, ["text" * 4])


def test_a_changed_archive_and_a_broken_spec_are_told(box: Box) -> None:
    box.spec("echo started", sha256="0" * 64)
    assert box.run() == (errors.BAD_ARCHIVE, [])
    assert "it was changed or cut on its way" in (box.failure or "")
    (box.job / "spec.json").write_text('{"version": 2, "command": "echo started"}')
    assert box.run() == (errors.BAD_SPEC, [])
    assert box.failure == "spec.json is of version 2, or its command is no text."


@pytest.mark.parametrize("here", ["algo-1", "algo-2"])
def test_only_the_first_of_several_hosts_logs_to_the_run(box: Box, here: str) -> None:
    hosts = {"hosts": ["algo-2", "algo-10", "algo-1"], "current_host": here}
    (box.base / "input/config/resourceconfig.json").write_text(json.dumps(hosts))
    box.spec(
        "echo $MLFLOW_TRACKING_URI ${MLFLOW_RUN_ID-none} ${MLFLOW_EXPERIMENT_ID-none}",
        environment={"MLFLOW_TRACKING_URI": "http://tracking", "MLFLOW_RUN_ID": "r1"},
        experiment_id="7",
    )
    status, lines = box.run()
    assert status == 0
    database = f"sqlite:///{box.base}/mlflow_project/not_the_first_host.db"
    assert lines == ["http://tracking r1 7" if here == "algo-1" else f"{database} none none"]


def test_inputs_are_downloaded_and_their_quoted_paths_take_the_tokens_places(box: Box, tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data/it's a file.txt").write_text("contents\n")
    box.spec(
        "cat @@INPUT_0@@; ls -d @@INPUT_0@@",
        inputs=[{"token": "@@INPUT_0@@", "uri": (tmp_path / "my data/it's a file.txt").as_uri()}],
    )
    status, lines = box.run("-B")
    assert status == 0, box.out
    assert lines[-2] == "contents"
    assert lines[-1].startswith(str(box.base / "mlflow_project/inputs/0"))
    box.spec("echo started", inputs=[{"token": "@@INPUT_0@@", "uri": "s3://bucket/key"}])
    box.pack({"mlflow.py": "the project's own module must not be imported"})
    box.spec("echo started", inputs=[{"token": "@", "uri": f"file://{tmp_path}/missing?signature=abc"}])
    status, lines = box.run("-B")
    assert status == errors.NO_INPUT
    assert "started" not in lines
    assert (box.failure or "").startswith(f"The input file://{tmp_path}/missing?*** cannot be downloaded: ")
    assert "signature" not in box.out


# A build backend in the package itself: nothing has to be fetched to build it.
BACKEND = """
import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(wheel_directory + "/tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "value = 42")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return "tiny-1.0-py3-none-any.whl"
"""
BUILD = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def test_packages_are_installed_above_those_of_the_image(box: Box) -> None:
    box.environment.update(PIP_NO_INDEX="1", UV_OFFLINE="1", UV_NO_CACHE="1")
    box.pack({"a dir/backend.py": BACKEND, "a dir/pyproject.toml": BUILD, "requirements.txt": "./a dir\nboto3\n"})
    # boto3 is in the image (this test's own environment); python3 runs in the new environment, the other beside it.
    check = "import os, sys, tiny, boto3; print(tiny.value, sys.prefix == os.environ['VIRTUAL_ENV'])"
    script = f'python3 -c "{check}"; "{sys.executable}" -c "{check}"'
    box.spec(script, install=["./a dir", "tiny ; python_version >= '3.8'"])
    status, lines = box.run("-B")
    assert status == 0, box.out
    assert lines[-2:] == ["42 True", "42 False"]

    hashed = f"no-such ; python_version < '3' --hash=sha256:{'0' * 64}"
    box.spec("ls -A", install=[hashed])
    status, lines = box.run("-B")
    assert status == 0, box.out
    assert not [line for line in lines if line.endswith("-requirements.txt")]

    box.spec("echo started", install=["-r missing.txt"])
    status, lines = box.run("-B")
    assert status == errors.NO_PACKAGES
    assert "started" not in lines
    assert (box.failure or "").startswith("The project's packages cannot be installed: the installer ended with")
    assert "missing.txt" in (box.failure or "")


def test_a_line_that_is_redrawn_is_passed_on_once_a_second_and_at_its_end() -> None:
    seconds, output = 0.0, output_module.Output()
    lines = output_module.Lines(output, clock=lambda: seconds)
    for step in range(1, 131):
        seconds += 0.25
        lines.feed(b"\r%d%%" % step)
    lines.feed(b"\n", final=True)
    assert list(output.tail) == [f"{step}%" for step in (*range(1, 130, 4), 130)]


def test_progress_bars_become_lines(box: Box) -> None:
    box.pack(
        {
            "bar.py": """
import sys
print("windows line", end="\\r\\n")
for step in range(1, 131):
    sys.stderr.write("\\r%d%%|%s" % (step, "#" * (step % 10)))
    sys.stderr.flush()
sys.stderr.write("\\n")
print("between\\n\\nlines")
sys.stdout.write("10 of 20\\r20 of 20\\r\\nno end")
"""
        }
    )
    box.spec("python3 -S bar.py")
    status, lines = box.run()
    assert status == 0
    assert lines[0] == "windows line"
    bar = lines[1 : lines.index("between")]
    assert bar[-1] == "130%|"
    assert lines[lines.index("between") :] == ["between", "", "lines", "20 of 20", "no end"]


def test_a_long_command_runs_and_a_too_long_argument_is_told(box: Box) -> None:
    box.spec("echo one" + " x" * 200_000 + " | wc -w")
    assert box.run() == (0, ["200001"])
    box.spec("/bin/echo " + "x" * 200_000)
    status, _ = box.run()
    assert status == 126
    assert "Argument list too long" in box.failure
