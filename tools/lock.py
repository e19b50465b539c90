"""Write requirements.txt and requirements-dev.txt: pinned, hashed, valid for every supported Python."""

from __future__ import annotations

import subprocess
import sys

from home import BIN, ROOT

UNIVERSAL = ["--universal", "--python-version", "3.10", "--generate-hashes", "--quiet", "--no-header",
             "--no-annotate", *sys.argv[1:]]  # fmt: skip


def main() -> None:
    uv = str(BIN / "uv")
    compile_lock = [uv, "pip", "compile", *UNIVERSAL]
    subprocess.run(
        [*compile_lock, "pyproject.toml", "requirements.in", "-o", "requirements.txt"], cwd=ROOT, check=True
    )
    subprocess.run(
        [*compile_lock, "--group", "dev", "-c", "requirements.txt", "-o", "requirements-dev.txt"],
        cwd=ROOT,
        check=True,
    )


if __name__ == "__main__":
    main()
