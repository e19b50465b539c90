"""The Airflow home inside the checkout, shared by the demo and by ``make up``."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("DEMO_HOME") or ROOT / ".airflow").absolute()
BIN = Path(sys.executable).parent
# Seconds. Airflow sleeps so long before it looks for the next task to start, and before it sees that a task's process
# has ended; its own values are 1 and 5. What these cost: docs/operating.md.
PAUSES = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}


def environment() -> dict[str, str]:
    """Return the environment of everything that runs in this home; the user's own Airflow stays untouched.

    Of the variables that are for Airflow, only those of :data:`PAUSES` count.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    tracking = os.environ.get("MLFLOW_TRACKING_URI") or embedded_store()
    return {
        **inherited,
        "AIRFLOW_HOME": str(HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **database(),
        "MLFLOW_TRACKING_URI": tracking,
        **{name: os.environ.get(name, seconds) for name, seconds in PAUSES.items()},
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONWARNINGS": "ignore",
    }


def database(part: str = "") -> dict[str, str]:
    """Return the variable that names Airflow's database, for one of its parts.

    Five seconds of patience, SQLite's own, are too few on a busy laptop: the scheduler ended with "database is
    locked". The API server must not have more. It writes its audit log in the event loop that also commits what its
    other requests wrote: if one waits for the other, none is answered until the patience ends.
    """
    patience = 5 if part == "api-server" else 60
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME / 'airflow.db'}?timeout={patience}"}


def embedded_store() -> str:
    """Return the tracking URI of the SQLite database in this home."""
    return f"sqlite:///{HOME / 'mlflow.db'}"


def prepare(env: dict[str, str]) -> None:
    """Make Airflow's database, or bring it up to date; do nothing if this Airflow version did that before."""
    stamp, wanted = HOME / ".migrated", version("apache-airflow-core")
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    HOME.mkdir(exist_ok=True)
    print("Preparing Airflow's database in .airflow ...", flush=True)
    done = subprocess.run(
        [BIN / "airflow", "db", "migrate"], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nAirflow's database could not be made; see above.")
    stamp.write_text(wanted)
