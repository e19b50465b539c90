"""The project's packages, in an environment above the image's own."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

from .errors import NO_PACKAGES, RunnerError
from .processes import Processes


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
    # Hashes and options count in a file only; beside the files that the lines name.
    file = project / ".mlflow-projects-requirements.txt"
    file.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    arguments = ["-r", str(file)]
    if _has_pip(python):
        command = [python, "-I", "-m", "pip", "install", *arguments]  # -I: no module of the project's stands in
    elif shutil.which("uv", path=environment.get("PATH")):
        command = ["uv", "pip", "install", "--python", python, *arguments]
    else:
        raise _no_packages("the image has neither pip nor uv")
    status = processes.run(command, project, setting_up)
    file.unlink()
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
