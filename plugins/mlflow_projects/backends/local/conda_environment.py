"""Conda environments without conda: py-rattler solves and installs them, in a helper process.

``[mlflow_projects] conda_program`` names a conda, mamba or micromamba to build with instead. Either way the
environment is activated by us, as conda does it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_projects.backends.local import conda_builder
from mlflow_projects.backends.local.conda_channels import DEFAULTS, Channel, CondaSettings, split_platform
from mlflow_projects.backends.local.withheld_variables import is_withheld
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.conda_file import CondaFile, read_conda_file
from mlflow_projects.project.identity import path_hash
from mlflow_projects.project.paths import is_folder
from mlflow_projects.project.spec import Project

# How this module starts a program: argv, and variables on top of the builder's own.
Run = Callable[[Sequence[str], Mapping[str, str]], None]
_PROGRAMS = ("conda", "mamba", "micromamba")
_SET_BY_US = ("PATH", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL")
_LOGIN = re.compile(r"(?<=://)[^/@\"\s]+(?=@)")
_TOKEN = re.compile(r"(://[^\"\s]*?/t/)[^/\"\s]+")
_CHANNEL = re.compile(r"(?<=[\[,])\s*channel\s*=\s*(['\"]?)(?P<channel>[^'\",\]]+)\1\s*,?\s*")
_TERMS = (
    "Channel 'defaults' is Anaconda's: its terms of service apply, which ask larger companies for a licence; "
    "'conda-forge' and [mlflow_projects] conda_channels are ways around it."
)


def find_program(name: str, path: str | None) -> str:
    """Return the path of the program that ``conda_program`` names.

    :raises ProjectError: it is not here, or is none of those that we know
    """
    if Path(name).name not in _PROGRAMS:
        raise ProjectError(
            f"[mlflow_projects] conda_program is {name!r}; name conda, mamba or micromamba, or the path of one."
        )
    if found := shutil.which(name, path=path):
        return found
    raise ProjectError(
        f"[mlflow_projects] conda_program names {name!r}, which this worker does not have; install it, or remove the "
        "option: environments are made without it."
    )


def check(project: Project, channels: str, program: str, environment: Mapping[str, str]) -> None:
    """Look for all that an environment is made from, before anything is started.

    :param channels: the option ``conda_channels``
    :param program: the option ``conda_program``
    :raises ProjectError: it is not here, or the project's file or conda's settings cannot be used
    """
    declared, settings = read_conda_file(project), CondaSettings.of(channels, environment)
    if not program or settings.is_told:
        _ = Recipe(declared, settings).specs
    if program:
        find_program(program, environment.get("PATH"))
    elif importlib.util.find_spec("rattler") is None:  # not loaded: a helper process does that
        raise ProjectError(
            "env_manager 'conda' needs py-rattler, which this worker does not have; pip install py-rattler, name a "
            "program such as micromamba in [mlflow_projects] conda_program, or use env_manager 'uv'."
        )


@dataclass(frozen=True)
class Recipe:
    """What a conda environment is made from, on this worker.

    :param program: conda, mamba or micromamba, or "" for py-rattler
    :param base: the folder of the file, which channels such as ``./channel`` are relative to
    """

    declared: CondaFile
    settings: CondaSettings
    program: str = ""
    base: Path = Path()

    @property
    def packages(self) -> list[str]:
        """The packages, with Python for those of pip, as conda adds it too."""
        names = {re.split(r"[\s=<>!~\[]", _split(package)[1], maxsplit=1)[0] for package in self.declared.packages}
        return [*self.declared.packages, *(["python"] if self.declared.pip and "python" not in names else [])]

    @property
    def tries(self) -> list[list[Channel]]:
        """Lists of channels, one after the other; those of single packages are the last in each."""
        more = [channel for package in self.declared.packages if (channel := _split(package)[0])]
        return self.settings.tries([*map(self._absolute, self.declared.channels)], [*map(self._absolute, more)])

    @property
    def specs(self) -> list[list[str]]:
        """The packages with the addresses of their channels; several, of which one has it, for ``defaults::name``.

        :raises ProjectError: the channel of one is what its author built, ``local``
        """
        specs = []
        for package in self.packages:
            name, rest = _split(package)
            channels = self.settings.of_package(self._absolute(name)) if name else []
            if name and not channels and not self.settings.instead:
                raise ProjectError(
                    f"The conda package {package!r} is from the channel {name!r}, the machine of whoever built it; "
                    f"put it on a channel that is reached from here, or say where {name!r} is in [mlflow_projects] "
                    f"conda_channels ({name}=address)."
                )
            platform = split_platform(name)[1]
            specs.append([f"{channel.address.rstrip('/')}{platform}::{rest}" for channel in channels] or [rest])
        return specs

    def _absolute(self, channel: str) -> str:
        is_relative = channel.startswith(("./", "../"))
        return (self.base / channel).resolve().as_uri() if is_relative else channel.strip()

    def identity(self) -> list[Any]:
        """Return all that an environment is told by, but the files that lines of pip name.

        A channel of the project's own is told by its files: its address may be that of one attempt.
        """
        folders = {self._absolute(name): self.base / name for name in self.declared.channels}
        own = {name: path_hash(folder) for name, folder in folders.items() if is_folder(folder / "noarch")}
        addresses = [[own.get(channel.address, channel.address) for channel in channels] for channels in self.tries]
        return [self.program, self.settings.priority, addresses, self.packages, self.declared.pip]

    def secrets(self) -> list[str]:
        """Return the passwords and tokens of all channels that may be asked, which a program may print."""
        return [secret for channels in self.tries for channel in channels for secret in channel.secrets]

    def create(self, folder: Path, packages: Path, run: Run) -> None:
        """Make the environment with py-rattler.

        :param packages: the folder of all packages, which environments share
        :param run: starts the helper
        :raises ProjectError: no packages fit together
        """
        wanted = {
            "packages": self.specs,
            "prefix": str(folder),
            "cache": str(packages),
            "verify_tls": self.settings.verify is not False,
            "priority": self.settings.priority,
            "tries": [
                [{"name": channel.shown, "address": channel.address} for channel in channels]
                for channels in self.tries
            ],
            "terms": {"of": DEFAULTS, "say": _TERMS},
        }
        variables = {"MLFLOW_PROJECTS_CONDA": json.dumps(wanted), "PYTHONUNBUFFERED": "1"}
        if isinstance(self.settings.verify, str):
            name = "SSL_CERT_DIR" if Path(self.settings.verify).is_dir() else "SSL_CERT_FILE"
            variables[name] = self.settings.verify
        for scheme, address in self.settings.proxies.items():
            variables.setdefault(f"{scheme.partition(':')[0]}_proxy".upper(), address)
        try:
            run([sys.executable, str(Path(conda_builder.__file__).parent)], variables)
        finally:  # lists of packages with the channel's address in them: the commands of projects can read these
            secrets = [secret.encode() for secret in self.secrets()]
            for file in filter(Path.is_file, (packages / "repodata").rglob("*") if secrets else ()):
                if any(secret in file.read_bytes() for secret in secrets):
                    file.unlink()
        for file in (folder / "conda-meta").glob("*.json"):  # where each package came from
            text = _LOGIN.sub("***", file.read_text(encoding="utf-8"))
            file.write_text(_TOKEN.sub(r"\1***", text), encoding="utf-8")

    def create_by_program(self, folder: Path, workspace: Path, run: Run) -> None:
        """Make the environment with the program, from a file without pip's packages, which are installed after it."""
        channels, packages = list(self.declared.channels), self.packages
        if self.settings.is_told:
            channels, packages = [channel.address for channel in self.tries[0]], [spec[0] for spec in self.specs]
        file = workspace / "environment.yaml"
        file.write_text(json.dumps({"channels": channels, "dependencies": packages}), encoding="utf-8")
        create = ["create", "--yes"] if Path(self.program).name == "micromamba" else ["env", "create"]
        run([self.program, *create, "--quiet", "--prefix", str(folder), "--file", str(file)], {})


def _split(package: str) -> tuple[str, str]:
    """Return the channel of a package (``channel::name``, ``name[channel=x]``) or "", and the rest of it."""
    channel, separator, rest = package.partition("::")
    if separator and "[" not in channel:
        return channel.strip(), rest.strip()
    if not (found := _CHANNEL.search(package)):
        return "", package
    rest = package[: found.start()] + package[found.end() :]
    return found["channel"].strip(), rest.replace(",]", "]").replace("[]", "")


def ignored_variables(declared: CondaFile) -> list[str]:
    """Return the names of a file's variables that the command does not get."""
    return [name for name in declared.variables if name in _SET_BY_US or is_withheld(name)]


def activation_of(folder: Path, declared: CondaFile, path: str) -> tuple[dict[str, str], str]:
    """Return variables, and shell text before the command, that activate an environment as conda does.

    A variable that says where to track is the attempt's to set, not the project's.

    :param path: the worker's PATH
    """
    variables = {
        **_variables_of_packages(folder),
        **{name: value for name, value in declared.variables.items() if not is_withheld(name)},
        "PATH": os.pathsep.join([str(folder / "bin"), path]),
        "CONDA_PREFIX": str(folder),
        "CONDA_DEFAULT_ENV": str(folder),
        "CONDA_SHLVL": "1",
    }
    scripts = sorted((folder / "etc" / "conda" / "activate.d").glob("*.sh"))
    lines = "".join(f". {shlex.quote(str(script))}; " for script in scripts)
    return variables, f"{{ {lines}}} 1>&2; " if lines else ""


def _variables_of_packages(folder: Path) -> dict[str, str]:
    """Return the variables that packages set by a file of theirs (``etc/conda/env_vars.d/*.json``)."""
    variables: dict[str, str] = {}
    for file in sorted((folder / "etc" / "conda" / "env_vars.d").glob("*.json")):
        try:
            content: Any = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict):
            variables.update(
                {str(name): str(value) for name, value in content.items() if re.fullmatch(r"\w+", str(name))}
            )
    return {name: value for name, value in variables.items() if not is_withheld(name)}
