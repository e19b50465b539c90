"""Write .env, the settings and secrets of docker-compose.yaml: what is missing is made up, what is there stays.

Usage: python3 tools/env.py [FILE]    (default: ENV_FILE, or .env)
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# Settings and secrets of docker-compose.yaml. Keep this file private; git ignores it.\n"
PORTS = {"AIRFLOW_PORT": "8080", "MLFLOW_PORT": "5000", "S3_PORT": "8333", "GIT_PORT": "3000"}
NAMES = {
    "AIRFLOW_ADMIN_USER": "admin",
    "MLFLOW_ADMIN_USER": "admin",
    "S3_ACCESS_KEY": "stack-admin",
    "GIT_USER": "git",
}
PASSWORDS = (
    "AIRFLOW_ADMIN_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_AIRFLOW_PASSWORD", "POSTGRES_PASSWORD",
    "AIRFLOW_DB_PASSWORD", "CELERY_DB_PASSWORD", "MLFLOW_DB_PASSWORD", "REDIS_PASSWORD", "S3_SECRET_KEY",
    "MLFLOW_S3_SECRET_KEY", "AIRFLOW_S3_SECRET_KEY", "GIT_PASSWORD",
)  # fmt: skip
LONG = ("AIRFLOW_JWT_SECRET", "AIRFLOW_SECRET_KEY", "MLFLOW_SECRET_KEY")
FERNET = "AIRFLOW_FERNET_KEY"
SHORTEST = 12
# They become part of addresses, SQL and JSON.
_ALLOWED = re.compile(r"[A-Za-z0-9_-]*")


def env_file() -> Path:
    """Return the path of the file that counts."""
    return (ROOT / os.environ.get("ENV_FILE", ".env")).absolute()


def read(path: Path) -> dict[str, str]:
    """Return what the file sets; {} if there is none."""
    if not path.is_file():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    return {
        name.strip(): value.strip()
        for name, sign, value in (line.partition("=") for line in lines if not line.startswith("#"))
        if sign
    }


def problems(values: dict[str, str]) -> list[str]:
    """Return a sentence for each value that the stack cannot take."""
    found = []
    for name in (*PASSWORDS, *LONG):
        if not _ALLOWED.fullmatch(values[name]):
            found.append(f"{name} may have letters, digits, '-' and '_' only.")
        elif len(values[name]) < SHORTEST:
            found.append(f"{name} is shorter than {SHORTEST} characters; remove its line to get a random one.")
    return found


def made_up() -> dict[str, str]:
    """Return a value for each setting, random for each secret."""
    return {
        **PORTS,
        **NAMES,
        **{name: secrets.token_hex(16) for name in PASSWORDS},
        **{name: secrets.token_hex(32) for name in LONG},
        FERNET: base64.urlsafe_b64encode(os.urandom(32)).decode(),
    }


def ensure(path: Path) -> list[str]:
    """Add to the file what is missing, and let nobody else read it; return the names of what was added.

    :raises SystemExit: if a value that is there cannot be taken
    """
    there = read(path)
    added = {name: value for name, value in made_up().items() if not there.get(name)}
    if wrong := problems({**there, **added}):
        raise SystemExit("\n".join(f"{path}: {sentence}" for sentence in wrong))
    if path.is_file():
        path.chmod(0o600)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a") as file:
        before = path.read_text()
        text = "" if before else HEADER
        text += "\n" if before and not before.endswith("\n") else ""
        file.write(text + "".join(f"{name}={value}\n" for name, value in added.items()))
    return sorted(added)


def main() -> None:
    path = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else env_file()
    added = ensure(path)
    print(f"{path}: {len(added)} value(s) added." if added else f"{path}: complete, nothing changed.")


if __name__ == "__main__":
    main()
