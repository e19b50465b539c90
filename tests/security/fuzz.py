"""What a stranger may write (files of a project, values, addresses, zip files, answers), made up by the thousand.

Each target takes bytes and uses the library as a step or ``mlflow-projects check`` does, without running anything.
Only a :class:`ProjectError` may leave it. ``make fuzz`` runs every target for a while, in a process of its own with
bounded memory: with atheris, which looks for new ways through the code, where it is installed, else with hypothesis.

Usage: python -m tests.security.fuzz [--minutes 60] [TARGET ...]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from mlflow_projects.backends.local.environments import environment_identity
from mlflow_projects.cli.check_rules import lint_project
from mlflow_projects.exceptions import ProjectError, TrackingError
from mlflow_projects.project import archive, repository
from mlflow_projects.project import fetch as fetching
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.command import build_command, check_parameters
from mlflow_projects.project.python_environment import read_python_environment
from mlflow_projects.project.spec import EntryPoint, Parameter, Project, load_project
from mlflow_projects.public_uri import public_text, public_uri
from mlflow_projects.tracking.rest import RestClient
from mlflow_projects.tracking.server import TrackingSettings
from tests.security.test_hostile_answers import HONEST

Target = Callable[[bytes], None]
MEMORY = 4 * 2**30  # bytes of address space; what is read is a few MiB
PATIENCE = 120  # seconds of computing for one example
_SEPARATOR = "\x1f"


@contextlib.contextmanager
def folder_with(**files: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        for file, content in files.items():
            (Path(name) / file.replace("_yaml", ".yaml").replace("_txt", ".txt")).write_bytes(content)
        yield Path(name)


def mlproject(data: bytes) -> None:
    """Read an MLproject file, build its commands with their defaults, and lint it."""
    with folder_with(MLproject=data) as root:
        lint_project(root)
        project = load_project(root)
        for name in [*project.entry_points, *project.broken, "main", "a.py"]:
            with contextlib.suppress(ProjectError):
                entry_point = project.entry_point(name)
                given = {key: "it's $(date)" for key, one in entry_point.parameters.items() if one.default is None}
                build_command(project, entry_point, check_parameters(project, entry_point, given), no_download)


def environment(data: bytes) -> None:
    """Read the file of an environment, a file of requirements, and what makes their key."""
    definition, _, requirements = data.partition(_SEPARATOR.encode())
    for kind in ("python_env", "conda"):
        with contextlib.suppress(ProjectError), folder_with(
            MLproject=b"name: x", r_txt=requirements, **{f"{kind}_yaml": definition}
        ) as root:  # fmt: skip
            lint_project(root)
            project = load_project(root)
            with contextlib.suppress(ProjectError):
                environment_identity(project, "conda" if kind == "conda" else "uv")
            read_python_environment(project)


def command(data: bytes) -> None:
    """Build a command from a template and values: the first declared, the second a default, the third neither."""
    template, *values = data.decode("utf-8", "surrogateescape" if data[:1] == b"!" else "replace").split(_SEPARATOR)
    values = [*values, "", "", ""]
    parameters = {"x": Parameter("x"), "y": Parameter("y", "string", values[1])}
    project, entry_point = Project(Path("/"), None, None, {}), EntryPoint("main", template, parameters)
    checked = check_parameters(project, entry_point, {"x": values[0], **({"z": values[2]} if values[2] else {})})
    build_command(project, entry_point, checked, no_download)


def typed(data: bytes) -> None:
    """Check a value against each type."""
    text = data.decode("utf-8", "replace")
    for kind in ("string", "float", "int", "path", "uri"):
        with contextlib.suppress(ProjectError):
            project = Project(Path("/"), None, None, {})
            entry_point = EntryPoint("main", "a {x}", {"x": Parameter("x", kind)})
            build_command(project, entry_point, check_parameters(project, entry_point, {"x": text}), no_download)


def zip_file(data: bytes) -> None:
    """Unpack a zip file, and leave nothing if that fails."""
    with folder_with(**{"p.zip": data}) as root:
        cache = Cache(root / "cache")
        try:
            with archive.unpacked("p.zip", root / "p.zip", cache):
                pass
        except ProjectError:
            assert not [one for one in cache.root.glob("zips/*") if one.suffix != ".lock"], "half of it is left"
            raise


def source(data: bytes) -> None:
    """Read a project's uri and version as far as no network is needed, and show them."""
    uri, _, version = data.decode("utf-8", "replace").partition(_SEPARATOR)
    public_uri(uri)
    public_text(uri)
    location, local, _, _ = fetching.read_uri(uri, version)
    if local is None:
        repository.check(location, version)


def answer(data: bytes) -> None:
    """Read an answer of a tracking server, whatever it was asked."""
    client = RestClient(TrackingSettings(uri="http://host.invalid", max_retries=0))

    def told(method: str, path: str, request: Mapping[str, Any]) -> httpx.Response:
        return httpx.Response(200, content=data, request=httpx.Request(method, client.settings.uri))

    client._answer = told  # type: ignore[method-assign]
    for ask, _ in HONEST.values():
        with contextlib.suppress(TrackingError):
            ask(client)
    client.close()


def no_download(*_: str) -> str:
    return "/downloaded"


TARGETS: dict[str, Target] = {
    one.__name__: one for one in (mlproject, environment, command, typed, zip_file, source, answer)
}

_YAML = (
    "name: x\n", "entry_points:\n", "  main:\n", "    command: ", "    parameters:\n", "      x: ", "python: ",
    "python_env: ", "conda_env: ", "docker_env: ", "dependencies:\n", "dependencies: ", "- ", "- pip:\n",
    "  - -r r.txt\n", "build_dependencies: ", "{x}", "{x:>99}", "{y!r}", "{x.a}", "2024-13-45",
    "2024-01-01T99:99:99Z", "!!int foo", "!!float ", "!!bool x", "!!timestamp x", "!!binary é", "!!set {a}",
    "!!omap [a: 1]", "!!python/name:os.system", "0x" + "f" * 2000, "1" * 6000, "1" + ":5" * 600, "1:1.5",
    ".inf", ".nan", "~", '"\\ud800"', '"\\0"', "\ufeff", "&a ", "*a", "<<: ", "*a, " * 10, "[" * 60, "]" * 60,
    "{" * 40, "? ", ": ", "| \n", ">\n", "'", '"', "#", "%YAML 1.1\n", "---\n", "...\n", "\t", "\n", "\n  ",
    ", ", "{type: path, default: /}", "{type: float, default: 1e5}", "image: a", "volumes: ",
)  # fmt: skip
_SHELL = (
    "{x}", "{y}", "'{x}'", '"{x}"', "{x:>9}", "{x:{y}}", "{x!r}", "{x[0]}", "{{", "}}", "{", "}", "{}", "$(",
    ")", "(", "((", "))", "$((", "`", "'", '"', "\\", "\n", ";", " && ", " | ", "|", ">", "<", "<<E\n", "\nE\n",
    "<<<", "<(", "bash -c ", "python a.py ", "python -c ", "eval ", "A=", "$A", "${A:-", "${A}", "[[ ", " ]]",
    "[ ", " ]", "if ", "; then ", "; fi", "case x in ", "esac", "f() { ", "; }", "f ", "while ", "do ", "done",
    "for a in ", "awk ", "sed ", "xargs ", "ssh h ", "trap ", "env ", "cat ", "echo ", "a", " ", "!", "$'", "&",
    "#", "$", "*", "~", "make ", "-c ", "--x ", "=", "\0", "é",
)  # fmt: skip
_REQUIREMENTS = ("-r r.txt\n", "-r ", "--requirement=", "a\n", "\n", "é", "#")
_VALUES = (
    "", "x", "1", "it's $(date)", "a b", "-x", "\n", "\0", "é", "'" * 50, "999", "99999", "\\", "9" * 6000,
    "//[", "%00", "file:", "~nobody", "~", "/", "..", "http://[", "s3://b/c", "runs:/", "x" * 300, "a[$(b)]",
    "\ud800",
)  # fmt: skip
_URIS = (
    "https://", "git@h:", "file://", "file:", "ssh://", "/", "#", "..", "@", ":", "[", "]", "%00", "%2e", "~",
    "~x/", ".zip", ".git", "user:pass", "h", "a" * 300, "\x00", "?", "&token=", "'", '"', " ", "\n", "main",
    "v1", "0" * 40, "-u", "é", "ﬀ", "℀", "\u2100",
)  # fmt: skip


def _texts(fragments: tuple[str, ...], many: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(fragments) | st.text(max_size=8), max_size=many).map("".join)


def _joined(*texts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return st.tuples(*texts).map(lambda parts: _SEPARATOR.join(parts).encode("utf-8", "surrogatepass"))


def _zip(members: list[tuple[str, bytes, int, int]], changes: list[tuple[int, int]]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, content, method, mode in members:
            member = zipfile.ZipInfo("x")
            member.filename = name
            member.compress_type = method
            member.external_attr = mode << 16
            with warnings.catch_warnings(), contextlib.suppress(UnicodeEncodeError):
                warnings.simplefilter("ignore")  # a name twice
                packed.writestr(member, content)
    data = bytearray(made.getvalue())
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data)


def _edited(text: str, changes: list[tuple[int, str]]) -> bytes:
    for place, new in changes:
        at = place % (len(text) + 1)
        text = text[:at] + new + text[at + 1 :]
    return text.encode("utf-8", "surrogatepass")


_JSON = (
    '"', "{}", "[]", "null", "true", "-1", "1e999", "NaN", "9" * 400, "\\ud800", ",", ":", "[" * 2000, "{", "}", "é",
    "0.5", '"next_page_token": "x", ', "\0",
)  # fmt: skip
_NAMES = (
    "", ".", "..", "/", "a", "a/", "a/b", "a/b/c", "../a", "/a", "C:\\a", "a\\b", "a" * 256, "a/" * 200 + "b",
    "MLproject", ".git/config", "x\0y", "é" * 128, "CON", "a:b",
)  # fmt: skip
_MEMBERS = st.tuples(
    st.sampled_from(_NAMES) | st.text(max_size=5),
    st.binary(max_size=30),
    st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
    st.sampled_from((0, 0o100644, 0o100000, 0o120777, 0o060600, 0o010600, 0o040755, 0o106755)),
)
EXAMPLES: dict[str, st.SearchStrategy[bytes]] = {
    "mlproject": _joined(_texts(_YAML + _SHELL, 20) | _texts(_YAML, 12)) | st.binary(max_size=60),
    "environment": _joined(_texts(_YAML, 12), _texts(_REQUIREMENTS, 8)),
    "command": _joined(_texts(_SHELL, 14), *[st.sampled_from(_VALUES) | st.text(max_size=9)] * 3),
    "typed": _joined(_texts(_VALUES, 3)),
    "zip_file": st.builds(
        _zip,
        st.lists(_MEMBERS, max_size=5),
        st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    ) | st.binary(max_size=60),
    "source": _joined(_texts(_URIS, 8), _texts(_URIS, 3)),
    "answer": st.builds(
        _edited,
        st.sampled_from([json.dumps(content) for _, content in HONEST.values()]),
        st.lists(st.tuples(st.integers(0, 600), st.sampled_from(_JSON) | st.text(max_size=3)), max_size=5),
    ),
}  # fmt: skip


def run_example(target: Target, data: bytes) -> None:
    """Run a target once; a :class:`ProjectError` is as good as none.

    :raises Exception: any other one
    """
    with contextlib.suppress(ProjectError):
        target(data)


def with_hypothesis(name: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    ran = 0

    @settings(
        max_examples=500,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=DirectoryBasedExampleDatabase(".hypothesis/fuzz"),
    )
    @given(EXAMPLES[name])
    def example(data: bytes) -> None:
        nonlocal ran
        ran += 1
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
        run_example(TARGETS[name], data)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    while time.monotonic() < until:
        example()
    print(f"{name}: {ran} examples", flush=True)


# Only the library's own code is watched for new ways: all that it imports would take minutes to prepare.
_WATCHED = """
import sys, atheris
with atheris.instrument_imports(include=["mlflow_projects"]):
    from tests.security import fuzz
fuzz.with_atheris(sys.argv[1], float(sys.argv[2]))
"""


def with_atheris(name: str, seconds: float) -> None:
    import atheris

    kept = Path(".hypothesis/atheris") / name
    kept.mkdir(parents=True, exist_ok=True)
    if not any(kept.iterdir()):  # to begin with
        for number in range(50):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (kept / f"example-{number}").write_bytes(EXAMPLES[name].example())
    limits = [
        f"-max_total_time={seconds:.0f}",
        f"-timeout={PATIENCE}",
        f"-rss_limit_mb={MEMORY >> 20}",
        "-max_len=4096",
    ]
    atheris.Setup([sys.argv[0], *limits, str(kept)], functools.partial(run_example, TARGETS[name]))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--minutes", type=float, default=60, help="for all targets together")
    parser.add_argument("--alone", action="store_true", help="in this process")
    arguments = parser.parse_args()
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    seconds = arguments.minutes * 60 / len(names)
    if arguments.alone:
        signal.signal(signal.SIGVTALRM, _too_slow)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        with_hypothesis(names[0], seconds)
        return 0
    failed = []
    for name in names:
        arguments_of_it = ["-m", "tests.security.fuzz", "--alone", "--minutes", str(seconds / 60), name]
        if importlib.util.find_spec("atheris"):
            arguments_of_it = ["-c", _WATCHED, name, str(seconds)]
        if subprocess.call([sys.executable, *arguments_of_it]) != 0:
            failed.append(name)
    print(f"fuzz: {', '.join(failed)} failed" if failed else "fuzz: nothing but sentences")
    return 1 if failed else 0


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"one example took {PATIENCE} s of computing")


if __name__ == "__main__":
    sys.exit(main())
