"""An instance of a training job: its folder, its environment and its process."""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath
from typing import Any

from sagemaker_local import instance
from sagemaker_local.jobs import TrainingJob
from sagemaker_local.options import JOB_KEY, JOB_SECRET, Context
from sagemaker_local.storage import LogStream, Storage, is_inside

OPT_ML = "/opt/ml"
CANNOT_PULL = 125  # docker's and podman's exit status when they cannot begin
# All that a job as a process gets of the stand-in's own environment.
_INHERITED = (
    "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
_GROUP = "homogeneousCluster"  # the service's name for instances without groups


class Instance:
    """One machine of a job, from its empty folder to the end of its process.

    :param number: from 0
    :param folder: private to this instance and to this start
    """

    def __init__(self, context: Context, job: TrainingJob, number: int, folder: Path) -> None:
        self._context, self._job, self._number, self._folder = context, job, number, folder
        self._count: int = job.request["ResourceConfig"]["InstanceCount"]
        self.host = f"algo-{number + 1}"
        self.base = folder / "ml"
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._known_checkpoints: dict[Path, tuple[int, int]] = {}

    @property
    def model(self) -> Path:
        """What becomes model.tar.gz."""
        return self.base / "model"

    @property
    def output(self) -> Path:
        """What becomes output.tar.gz."""
        return self.base / "output" / "data"

    @property
    def pid(self) -> int | None:
        """The process that watches over the command."""
        return self._process.pid if self._process else None

    def stage(self, storage: Storage) -> None:
        """Make the folder: configuration, channels, checkpoints."""
        for name in ("input/config", "input/data", "model", "output/data", "code"):
            (self.base / name).mkdir(parents=True)
        (self._folder / "work").mkdir()
        (self._folder / "hosts").write_text(self._hosts_file())
        for name, content in self._configuration().items():
            (self.base / "input/config" / f"{name}.json").write_text(json.dumps(content))
        for channel in self._job.request.get("InputDataConfig", ()):
            source = channel["DataSource"]["S3DataSource"]
            sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
            folder = self.base / "input/data" / channel["ChannelName"]
            folder.mkdir()
            storage.download(source["S3Uri"], folder, (self._number, self._count) if sharded else (0, 1))
        if checkpoints := self._checkpoints():
            checkpoints[0].mkdir(parents=True, exist_ok=True)
            self._known_checkpoints = storage.download(checkpoints[1], checkpoints[0])

    def sync_checkpoints(self, storage: Storage) -> None:
        """Bring changed checkpoints to S3."""
        if checkpoints := self._checkpoints():
            storage.upload_changed(*checkpoints, self._known_checkpoints)

    def start(self) -> None:
        """Start the command; its output goes to CloudWatch Logs."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", instance.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the stand-in's to handle
        )
        self._tell(
            json.dumps(self._container_spec() if self._context.knobs.engine else self._spec()).encode() + b"\n"
        )
        stream = LogStream(self._context, self._job.region, self._job.name, self.host)
        self._reader = threading.Thread(target=self._read, args=(self._process, stream), daemon=True)
        self._reader.start()

    def terminate(self) -> None:
        """Send SIGTERM to the command, and to it alone, as a container engine does."""
        self._tell(b"T")

    def kill(self) -> None:
        """Kill the command with all that it started."""
        self._tell(b"K")

    def exit_code(self) -> int | None:
        """Return the command's exit status once its output is on its way too."""
        if self._process is None or self._process.poll() is None:
            return None
        if self._reader:
            self._reader.join(timeout=10)
        return self._process.returncode

    def trouble(self) -> str:
        """Return why the command could not be started, or ""."""
        file = self._folder / "trouble"
        return file.read_text(errors="replace") if file.exists() else ""

    def failure(self) -> str:
        """Return what the command wrote as the reason of its failure."""
        file = self.base / "output" / "failure"
        return file.read_text(errors="replace").strip() if is_inside(file, self.base) else ""

    def remove(self) -> None:
        """Close the pipe, which ends everything, and delete the folder."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()
        if not self._context.knobs.keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _tell(self, letters: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(letters)
        except (BrokenPipeError, ValueError):  # it has ended
            return

    def _read(self, process: subprocess.Popen[bytes], stream: LogStream) -> None:
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 65536):
            stream.feed(chunk)
        if trouble := self.trouble():
            stream.feed(trouble.encode())
        stream.end()
        process.stdout.close()

    def _checkpoints(self) -> tuple[Path, str] | None:
        config = self._job.request.get("CheckpointConfig")
        if not config:
            return None
        local = below_opt_ml(config.get("LocalPath", f"{OPT_ML}/checkpoints"))
        assert local is not None  # or the request had been refused
        return self.base / local, config["S3Uri"]

    def _configuration(self) -> dict[str, Any]:
        request, resources = self._job.request, self._job.request["ResourceConfig"]
        hosts = [f"algo-{number + 1}" for number in range(self._count)]
        kind = resources.get("InstanceType", "")
        mode = request["AlgorithmSpecification"]["TrainingInputMode"]
        group = {"instance_group_name": _GROUP, "instance_type": kind, "hosts": hosts}
        return {
            "hyperparameters": request.get("HyperParameters", {}),
            "resourceconfig": {
                "current_host": self.host,
                "current_instance_type": kind,
                "current_group_name": _GROUP,
                "hosts": hosts,
                "instance_groups": [group],
                "network_interface_name": "lo",
            },
            "inputdataconfig": {
                channel["ChannelName"]: {
                    "TrainingInputMode": channel.get("InputMode", mode),
                    "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                        "S3DataDistributionType", "FullyReplicated"
                    ),
                    "RecordWrapperType": channel.get("RecordWrapperType", "None"),
                    **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
                }
                for channel in request.get("InputDataConfig", ())
            },
        }

    def _hosts_file(self) -> str:
        # Programs in the job look the other instances up by name; here all are this machine.
        try:
            own = Path("/etc/hosts").read_text()
        except OSError:
            own = "127.0.0.1 localhost\n"
        return own + "".join(f"\n127.0.0.{number + 1} algo-{number + 1}" for number in range(self._count)) + "\n"

    def _variables(self) -> dict[str, str]:
        """Return what the service and the request give to the command."""
        return {
            "AWS_REGION": self._job.region,
            "AWS_DEFAULT_REGION": self._job.region,
            "AWS_ENDPOINT_URL": self._context.url,
            "AWS_ACCESS_KEY_ID": JOB_KEY,
            "AWS_SECRET_ACCESS_KEY": JOB_SECRET,
            **self._job.request.get("Environment", {}),
            "TRAINING_JOB_NAME": self._job.name,
            "TRAINING_JOB_ARN": self._job.arn,
        }

    def _command(self) -> list[str]:
        algorithm = self._job.request["AlgorithmSpecification"]
        # Without an entry point the service runs "docker run IMAGE train".
        return [*algorithm.get("ContainerEntrypoint", ["train"]), *algorithm.get("ContainerArguments", ())]

    def _spec(self) -> dict[str, Any]:
        private = self._context.private_opt_ml
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        kept = (*_INHERITED, *self._context.knobs.passed_variables)
        return {
            "argv": self._command() if private else [self._below_base(word) for word in self._command()],
            "environment": {
                **{name: os.environ[name] for name in kept if name in os.environ},
                "PATH": path,
                **self._variables(),
                **({} if private else {"SAGEMAKER_BASE_DIR": str(self.base)}),
            },
            "cwd": str(self._folder / "work"),
            "mounts": [[str(self.base), OPT_ML], [str(self._folder / "hosts"), "/etc/hosts"]] if private else [],
            "engine": {},
            "trouble": str(self._folder / "trouble"),
        }

    def _below_base(self, word: str) -> str:
        """Let a path of the command that names ``/opt/ml`` lead to the job's own folder."""
        path = below_opt_ml(word)
        return word if path is None else str(self.base / path)

    def _container_spec(self) -> dict[str, Any]:
        engine = self._context.knobs.engine
        algorithm, variables = self._job.request["AlgorithmSpecification"], self._variables()
        name = f"sagemaker-local-{self._job.name}-{self.host}-{os.getpid()}"
        entry, *rest = self._command()
        if "ContainerEntrypoint" not in algorithm:
            entry, rest = "", ["train", *rest]
        argv = [engine, "run", "--rm", "--sig-proxy=false", "--name", name, "--network=host"]
        argv += ["--volume", f"{self.base}:{OPT_ML}"]
        for number in range(self._count):
            argv += ["--add-host", f"algo-{number + 1}:127.0.0.{number + 1}"]
        for variable in variables:  # the values come from the engine's environment: ps does not show them
            argv += ["--env", variable]
        argv += [*(["--entrypoint", entry] if entry else []), algorithm["TrainingImage"], *rest]
        return {
            "argv": argv,
            "environment": {**os.environ, **variables},
            "cwd": str(self._folder / "work"),
            "mounts": [],
            "engine": {
                "term": [engine, "kill", "--signal=TERM", name],
                "kill": [engine, "kill", name],
                "remove": [engine, "rm", "--force", name],
            },
            "trouble": str(self._folder / "trouble"),
        }


def below_opt_ml(path: str) -> PurePosixPath | None:
    """Return a path of a job relative to ``/opt/ml``, None if it is elsewhere, ``..`` and all that considered."""
    normal = PurePosixPath(posixpath.normpath(path))
    return normal.relative_to(OPT_ML) if normal.is_relative_to(OPT_ML) else None


def private_opt_ml_works(folder: Path) -> bool:
    """Find out whether jobs can get a private /opt/ml; make the empty mount point."""
    try:
        Path(OPT_ML).mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    (folder / "probe").mkdir(parents=True, exist_ok=True)
    spec = {
        "argv": ["true"], "environment": dict(os.environ), "cwd": "/", "engine": {},
        "mounts": [[str(folder / "probe"), OPT_ML]], "trouble": str(folder / "trouble"),
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-I", "-S", instance.__file__], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(spec).encode() + b"\n")
        process.stdin.flush()
        return process.wait() == 0
