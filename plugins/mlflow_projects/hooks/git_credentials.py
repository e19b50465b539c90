"""Credentials for git from an Airflow connection."""

from __future__ import annotations

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from mlflow_projects.hooks.masking import mask, mask_connection
from mlflow_projects.project.git_authentication import GitCredentials


def git_credentials(conn_id: str) -> GitCredentials:
    """Read a connection of any type; the fields are those of Airflow's own type ``git``.

    Login and password (an access token) are for https. Of the extra, ``private_key``, ``key_file``,
    ``known_hosts_file`` and ``strict_host_key_checking`` ("accept-new") are for ssh.

    :raises AirflowFailException: no connection of that id
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        sentence = f"There is no Airflow connection {conn_id!r}; add it, or correct git_conn_id."
        raise AirflowFailException(sentence) from error
    mask_connection(connection)
    extra = connection.extra_dejson
    mask(private_key := extra.get("private_key") or "")
    if not (connection.password or private_key or extra.get("key_file")):
        mask(connection.login or "")  # a token, as some hosts take it
    return GitCredentials(
        username=connection.login or "",
        password=connection.password or "",
        private_key=private_key,
        private_key_file=extra.get("key_file") or "",
        known_hosts_file=extra.get("known_hosts_file") or "",
        accept_new_host=extra.get("strict_host_key_checking") == "accept-new",
    )
