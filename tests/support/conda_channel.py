"""A real conda channel, made on the spot: this machine's Python, and small packages."""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rattler import Subdir
from rattler.index import index_fs
from rattler_build import assemble_package

PYTHON = platform.python_version()
MINOR = ".".join(PYTHON.split(".")[:2])
# What no test needs: most of the standard library's bytes.
_LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "__pycache__", "site-packages", "*.a",
             "dist-packages", "config-*")  # fmt: skip


class Channel:
    """A folder with packages; ``index`` makes it a channel."""

    def __init__(self, folder: Path, staging: Path) -> None:
        self.folder = folder
        self._staging = staging
        (folder / "noarch").mkdir(parents=True)

    @property
    def address(self) -> str:
        return self.folder.as_uri()

    def add(
        self, name: str, version: str, files: Mapping[str, str], *, depends: tuple[str, ...] = (), build: str = "0",
        number: int = 0, noarch: str | None = "python",
    ) -> None:  # fmt: skip
        """Add a package with these files; one of Python has its modules below ``site-packages``."""
        staged = self._staging / f"{name}-{version}-{build}"
        for path, text in files.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).write_text(text)
        self._assemble(staged, name, version, build, depends=depends, number=number, noarch=noarch)

    def add_python(self) -> None:
        """Add the Python that runs these tests."""
        staged = self._staging / "python"
        (staged / "bin").mkdir(parents=True)
        base = Path(sys.base_prefix)
        shutil.copy2((base / "bin" / f"python{MINOR}").resolve(), staged / "bin" / f"python{MINOR}")
        for link in ("python", "python3"):
            (staged / "bin" / link).symlink_to(f"python{MINOR}")
        library = Path("lib") / f"python{MINOR}"
        shutil.copytree(base / library, staged / library, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        self._assemble(staged, "python", PYTHON, "0_cpython", noarch=None)

    def _assemble(
        self, staged: Path, name: str, version: str, build: str, *, depends: tuple[str, ...] = (), number: int = 0,
        noarch: str | None,
    ) -> None:  # fmt: skip
        target = "noarch" if noarch else str(Subdir.current())
        (self.folder / target).mkdir(exist_ok=True)
        assemble_package(
            name, version, target, build, self.folder / target,
            files_dir=staged, depends=depends, build_number=number, noarch=noarch, compression_level=1,
        )  # fmt: skip

    def index(self) -> str:
        """Write the channel's list of packages; return its address."""
        asyncio.run(index_fs(self.folder))
        return self.address


def make_channel(folder: Path) -> Channel:
    """Make a channel: Python, ``tiny`` in two versions, a package that needs it, and one that activates."""
    channel = Channel(folder / "channel", folder / "staging")
    channel.add_python()
    for version, build, number in (("1.0", "0", 0), ("2.0", "a", 0), ("2.0", "b", 1)):
        answer = f"ANSWER = '{version}={build}'\n"
        channel.add(
            "tiny", version, {"site-packages/tiny.py": answer}, depends=("python",), build=build, number=number
        )
    channel.add("needs-tiny", "1", {"site-packages/needs.py": ""}, depends=("python", "tiny <2"))
    hooks = {
        "etc/conda/activate.d/b.sh": "export ACTIVATED=$ACTIVATED-b\necho noise\n",
        "etc/conda/activate.d/a b.sh": "export ACTIVATED=$CONDA_PREFIX\n",
        "etc/conda/env_vars.d/own.json": '{"OWN": "from the package", "AIRFLOW__CORE__FERNET_KEY": "x"}',
    }
    channel.add("hooks", "1", hooks, noarch="generic")
    channel.index()
    return channel
