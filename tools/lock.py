"""Write the locks, pinned and hashed: four for every supported Python, and that of custom_images/airflow."""

from __future__ import annotations

import subprocess
import sys

from home import BIN, ROOT

OPTIONS = ["--universal", "--generate-hashes", "--quiet", "--no-header", "--no-annotate", *sys.argv[1:]]
IMAGE = "custom_images/airflow/requirements"


def main() -> None:
    compile_lock = [str(BIN / "uv"), "pip", "compile", *OPTIONS, "--python-version"]
    constrained = ["-c", "requirements.txt"]
    for command in (
        ["3.10", "pyproject.toml", "requirements.in", "-o", "requirements.txt"],
        ["3.10", "--group", "dev", *constrained, "-o", "requirements-dev.txt"],
        ["3.10", "--group", "docs", "-o", "requirements-docs.txt"],
        ["3.10", "--group", "release", "-o", "requirements-release.txt"],
        ["3.11", "pyproject.toml", "requirements.in", f"{IMAGE}.in", *constrained, "-c", "requirements-dev.txt",
         "-o", f"{IMAGE}.txt"],
    ):  # fmt: skip
        subprocess.run([*compile_lock, *command], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
