"""What is in a store of MLflow without a server, looked at without MLflow.

MLflow's own client makes what is missing the moment that it opens a store: the SQLite file, all tables (in Airflow's
own database too, if that is what the URI names), newer versions of them. Here nothing is ever written.
"""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow_projects.exceptions import ProjectError, TrackingError, TrackingUnavailableError
from mlflow_projects.tracking.retries import TemporaryError, retrying
from mlflow_projects.tracking.server import TrackingSettings

_DATABASE = re.compile(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?:")
_SECONDS_OF_DRIVERS = {
    "psycopg": ("connect_timeout",),
    "psycopg2": ("connect_timeout",),
    "pymysql": ("connect_timeout", "read_timeout", "write_timeout"),
    "mysqldb": ("connect_timeout", "read_timeout", "write_timeout"),
}


def is_database(uri: str) -> bool:
    """Tell whether a tracking URI names a database."""
    return _DATABASE.match(uri) is not None


def impatient(uri: str, seconds: float) -> str:
    """Return a database's URI with the driver's own time-outs, where it has some and they are not set."""
    from sqlalchemy import make_url

    url = make_url(uri)
    names = _SECONDS_OF_DRIVERS.get(url.get_driver_name(), ())
    limits = {name: str(max(1, round(seconds))) for name in names if name not in url.query}
    return url.update_query_dict(limits).render_as_string(hide_password=False) if limits else uri


def ensure_store(settings: TrackingSettings) -> int:
    """Look whether a store may be used; return how many active experiments a database holds.

    :raises ProjectError: the database is another program's
    :raises TrackingError: there is no store, or MLflow would have to change it first
    :raises TrackingUnavailableError: it cannot be asked now
    """
    access = settings.access
    if file := settings.missing_database():
        if access == "make":
            return 0
        raise TrackingError(f"There is no database {file}; name the right one in the tracking URI.")
    if settings.uri.startswith("file:") and access != "make":
        folder = Path(unquote(urlsplit(settings.uri).path))
        if not _is_file_store(folder):
            raise TrackingError(f"There is no file store of MLflow in {folder}; correct the tracking URI.")
    if not is_database(settings.uri):
        return 0
    try:
        tables, has_default, experiments = retrying(settings.max_retries, time.sleep)(_look, settings)
    except TemporaryError as error:
        raise TrackingUnavailableError(f"The tracking database cannot be asked: {error}") from error
    if "experiments" not in tables and "alembic_version" in tables:
        raise ProjectError(
            "The database that the tracking URI names is another program's (Airflow's own, perhaps): it holds no "
            "experiments, but a table alembic_version. Give MLflow a database of its own; nothing was written."
        )
    if access == "make":
        return experiments
    if "experiments" not in tables:
        raise TrackingError("The database of the tracking URI holds no tables of MLflow; nothing was written.")
    if not has_default:
        raise TrackingError(
            "The tracking database lacks MLflow's experiment 0, which MLflow makes when a server or a step uses the "
            "database; nothing was written."
        )
    return experiments


def _is_file_store(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # such a name, no folder can have
        return (folder / ".trash").is_dir() or any(folder.glob("*/meta.yaml"))
    return False


def _look(settings: TrackingSettings) -> tuple[frozenset[str], bool, int]:
    """Return a database's tables, whether experiment 0 is there, and the number of active experiments.

    :raises TemporaryError: it does not answer
    """
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    try:
        engine = create_engine(impatient(settings.uri, settings.timeout), poolclass=NullPool)
        with engine.connect() as connection:
            tables = frozenset(inspect(connection).get_table_names())
            if "experiments" not in tables:
                return tables, False, 0
            default = connection.execute(text("SELECT 1 FROM experiments WHERE experiment_id = 0")).first()
            active = text("SELECT COUNT(*) FROM experiments WHERE lifecycle_stage = 'active'")
            return tables, default is not None, int(connection.execute(active).scalar() or 0)
    except DBAPIError as error:  # its first line says all, and SQLAlchemy's own text goes on to the statement
        raise TemporaryError(str(error.orig).strip().partition("\n")[0]) from error
    except (SQLAlchemyError, ImportError) as error:
        raise ProjectError(f"The tracking URI's database cannot be opened: {error}.") from error
    except ValueError as error:  # which quotes a part of the address
        raise ProjectError("The tracking URI is no valid address of a database.") from error
