"""Conda environments of a real channel, by py-rattler: without conda, and without a network."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import trustme
import yaml

from mlflow_projects.backends.local.environments import Activation, EnvironmentBuilder
from mlflow_projects.backends.local.settings import LocalSettings
from mlflow_projects.exceptions import ProjectError, StepFailedError
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.spec import Project, load_project
from tests.support.conda_channel import MINOR, PYTHON, Channel, make_channel
from tests.support.own_package import write_package
from tests.support.waiting import wait


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Channel:
    return make_channel(tmp_path_factory.mktemp("conda"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One for all tests: each environment is of another content, and Python is unpacked once."""
    return Cache(tmp_path_factory.mktemp("cache"))


def project(folder: Path, **content: object) -> Project:
    folder.mkdir(exist_ok=True)
    (folder / "MLproject").write_text("conda_env: conda.yaml\nentry_points: {main: {command: python -V}}")
    (folder / "conda.yaml").write_text(yaml.safe_dump({"channels": [], **content}))
    return load_project(folder)


def builder(cache: Cache, home: Path, lines: list[str] | None = None, **settings: str) -> EnvironmentBuilder:
    variables = {**os.environ, "HOME": str(home)}
    variables.pop("CONDARC", None)
    take = print if lines is None else lines.append
    return EnvironmentBuilder(cache, variables, take, LocalSettings(**settings))


def run(activation: Activation, code: str) -> str:
    """Run Python in the environment and return what it says."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    environment = {**own, **activation.variables, "CODE": code}
    command = f'{activation.prefix}python -c "$CODE"'
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_packages_of_the_channel_are_installed_and_activated(cache: Cache, channel: Channel, tmp_path: Path) -> None:
    lines: list[str] = []
    wanted = project(
        tmp_path / "project",
        name="x",
        prefix="/not/ours",
        channels=[channel.address, "nodefaults"],
        dependencies=[f"python={MINOR}", "tiny", "hooks"],
        variables={"A_NUMBER": 1, "MLFLOW_TRACKING_URI": "http://elsewhere", "PATH": "/elsewhere"},
    )
    with builder(cache, tmp_path, lines).activation(wanted, "conda") as activation:
        said = run(
            activation,
            "import os, sys, tiny, platform; print(tiny.ANSWER, sys.prefix == os.environ['CONDA_PREFIX'], "
            "os.environ['ACTIVATED'] == sys.prefix + '-b', os.environ['OWN'], os.environ['A_NUMBER'], "
            "os.environ.get('AIRFLOW__CORE__FERNET_KEY'), os.environ.get('MLFLOW_TRACKING_URI'), "
            "platform.python_version())",
        )
        assert said == f"2.0=b True True from the package 1 None None {PYTHON}"
        assert activation.folder
        assert (activation.folder / "bin" / f"python{MINOR}").stat().st_nlink > 1
    with builder(cache, tmp_path, lines).activation(wanted, "conda"):
        pass
    assert sum("Building the conda" in line for line in lines) == 1
    assert sum("conda.yaml: 'variables' cannot set MLFLOW_TRACKING_URI, PATH; " in line for line in lines) == 2
    assert [line for line in lines if line.startswith("Solving 3 conda packages from file:")]
    assert "Installed 3 of 3." in lines


@pytest.mark.parametrize(("package", "expected"), [
    ("tiny=1", "1.0=0"), ("tiny=2.0=a", "2.0=a"), ("tiny >=1,<2", "1.0=0"), ("needs-tiny", "1.0=0"),
    ("tiny[version='<2']", "1.0=0"), ("chan::tiny", "2.0=b"),
    ("chan/noarch::tiny <2", "1.0=0"), ("tiny[channel=chan,version='<2']", "1.0=0"),
    ("tiny[version='<2', channel='chan/noarch']", "1.0=0"), ("defaults::tiny=1.0", "1.0=0"),
])  # fmt: skip
def test_versions_builds_and_channels_of_packages_count(
    package: str, expected: str, cache: Cache, channel: Channel, tmp_path: Path
) -> None:
    wanted = project(tmp_path / "project", channels=["chan"], dependencies=["python", package])
    empty = Channel(tmp_path / "empty", tmp_path / "staging")
    (tmp_path / ".condarc").write_text(f"default_channels: ['{empty.index()}', '{channel.address}']\n")
    settings = {"conda_channels": f"chan={channel.address}"}
    with builder(cache, tmp_path, **settings).activation(wanted, "conda") as activation:
        assert run(activation, "import tiny; print(tiny.ANSWER)") == expected


def test_packages_of_pip_are_installed_too(cache: Cache, channel: Channel, tmp_path: Path) -> None:
    """As conda does it: relative to the folder of the file, with files that its lines name."""
    root = tmp_path / "project"
    write_package(root / "env" / "pkg", 3)
    (root / "env" / "more").mkdir()
    (root / "env" / "more" / "list.txt").write_text("-c limits.txt  # a comment\n./pkg\n")
    (root / "env" / "more" / "limits.txt").write_text("own-package < 4\n")
    (root / "MLproject").write_text("conda_env: env/conda.yaml\nentry_points: {main: {command: python -V}}")
    content = {"channels": [channel.address], "dependencies": ["python", {"pip": ["-r more/list.txt"]}]}
    (root / "env" / "conda.yaml").write_text(yaml.safe_dump(content))
    with builder(cache, tmp_path).activation(load_project(root), "conda") as activation:
        first = activation.folder
        assert run(activation, "import own_package; print(own_package.VALUE)") == "3"
    write_package(root / "env" / "pkg", 4)
    with builder(cache, tmp_path).activation(load_project(root), "conda") as activation:
        assert activation.folder != first
        assert run(activation, "import own_package; print(own_package.VALUE)") == "4"
    (root / "env" / "more" / "limits.txt").write_text("own-package < 3\n")
    with (
        pytest.raises(ProjectError, match=r"conda\.yaml: .*own-package"),
        builder(cache, tmp_path).activation(load_project(root), "conda"),
    ):
        pass


def test_what_does_not_fit_together_is_one_sentence_and_no_environment(
    cache: Cache, channel: Channel, tmp_path: Path
) -> None:
    for package, why in (
        ("tiny>=3", "no packages fit together: .*tiny >=3"),
        ("no-such", "no packages fit together: .*no-such"),
        ("needs-tiny", "no packages fit together: .*needs-tiny"),
        ("!!", r"'!!' is no conda package such as 'numpy=1\.26'"),
    ):
        wanted = project(tmp_path / "project", channels=[channel.address], dependencies=["python", "tiny=2", package])
        with (
            pytest.raises(ProjectError, match=rf"conda\.yaml: {why}"),
            builder(cache, tmp_path).activation(wanted, "conda"),
        ):
            pass
    left = [path.name for path in (cache.root / "environments").iterdir() if path.is_dir()]
    assert not [name for name in left if not (cache.root / "environments" / f"{name}.ready").exists()]


def test_two_steps_that_need_a_new_environment_at_once_share_one(
    cache: Cache, channel: Channel, tmp_path: Path
) -> None:
    lines: list[str] = []
    wanted = project(tmp_path / "project", channels=[channel.address], dependencies=["tiny=1.0", "python", "hooks"])

    def step(_: int) -> str:
        with builder(cache, tmp_path, lines).activation(wanted, "conda") as activation:
            return run(activation, "import sys; print(sys.prefix)")

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(step, range(3)))) == 1
    assert sum("Building the" in line for line in lines) == 1


def test_conda_s_own_settings_say_where_channels_are(cache: Cache, channel: Channel, tmp_path: Path) -> None:
    """A password in a channel's address is used, and shown nowhere."""
    with served(channel.folder, "/t/tok3n/mirror", "me", "p4ss") as address:
        with_password = address.replace("http://", "http://me:p4ss@")
        (tmp_path / ".condarc").write_text(f"channel_alias: {with_password}/t/${{TOKEN}}\nchannel_priority: strict\n")
        wanted = project(tmp_path / "project", channels=["mirror", "nodefaults"], dependencies=["python", "tiny=1.0"])
        lines: list[str] = []
        making = builder(cache, tmp_path, lines)
        making = EnvironmentBuilder(cache, {**making.variables, "TOKEN": "tok3n"}, lines.append)
        with making.activation(wanted, "conda") as activation:
            assert run(activation, "import tiny; print(tiny.ANSWER)") == "1.0=0"
        gone = project(tmp_path / "gone", channels=["missing", "nodefaults"], dependencies=["python", "tiny=2.0"])
        with pytest.raises(StepFailedError, match="cannot be built") as failed, making.activation(gone, "conda"):
            pass
    said = "\n".join([*lines, str(failed.value)])
    assert "p4ss" not in said
    assert "tok3n" not in said


def test_certificates_are_checked_against_what_conda_s_settings_name(channel: Channel, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    encryption = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(encryption)
    own = Cache(tmp_path / "cache")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(channel.folder))) as server:
        server.socket = encryption.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        channels = [f"https://localhost:{server.server_port}", "nodefaults"]
        for verify, package in (("true", None), (tmp_path / "ca.pem", "python"), ("false", "tiny=1.0")):
            (tmp_path / ".condarc").write_text(f"ssl_verify: {verify}\n")
            wanted = project(tmp_path / "project", channels=channels, dependencies=[package or "hooks"])
            refused = pytest.raises(StepFailedError, match="invalid peer certificate: UnknownIssuer")
            with contextlib.nullcontext() if package else refused:
                with builder(own, tmp_path).activation(wanted, "conda") as activation:
                    assert activation.folder
                    assert (activation.folder / "bin" / "python").exists()
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def served(folder: Path, path: str, user: str, password: str):
    """Serve a channel below a path, to who logs in."""
    import base64

    login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(Quiet):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != login:
                self.send_error(401)
            elif not self.path.startswith(path + "/"):
                self.send_error(404)
            else:
                self.path = self.path[len(path) :]
                super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


_BUILD = """
import os, sys
from pathlib import Path
from mlflow_projects.backends.local.environments import EnvironmentBuilder
from mlflow_projects.project.cache import Cache
from mlflow_projects.project.spec import load_project

builder = EnvironmentBuilder(Cache(Path(sys.argv[1])), dict(os.environ), print)
with builder.activation(load_project(Path(sys.argv[2])), "conda"):
    pass
"""


def test_a_killed_build_leaves_no_environment_and_nobody_at_work(channel: Channel, tmp_path: Path) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    class Slow(Quiet):
        def do_GET(self) -> None:
            if self.path.endswith(".conda"):
                begun.set()
                may_go_on.wait(300)
            super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(channel.folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        wanted = project(tmp_path / "project", channels=[address, "nodefaults"], dependencies=["tiny=1.0", "python"])
        own = Cache(tmp_path / "cache")
        environment = {**os.environ, "HOME": str(tmp_path), "KILLED_BUILD": str(tmp_path)}
        working = subprocess.Popen([sys.executable, "-c", _BUILD, str(own.root), str(wanted.root)], env=environment)
        assert begun.wait(120)
        working.kill()
        working.wait()
        wait(lambda: not _with_variable("KILLED_BUILD", str(tmp_path)), "the end of the helper")
        assert not list((own.root / "environments").glob("*.ready"))
        may_go_on.set()
        with builder(own, tmp_path).activation(wanted, "conda") as activation:
            assert run(activation, "import tiny; print(tiny.ANSWER)") == "1.0=0"
        server.shutdown()


def test_without_room_there_is_no_environment(channel: Channel, tmp_path: Path) -> None:
    """Files may not grow beyond some kilobytes, as on a full disk."""
    wanted = project(tmp_path / "project", channels=[channel.address, "nodefaults"], dependencies=["python"])
    cache = tmp_path / "cache"
    limited = f"ulimit -f 2000; exec {shlex.join([sys.executable, '-c', _BUILD, str(cache), str(wanted.root)])}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1
    assert "StepFailedError: The environment of" in done.stderr
    assert [path for path in (cache / "environments").iterdir() if path.is_dir() or path.suffix == ".ready"] == []


@pytest.mark.parametrize("name", ["micromamba", "mamba"])
def test_a_program_of_conda_makes_the_environment(name: str, cache: Cache, channel: Channel, tmp_path: Path) -> None:
    """None of them is here: a script in its place keeps what it was asked for, and copies an environment of ours."""
    wanted = project(tmp_path / "project", channels=["chan"], dependencies=["python", {"pip": ["./pkg"]}])
    write_package(wanted.root / "pkg", 3)
    ready = project(tmp_path / "ready", channels=[channel.address, "nodefaults"], dependencies=["python"])
    with builder(cache, tmp_path).activation(ready, "conda") as activation:
        script = f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncp "$7" {tmp_path}/file\ncp -a {activation.folder} "$5"\n'
    (tmp_path / name).write_text(script)
    (tmp_path / name).chmod(0o755)
    told = {"conda_program": str(tmp_path / name), "conda_channels": f"chan={channel.address}"}
    with builder(cache, tmp_path, **told).activation(wanted, "conda") as activation:
        assert run(activation, "import own_package; print(own_package.VALUE)") == "3"
    beginning = "create --yes --quiet" if name == "micromamba" else "env create --quiet"
    assert (tmp_path / "asked").read_text().startswith(f"{beginning} --prefix {activation.folder} --file ")
    asked = yaml.safe_load((tmp_path / "file").read_text())
    assert asked == {"channels": [channel.address], "dependencies": ["python"]}


def _with_variable(name: str, value: str) -> list[int]:
    """Return the ids of the processes that have a variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_a_corrupt_package_is_no_environment(cache: Cache, channel: Channel, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(channel.folder, broken)
    package = next(broken.glob("noarch/tiny-1.0-*.conda"))
    content = package.read_bytes()
    package.write_bytes(content[:150] + bytes(300) + content[450:])
    wanted = project(tmp_path / "project", channels=[broken.as_uri()], dependencies=["python", "tiny=1.0"])
    own = Cache(tmp_path / "cache")
    with pytest.raises(StepFailedError, match="tiny"), builder(own, tmp_path).activation(wanted, "conda"):
        pass
    assert not list((own.root / "environments").glob("*.ready"))
    shutil.copy2(next(channel.folder.glob("noarch/tiny-1.0-*.conda")), package)
    with builder(own, tmp_path).activation(wanted, "conda") as activation:
        assert run(activation, "import tiny; print(tiny.ANSWER)") == "1.0=0"


def test_a_login_of_a_channel_is_not_left_in_the_environment(channel: Channel, tmp_path: Path) -> None:
    handler = partial(_AtToken, directory=str(channel.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://ann:p4ss-word@127.0.0.1:{server.server_port}/t/t0ken/x"
        wanted = project(tmp_path / "project", channels=["x", "nodefaults"], dependencies=["hooks"])
        with builder(Cache(tmp_path / "cache"), tmp_path, conda_channels=f"x={address}").activation(
            wanted, "conda"
        ) as activation:
            assert activation.folder is not None
            (record,) = (activation.folder / "conda-meta").glob("*.json")
            kept = b"".join(file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
            assert b"hooks" in kept
            assert b"p4ss-word" not in kept
            assert b"t0ken" not in kept
        server.shutdown()
    text = record.read_text()
    assert f"http://***@127.0.0.1:{server.server_port}/t/***/x/" in text
    assert "p4ss-word" not in text
    assert "t0ken" not in text


class _AtToken(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        return super().translate_path(path.replace("/t/t0ken/x", ""))


@pytest.mark.parametrize(("content", "words"), [
    ({"channels": ["http://[", "nodefaults"], "dependencies": ["tiny"]}, "a channel cannot be used: could not parse"),
    ({"channels": ["ftp://h.example/x", "nodefaults"], "dependencies": ["tiny"]}, "'ftp' is not a supported scheme"),
    ({"dependencies": ["ti\x1b[31mny"]}, r"'ti\\x1b\[31mny' is no conda package .* 'ti\?\[31mny'"),
])  # fmt: skip
def test_odd_text_is_one_sentence_without_a_retry(
    content: dict[str, object], words: str, cache: Cache, tmp_path: Path
) -> None:
    wanted = project(tmp_path / "project", **content)
    with pytest.raises(ProjectError, match=words) as caught, builder(cache, tmp_path).activation(wanted, "conda"):
        pass
    assert "\x1b" not in str(caught.value)


def test_a_channel_of_the_project_counts_by_its_files(cache: Cache, channel: Channel, tmp_path: Path) -> None:
    """It is relative to the folder of the file, which may be of one attempt."""
    folders = set()
    for name in ("one", "two", "other"):
        wanted = project(tmp_path / name, channels=["./own", "nodefaults"], dependencies=["hooks", "./own::tiny"])
        own = shutil.copytree(channel.folder, wanted.root / "own")
        if name == "other":
            (own / "noarch" / "more").touch()
        with builder(cache, tmp_path).activation(wanted, "conda") as activation:
            assert run(activation, "import tiny; print(tiny.ANSWER)") == "2.0=b"
            folders.add(activation.folder)
    assert len(folders) == 2
