"""Runs an MLflow Project's command in the container of a SageMaker training job.

The worker puts this file and ``spec.json`` on S3 and names ``python3 /opt/ml/input/data/job/runner.py`` as the
container's entry point. AWS's own start-up code is left out on purpose: it does not forward SIGTERM, so a
stopped job would lose its last checkpoint. Python 3.8 or newer and its standard library are enough; boto3 is
wanted only for secrets, mlflow only for inputs.

``spec.json`` holds ``version`` (1), ``command`` (for ``bash -c``) and, all optional:

- ``sha256``: of the project's archive
- ``inputs``: ``{"token", "uri"}`` each; the URI is downloaded, its quoted path takes the token's place
- ``environment``: variables of the command
- ``secret_environment``: variables whose values are in AWS Secrets Manager, by ARN as Amazon ECS writes them
- ``install``: arguments for ``pip install``, into an environment that also sees the image's packages
- ``run_id``, ``experiment_id``: the attempt's MLflow run; on several instances the first one alone logs to it
- ``restarts``: whether the platform may start this job again after it stopped it

The exit status is the command's own, 128 + n after signal n. What fails before the command starts has another:
70 a mistake in this file, 71 spec.json, 72 the archive, 73 a secret, 74 an input, 75 the packages, 76 the command
cannot be started; 143 (SIGTERM) or 130 (SIGINT) if the job was stopped by then. Whatever fails is told in
``/opt/ml/output/failure``, which SageMaker shows as FailureReason.
"""

from __future__ import annotations

import base64
import codecs
import collections
import contextlib
import ctypes
import hashlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import site
import ssl
import subprocess
import sys
import tarfile
import time
import traceback
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

BUG, BAD_SPEC, BAD_ARCHIVE, NO_SECRET, NO_INPUT, NO_PACKAGES, NOT_STARTED = range(70, 77)

MAX_BYTES, MAX_MEMBERS = 50 * 2**30, 1_000_000  # of the unpacked project
MAX_FAILURE = 1024  # bytes; SageMaker cuts FailureReason there
_TAIL = 40  # lines of output that the failure file may quote
_MAX_LINE = 32_768
_MAX_ARGUMENT = 120_000  # bytes; Linux takes 128 KiB
_SHOWN = 2_000  # characters of a command
_PROGRESS_SECONDS = 1.0
_LEFT_BEHIND_GRACE = 1.0  # for what a command leaves behind when it ends by itself
_STOP_GRACE = 100.0  # for the same after a stop; SageMaker sends SIGKILL 120 s after SIGTERM
_TRACKING_TIMEOUT = 5.0
_REASON_TAG = "mlflow_projects.reason"  # the worker writes it before it stops a job
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-HJKSTfhlsu]")  # what a progress bar moves with; colours stay
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class RunnerError(Exception):
    """The command could not be started: an exit status and one sentence that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Stopped(BaseException):
    """A signal came before the command was started; no library may swallow it."""


# --- output ---------------------------------------------------------------------------------------------------


class Output:
    """Standard output, with secrets masked; it remembers the command's last lines."""

    def __init__(self) -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._secrets: list[str] = []
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]

    def hide(self, secret: str | None) -> None:
        """Mask a value from now on, also as it stands in a URL, and each of its lines if it has many."""
        text = secret or ""
        found = {text, urllib.parse.quote(text), urllib.parse.quote(text, safe=""), urllib.parse.quote_plus(text)}
        found.update(line for line in text.splitlines() if len(line) >= 8)
        found.update(self._secrets)
        self._secrets = sorted((part for part in found if len(part) >= 3), key=len, reverse=True)

    @property
    def longest_secret(self) -> int:
        return len(self._secrets[0]) if self._secrets else 0

    def mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def note(self, text: str) -> None:
        """Write a line of the runner's own."""
        self._write("[mlflow_projects] " + self.mask(text))

    def line(self, text: str) -> None:
        """Write a line of the command's."""
        text = _CURSOR.sub("", self.mask(text))
        self.tail.append(text)
        self._write(text)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads: no reason to lose the command's work
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


class Lines:
    """Cuts a command's bytes into lines.

    A line that is redrawn (a progress bar ends it with a carriage return) is passed on at most once a second,
    and its last state always.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output, self._clock = output, clock
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""  # an unfinished line
        self._state = self._shown = ""  # of a redrawn line: the newest state, and the one passed on last
        self._shown_at = float("-inf")

    def feed(self, data: bytes, final: bool = False) -> None:
        *lines, rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        for line in lines:
            self._finish(line)
        # A carriage return at the very end may be half of "\r\n".
        held = "\r" if rest.endswith("\r") and not final else ""
        *states, rest = rest[: len(rest) - len(held)].split("\r")
        self._keep_newest(states)
        self._rest = rest + held
        if len(self._rest) > _MAX_LINE + self._output.longest_secret:
            masked = self._output.mask(self._rest)
            cut = max(len(masked) - self._output.longest_secret, 0)  # half a secret may stand at the end
            self._rest = masked[cut:]
            self._output.line(masked[:cut])
        if final and (self._rest or self._state):
            self._finish(self._rest)
            self._rest = ""

    def idle(self) -> None:
        """Note that no output came for a moment: an unfinished state is then a whole one."""
        if self._state or self._shown:
            self._keep_newest([self._rest.rstrip("\r")])

    def _finish(self, line: str) -> None:
        states = (line[:-1] if line.endswith("\r") else line).split("\r")
        redrawn = len(states) > 1 or bool(self._state or self._shown)
        last = next((state for state in reversed(states) if state.strip()), self._state) if redrawn else states[0]
        if not redrawn or last != self._shown:
            self._output.line(last)
        self._state, self._shown, self._shown_at = "", "", float("-inf")

    def _keep_newest(self, states: Iterable[str]) -> None:
        for state in states:
            self._state = state.rstrip() or self._state
        now = self._clock()
        if self._state and self._state != self._shown and now - self._shown_at >= _PROGRESS_SECONDS:
            self._shown, self._shown_at = self._state, now
            self._output.line(self._state)


def failure_text(sentence: str, lines: Iterable[str]) -> bytes:
    """Return a sentence and as many of the last lines as fit, in UTF-8."""
    head = sentence.encode("utf-8", "replace")[:MAX_FAILURE]
    tail = "\n".join(line for line in (_ESCAPES.sub("", line).rstrip() for line in lines) if line)
    room = MAX_FAILURE - len(head) - 1
    if not tail or room <= 0:
        return head.decode("utf-8", "ignore").encode()
    return head + b"\n" + tail.encode("utf-8", "replace")[-room:].decode("utf-8", "ignore").encode()


# --- processes ------------------------------------------------------------------------------------------------


class Processes:
    """Runs commands one after the other, each in a session of its own, and passes signals on to them."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._group = 0
        self.signal = 0  # the first one that came
        self.stopped = False  # whether it came before the last command ended
        self._signalled_at = 0.0
        self.interruptible = True  # while nothing runs: let a signal end what this process does
        self._libc: ctypes.CDLL | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._libc = ctypes.CDLL(None)
                self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans come to us
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if not self.signal:
            self.signal, self._signalled_at = number, time.monotonic()
        if self._group:
            self._send(number)
        elif self.interruptible:
            raise Stopped

    def _send(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._group, number)

    def _in_child(self) -> None:
        if self._libc is not None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # should the runner itself be killed

    def run(self, argv: list[str], cwd: Path, environment: dict[str, str]) -> int:
        """Run a command to its end, and the end of all that it started; return its exit status."""
        self.output.tail.clear()
        interruptible, self.interruptible = self.interruptible, False
        try:
            process = subprocess.Popen(
                argv,
                cwd=str(cwd),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=self._in_child,
            )
            self._group = process.pid
            if self.signal:  # it came between the last look and now
                self._send(self.signal)
            process.returncode = self._watch(process)
        finally:
            self._group, self.interruptible = 0, interruptible
        if self.signal and interruptible:
            raise Stopped
        return int(process.returncode)

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        assert process.stdout is not None
        pipe, lines = process.stdout.fileno(), Lines(self.output)
        status: int | None = None
        deadline = float("inf")
        reading = True
        while True:
            if reading and select.select([pipe], [], [], 0.2)[0]:
                data = os.read(pipe, 65_536)
                reading = bool(data)
                lines.feed(data)
            elif reading:
                lines.idle()
            else:
                time.sleep(0.05)
            ended = _reap(process.pid)
            if status is None and ended is not None:
                status, self.stopped = ended, bool(self.signal)
                deadline = self._clear_up(process.pid)
            if status is None:
                continue
            left = _descendants()
            if left and time.monotonic() >= deadline:
                for pid, _ in left:
                    _kill(pid, signal.SIGKILL)
            elif not left and not (reading and select.select([pipe], [], [], 0)[0]):
                lines.feed(b"", final=True)
                process.stdout.close()
                return status

    def _clear_up(self, group: int) -> float:
        """Ask what the command left behind to end; return the time by which it must have.

        After a stop, the group has its signal already and may be writing a checkpoint: a shell dies of the
        signal at once, the program that it started does not.
        """
        left = [pid for pid, pgrp in _descendants() if not self.signal or pgrp != group]
        for pid in left:
            _kill(pid, signal.SIGTERM)
        if left:
            self.output.note(f"Stopping {len(left)} process(es) that the command left behind.")
        return self._signalled_at + _STOP_GRACE if self.signal else time.monotonic() + _LEFT_BEHIND_GRACE


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _reap(wanted: int) -> int | None:
    """Collect ended children, adopted ones included; return the exit status of the one wanted, if it ended."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == wanted:
                found = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return found


def _descendants() -> list[tuple[int, int]]:
    """Return the ids of all living processes below this one, each with that of its group."""
    children: dict[int, list[tuple[int, int]]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, group = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
            if state not in (b"Z", b"X"):
                children.setdefault(int(parent), []).append((int(entry.name), int(group)))
    found: list[tuple[int, int]] = []
    to_visit = [os.getpid()]
    while to_visit:
        below = children.get(to_visit.pop(), [])
        found += below
        to_visit += [pid for pid, _ in below]
    return found


# --- the project ----------------------------------------------------------------------------------------------


def unpack(archive: Path, sha256: str, folder: Path) -> int:
    """Unpack the project into a folder; return how many members it has.

    Links are made last and looked at together, so that nothing is ever written through one and no two of them
    add up to a way out.
    """
    try:
        digest = hashlib.sha256()
        with archive.open("rb") as stream:
            while True:
                block = stream.read(2**20)
                if not block:
                    break
                digest.update(block)
        if sha256 and digest.hexdigest() != sha256:
            raise _bad(f"its SHA-256 is {digest.hexdigest()}, not {sha256}: it was changed or cut on its way")
        folder.mkdir(parents=True)
        links: dict[Path, str] = {}
        members = size = 0
        with tarfile.open(str(archive), "r:gz") as tar:
            for member in tar:
                members, size = members + 1, size + max(member.size, 0)
                if members > MAX_MEMBERS or size > MAX_BYTES:
                    raise _bad(f"it holds more than {MAX_MEMBERS} files or {MAX_BYTES} bytes")
                _extract(tar, member, folder, links)
        for path, target in links.items():
            path.symlink_to(target)
        root = folder.resolve()
        for path in links:
            if root != path.resolve() and root not in path.resolve().parents:
                raise _bad(f"the link {str(path.relative_to(folder))!r} leads out of it")
        return members
    except (OSError, EOFError, ValueError, RuntimeError, tarfile.TarError) as error:
        raise _bad(str(error)) from None


def _bad(reason: str) -> RunnerError:
    return RunnerError(BAD_ARCHIVE, f"The project's archive cannot be used: {reason}.")


def _place(folder: Path, name: str) -> Path:
    """Return where a member of the archive goes."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _bad(f"its member {name!r} would land outside")
    return folder.joinpath(*parts)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, links: dict[Path, str]) -> None:
    path = _place(folder, member.name)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        links[path] = member.linkname
    elif member.islnk():
        os.link(str(_place(folder, member.linkname)), str(path))
    elif member.isfile():
        source = tar.extractfile(member)
        assert source is not None
        with source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, 2**20)
        path.chmod(member.mode & 0o777 | 0o600)
    else:
        raise _bad(f"its member {member.name!r} is neither a file, a folder nor a link")


# --- secrets --------------------------------------------------------------------------------------------------


def read_secrets(wanted: dict[str, str], output: Output) -> dict[str, str]:
    """Return variables with their values from AWS Secrets Manager; they are masked from then on.

    An ARN may go on with ``:json-key:version-stage:version-id``, each of them possibly empty:
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
    """
    if not wanted:
        return {}
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise RunnerError(NO_SECRET, "Secrets need boto3, which this image's python3 lacks.") from None
    config = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 5})
    answers: dict[str, str] = {}
    values = {}
    for name, arn in wanted.items():
        parts = arn.split(":")
        if len(parts) < 7 or parts[2] != "secretsmanager" or len(parts) > 10:
            raise RunnerError(NO_SECRET, f"The secret for {name} is not a Secrets Manager ARN: {arn!r}.")
        key, stage, version = ([*parts[7:], "", "", ""])[:3]
        request = {"SecretId": ":".join(parts[:7]), "VersionStage": stage, "VersionId": version}
        request = {field: value for field, value in request.items() if value}
        asked = repr(request)
        try:
            if asked not in answers:
                client = boto3.client("secretsmanager", region_name=parts[3], config=config)
                answer = client.get_secret_value(**request)
                answers[asked] = answer.get("SecretString") or bytes(answer.get("SecretBinary", b"")).decode()
                output.hide(answers[asked])
        except Exception as error:
            raise RunnerError(NO_SECRET, f"The secret for {name} cannot be read: {_one_line(error)}") from None
        values[name] = _member_of(answers[asked], key, name) if key else answers[asked]
        output.hide(values[name])
    return values


def _member_of(secret: str, key: str, name: str) -> str:
    try:
        value = json.loads(secret)[key]
    except (ValueError, KeyError, TypeError):  # whose texts may quote the secret
        raise RunnerError(NO_SECRET, f"The secret for {name} is no JSON object with the key {key!r}.") from None
    return value if isinstance(value, str) else json.dumps(value)


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- packages and inputs --------------------------------------------------------------------------------------


def install(
    requirements: list[str], project: Path, folder: Path, environment: dict[str, str], processes: Processes
) -> dict[str, str]:
    """Make an environment above the image's own packages and install into it; return the variables that activate it.

    pip comes first: unlike uv, it counts what the image has (PyTorch, say) as installed.
    """
    python = str(folder / "bin" / "python")
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    pip_variables = {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    setting_up = {**environment, **pip_variables}
    made = [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(folder)]
    if processes.run(made, folder.parent, setting_up):
        raise _no_packages("a virtual environment cannot be made")
    if sys.prefix != sys.base_prefix:  # the image's python3 is one of a virtual environment itself
        lines = (f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
        (packages / "_image.pth").write_text("".join(lines))
    arguments: list[str] = []
    for requirement in requirements:  # an option such as "-r requirements.txt" is two words, a requirement is one
        arguments += shlex.split(requirement) if requirement.startswith("-") else [requirement]
    if _has_pip(python):
        command = [python, "-I", "-m", "pip", "install", *arguments]  # -I: no module of the project's stands in
    elif shutil.which("uv", path=environment.get("PATH")):
        command = ["uv", "pip", "install", "--python", python, *arguments]
    else:
        raise _no_packages("the image has neither pip nor uv")
    status = processes.run(command, project, setting_up)
    if status:
        raise _no_packages(f"the installer ended with exit status {status}")
    return {
        "PATH": str(folder / "bin") + os.pathsep + environment.get("PATH", os.defpath),
        "VIRTUAL_ENV": str(folder),
        # The image's own programs, torchrun for one, run under the image's python.
        "PYTHONPATH": os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(packages)])),
    }


def _has_pip(python: str) -> bool:
    done = subprocess.run([python, "-c", "import pip"], stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def _no_packages(reason: str) -> RunnerError:
    return RunnerError(NO_PACKAGES, f"The project's packages cannot be installed: {reason}.")


_DOWNLOAD = (
    "import sys, mlflow.artifacts\n"
    "path = mlflow.artifacts.download_artifacts(artifact_uri=sys.argv[1], dst_path=sys.argv[2])\n"
    "open(sys.argv[3], 'w').write(path)\n"
)


def download(uri: str, folder: Path, environment: dict[str, str], processes: Processes) -> str:
    """Fetch an input as MLflow does; return its path."""
    answer = folder.with_suffix(".path")
    folder.mkdir(parents=True)
    python = shutil.which("python", path=environment["PATH"]) if "VIRTUAL_ENV" in environment else None
    # Not in the project's folder: "-c" would import a project's own mlflow.py.
    status = processes.run(
        [python or sys.executable, "-c", _DOWNLOAD, uri, str(folder), str(answer)], folder, environment
    )
    if status:
        reason = processes.output.tail[-1] if processes.output.tail else f"exit status {status}"
        raise RunnerError(NO_INPUT, f"The input {uri} cannot be downloaded: {reason}")
    return answer.read_text()


# --- the MLflow run -------------------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the password to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Tracking:
    """The two calls of MLflow's REST API that a stop needs."""

    def __init__(self, environment: dict[str, str]) -> None:
        get: Callable[[str], str] = lambda name: environment.get("MLFLOW_TRACKING_" + name, "")  # noqa: E731
        self._base = get("URI").rstrip("/") + "/api/2.0/mlflow/"
        self._headers = {"Content-Type": "application/json", "User-Agent": "mlflow-projects-on-airflow"}
        if get("TOKEN"):
            self._headers["Authorization"] = "Bearer " + get("TOKEN")
        elif get("USERNAME") or get("PASSWORD"):
            pair = (get("USERNAME") + ":" + get("PASSWORD")).encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        context = ssl.create_default_context()
        if get("INSECURE_TLS").lower() in ("1", "true"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif get("SERVER_CERT_PATH"):
            here = Path(get("SERVER_CERT_PATH"))
            context.load_verify_locations(**{"capath" if here.is_dir() else "cafile": str(here)})
        if get("CLIENT_CERT_PATH"):
            context.load_cert_chain(get("CLIENT_CERT_PATH"))
        self._http = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, self._headers)  # noqa: S310 (http only, see below)
        with self._http.open(request, timeout=_TRACKING_TIMEOUT) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def close_stopped(self, run_id: str, restarts: bool) -> str:
        """Give the run of a stopped command its true status; return that, or "" if it has it already.

        MLflow's own atexit hook may have written FINISHED. A job that the platform interrupted, and will start
        again, goes on with the same run; one that was stopped for a reason does not.
        """
        if restarts:
            run = self._call("runs/get?run_id=" + urllib.parse.quote(run_id, safe=""))["run"]
            if not any(tag["key"] == _REASON_TAG for tag in run.get("data", {}).get("tags", [])):
                if run["info"]["status"] == "RUNNING":
                    return ""
                self._call("runs/update", {"run_id": run_id, "status": "RUNNING"})
                return "RUNNING"
        ended = {"run_id": run_id, "status": "KILLED", "end_time": int(time.time() * 1000)}
        self._call("runs/update", ended)
        return "KILLED"


# --- the job --------------------------------------------------------------------------------------------------


class Job:
    """One start of the container, from the spec to the exit status."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._scratch = base / "mlflow_project"  # on the job's own volume, as all of /opt/ml
        self._failure = base / "output" / "failure"
        self.output = Output()
        self._processes = Processes(self.output)

    def run(self) -> int:
        """Do it all; return the exit status."""
        with contextlib.suppress(OSError):
            self._failure.unlink()  # of the start before this one
        try:
            spec = self._read_spec()
            first, host = self._is_first_host()
            command, environment, tracking = self._prepare(spec, first, host)
            self._processes.interruptible = False  # from here on, a signal is the command's
            status = self._start(command, environment)
        except Stopped:
            status = 128 + self._processes.signal
            return self._failed(status, "The job was stopped before the command began.", ())
        except RunnerError as error:
            return self._failed(error.status, str(error), self.output.tail)
        except Exception as error:
            self.output.note(traceback.format_exc())
            return self._failed(BUG, f"The runner failed: {type(error).__name__}: {_one_line(error)}", ())
        if self._processes.stopped and first:
            self._close_run(spec, tracking)
        if status:
            sentence = f"Entry point command failed with exit status {status}."
            return self._failed(status, sentence, self.output.tail)
        return 0

    def _read_spec(self) -> dict[str, Any]:
        try:
            spec = json.loads(Path(__file__).with_name("spec.json").read_text(encoding="utf-8"))
            version, command = spec.get("version", 1), spec["command"]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise RunnerError(BAD_SPEC, f"spec.json cannot be used: {error!r}.") from None
        if version != 1 or not isinstance(command, str):
            raise RunnerError(BAD_SPEC, f"spec.json is of version {version!r}, or its command is no text.")
        return dict(spec)

    def _is_first_host(self) -> tuple[bool, str]:
        """Tell whether this instance owns the MLflow run, and say which one it is."""
        try:
            resources = json.loads((self._base / "input/config/resourceconfig.json").read_text())
            hosts, here = sorted(resources["hosts"]), resources["current_host"]
        except (OSError, ValueError, KeyError, TypeError):
            return True, "the only host"
        return here == hosts[0], f"host {here} of {len(hosts)}"

    def _prepare(self, spec: dict[str, Any], first: bool, host: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """Unpack, resolve, install and download; return the command, its environment, and the true tracking one."""
        shutil.rmtree(str(self._scratch), ignore_errors=True)  # the container may have been started before
        project = self._scratch / "project"
        archive = self._base / "input/data/project/project.tar.gz"
        members = unpack(archive, spec.get("sha256", ""), project)
        self.output.note(f"Unpacked the project ({members} files and folders) on {host}.")

        environment = dict(os.environ)
        environment.update({name: str(value) for name, value in (spec.get("environment") or {}).items()})
        environment.update(read_secrets(spec.get("secret_environment") or {}, self.output))
        environment.setdefault("PYTHONUNBUFFERED", "1")
        for variable, key in (("MLFLOW_RUN_ID", "run_id"), ("MLFLOW_EXPERIMENT_ID", "experiment_id")):
            if spec.get(key):
                environment[variable] = spec[key]
        if (self._base / "checkpoints").is_dir():
            environment["MLFLOW_PROJECTS_CHECKPOINT_DIR"] = str(self._base / "checkpoints")
        if spec.get("install"):
            self.output.note("Installing: " + " ".join(spec["install"]))
            environment.update(
                install(spec["install"], project, self._scratch / "environment", environment, self._processes)
            )
        command = spec["command"]
        for number, wanted in enumerate(spec.get("inputs") or []):
            self.output.hide(urllib.parse.urlsplit(wanted["uri"]).password)
            self.output.hide(urllib.parse.urlsplit(wanted["uri"]).query)  # a signature, most likely
            self.output.note("Downloading " + wanted["uri"])
            folder = self._scratch / "inputs" / str(number)
            path = download(wanted["uri"], folder, environment, self._processes)
            command = command.replace(wanted["token"], shlex.quote(path))
        return command, environment if first else self._aside(environment), environment

    def _aside(self, environment: dict[str, str]) -> dict[str, str]:
        """Return an environment in which MLflow logs into a database that nobody keeps."""
        mine = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI"}
        aside = {name: value for name, value in environment.items() if name not in mine}
        aside["MLFLOW_TRACKING_URI"] = f"sqlite:///{self._scratch / 'not_the_first_host.db'}"
        return aside

    def _start(self, command: str, environment: dict[str, str]) -> int:
        shell = shutil.which("bash", path=environment.get("PATH")) or "/bin/sh"
        self.output.note(f"Running: {command[:_SHOWN]}{' ...' if len(command) > _SHOWN else ''}")
        argv = [shell, "-c", command]
        if len(command.encode()) > _MAX_ARGUMENT:  # parameters of any size: the shell reads them from a file
            script = self._scratch / "command.sh"
            script.write_text(command, encoding="utf-8")
            argv = [shell, str(script)]
        try:
            return self._processes.run(argv, self._scratch / "project", environment)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise RunnerError(NOT_STARTED, f"The command cannot be started: {reason}.") from None

    def _close_run(self, spec: dict[str, Any], environment: dict[str, str]) -> None:
        """Correct the run's status, if a server can be asked; the worker does the same later, more slowly."""
        run_id, uri = environment.get("MLFLOW_RUN_ID"), environment.get("MLFLOW_TRACKING_URI", "")
        if not run_id or not uri.startswith(("http://", "https://")):
            return
        try:
            status = Tracking(environment).close_stopped(run_id, bool(spec.get("restarts")))
        except Exception as error:  # whatever it is, the command's own end must be told
            self.output.note(f"The MLflow run's status cannot be set: {_one_line(error)}")
        else:
            if status:
                self.output.note(f"The job was stopped; the MLflow run is set to {status}.")

    def _failed(self, status: int, sentence: str, lines: Iterable[str]) -> int:
        self._processes.interruptible = False
        sentence = self.output.mask(sentence)
        self.output.note(sentence)
        with contextlib.suppress(OSError):
            self._failure.parent.mkdir(parents=True, exist_ok=True)
            self._failure.write_bytes(failure_text(sentence, lines))
        return status


def main() -> NoReturn:
    """Run the job below the folder that SageMaker makes for it."""
    status = Job(Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")).run()
    os._exit(status)  # at a plain end, a closed standard output would change the status


if __name__ == "__main__":
    main()
