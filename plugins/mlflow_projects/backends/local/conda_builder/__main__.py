"""Solves and installs a conda environment with py-rattler, in a process of its own, told by one variable.

Prints what it does; the last line of a failure says why. Exit status 3: no packages fit together.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

NO_SOLUTION = 3
_MANY = 30  # packages; of more only each tenth is told


def main() -> int:
    wanted = json.loads(os.environ.pop("MLFLOW_PROJECTS_CONDA"))
    try:
        import rattler
        import rattler.exceptions
        import rattler.repo_data.gateway
    except ImportError as error:
        return _fail(
            f"py-rattler, which makes conda environments, cannot be loaded here ({error}); pip install it, name a "
            "program such as micromamba in [mlflow_projects] conda_program, or use env_manager 'uv'."
        )
    try:
        return asyncio.run(_build(rattler, wanted))
    except rattler.exceptions.SolverError as error:
        return _fail(f"no packages fit together: {_one_line(error)}", NO_SOLUTION)
    except rattler.exceptions.InvalidChannelError as error:
        return _fail(f"a channel cannot be used: {_one_line(error)}; correct 'channels'.", NO_SOLUTION)
    except Exception as error:
        text = _one_line(error)
        is_final = "is not a supported scheme" in text  # ftp://
        return _fail(f"{type(error).__name__}: {text}", NO_SOLUTION if is_final else 1)


async def _build(rattler: Any, wanted: dict[str, Any]) -> int:
    """Make the environment.

    :param wanted: ``packages`` (each as texts that differ in the channel), ``prefix``, ``cache``, ``verify_tls``,
        ``tries`` (lists of channels, with their names to show), and whether channels are ``strict``, ``flexible`` or
        ``disabled``
    """
    cache = Path(wanted["cache"])
    config = rattler.Config.from_toml("" if wanted["verify_tls"] else "tls-no-verify = true")
    client = rattler.Client.from_config(config)
    specs = []
    for package in wanted["packages"]:
        try:
            specs.append([rattler.MatchSpec(text) for text in package])
        except rattler.exceptions.InvalidMatchSpecError as error:
            return _fail(f"{package[0]!r} is no conda package such as 'numpy=1.26': {_one_line(error)}.", NO_SOLUTION)
    try:
        records = await _solve(rattler, rattler.Gateway(cache_dir=cache / "repodata", client=client), specs, wanted)
    except rattler.exceptions.GatewayError:
        # py-rattler 0.28 takes "304 Not Modified", which mirrors answer, for an error where a channel's list is in
        # parts; the list as one file is read by other code.
        whole = rattler.repo_data.gateway.SourceConfig(sharded_enabled=False)
        gateway = rattler.Gateway(cache_dir=cache / "repodata", client=client, default_config=whole)
        records = await _solve(rattler, gateway, specs, wanted)
    _say(f"Installing {len(records)} conda packages.")
    await rattler.install(
        records,
        target_prefix=wanted["prefix"],
        cache_dir=cache / "pkgs",
        client=client,
        config=config,
        reporter=_Reporter(len(records)),
        execute_link_scripts=True,  # as conda does
    )
    return 0


async def _solve(rattler: Any, gateway: Any, specs: list[Any], wanted: dict[str, Any]) -> Any:
    """Return the packages to install; conda's "flexible" takes one from a later channel only if need be."""
    strict, free = rattler.ChannelPriority.Strict, rattler.ChannelPriority.Disabled
    priorities = {"strict": [strict], "disabled": [free]}.get(wanted["priority"], [strict, free])
    first: Exception | None = None
    for channels, priority in itertools.product(wanted["tries"], priorities):
        terms = wanted["terms"]
        if terms and any(channel["address"] in terms["of"] for channel in channels):
            _say(terms["say"])
            wanted["terms"] = None
        sources = [rattler.Channel(channel["address"]) for channel in channels]
        shown = ", ".join(channel["name"] for channel in channels)
        if first is None or priority == strict:
            _say(f"Solving {len(specs)} conda packages from {shown}.")
        platforms = [rattler.Subdir.current(), "noarch"]
        try:
            names = {name.normalized for name in await gateway.names(sources, platforms)}
            return await rattler.solve(
                sources,
                [await _of_channel(gateway, texts, platforms) for texts in specs],
                gateway=gateway,
                virtual_packages=rattler.VirtualPackage.detect(),
                channel_priority=priority,
                # As conda does; a channel of one's own may have none.
                add_pip_as_python_dependency="pip" in names,
            )
        except rattler.exceptions.SolverError as error:
            first = first or error
        except Exception as error:  # what conda would add cannot be reached, perhaps: the file's own channels count
            raise (first or error) from error
    assert first is not None
    raise first


async def _of_channel(gateway: Any, specs: list[Any], platforms: list[Any]) -> Any:
    """Return the one whose channel has a package of that name: ``defaults`` is several channels."""
    for spec in specs[:-1]:
        if spec.name.normalized in {name.normalized for name in await gateway.names([spec.channel], platforms)}:
            return spec
    return specs[-1]


class _Reporter:
    """Says what is downloaded and linked; of many packages not each. What it does not say is for nobody."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._linked = 0
        self._names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """Take every other call; those that begin something are asked for a number."""
        if name.startswith("on_"):
            return lambda *arguments, **_: next((item for item in arguments if isinstance(item, int)), 0)
        raise AttributeError(name)

    def on_populate_cache_start(self, _operation: int, package_name: str) -> int:
        self._names.append(package_name)
        return len(self._names) - 1

    def on_download_completed(self, download_idx: int) -> None:
        if self._total <= _MANY:
            _say(f"Downloaded {self._names[download_idx]}.")

    def on_link_complete(self, _link_idx: int) -> None:
        self._linked += 1
        if self._total <= _MANY or self._linked % 10 == 0 or self._linked == self._total:
            _say(f"Installed {self._linked} of {self._total}.")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:2000]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _fail(text: str, status: int = 1) -> int:
    _say(text)
    return status


if __name__ == "__main__":
    # Not sys.exit: py-rattler's threads outlive the interpreter, and now and then it ends by SIGSEGV (0.28).
    os._exit(main())
