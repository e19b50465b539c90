"""What a docker_env may not ask for, a lint says as a task does, in the same words (issue 22, row 11)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.backends.local.docker_env import declared_variables, volumes_of
from mlflow_projects.backends.local.withheld_variables import worker_variables
from mlflow_projects.cli.check_rules import lint_project
from mlflow_projects.exceptions import ProjectError
from mlflow_projects.project.spec import Project

SECRETS = ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW_CONN_X", "AIRFLOW_VAR_X", "_AIRFLOW__X", "__AIRFLOW_SUPERVISOR_FD")
# All that anybody may name, so that only what is withheld is missing.
WORKER = dict.fromkeys((*SECRETS, "HOME", "DATA", "MODE", "A=B", "MLFLOW_RUN_ID"), "/value")


def project(root: Path, **docker_env: Any) -> Project:
    file = root / "MLproject"
    content = {"docker_env": {"image": "i", **docker_env}, "entry_points": {"main": {"command": "true"}}}
    file.write_text(json.dumps(content))
    return Project(root, file, None, {}, "docker_env", None, content["docker_env"])


def of_task(of: Project) -> list[str]:
    found = []
    for look in (volumes_of, declared_variables):
        try:
            look(of, worker_variables(WORKER))
        except ProjectError as error:
            found.append(str(error).removeprefix(f"{of.file}: "))
    return found


@pytest.mark.parametrize(
    "docker_env",
    [
        *({"environment": [name]} for name in SECRETS),
        {"environment": [["STOLEN", "$AIRFLOW__CORE__FERNET_KEY"]]},
        {"environment": [["STOLEN", "${AIRFLOW_CONN_X}"]]},
        {"environment": ["A=B"]},
        {"environment": [""]},
        {"environment": [["", "x"]]},
        {"environment": [["A=B", "x"]]},
        {"environment": [["A\0B", "x"]]},
        {"environment": [[]]},
        {"volumes": ["$AIRFLOW__CORE__FERNET_KEY:/a"]},
        {"volumes": ["/a:$AIRFLOW_CONN_X"]},
        *(
            {"volumes": [text]}
            for text in (
                "",
                ":",
                "/a:",
                "/a:b",
                "/a:/b:",
                "/a:/b:ro:z",
                "/a:/b:r o",
                "/a:/",
                "/a:/..",
                "/a\0:/b",
                "a/b:/c",
            )
        ),
        {"volumes": ["/a:/b", "/c:/b/"]},
    ],
)
def test_a_lint_says_what_a_task_says(docker_env: dict[str, Any], tmp_path: Path) -> None:
    of = project(tmp_path, **docker_env)
    assert len(said := of_task(of)) == 1
    assert [(one.is_error, one.message) for one in lint_project(tmp_path).findings] == [(True, said[0])]


@pytest.mark.parametrize(
    "docker_env",
    [
        {"environment": ["DATA", "AIRFLOW_CTX_DAG_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_TOKEN"]},
        {"environment": [["AIRFLOW_HOME", "its own"], ["a.b-c", "$DATA"]]},
        {"volumes": ["$DATA", "$MODE", "$HOME:/x:$MODE", "~/a:/y:ro,z", "named:/z", "./d:/w:idmap=uids=0-1"]},
    ],
)
def test_what_is_honest_stays_so(docker_env: dict[str, Any], tmp_path: Path) -> None:
    project(tmp_path, **docker_env)
    assert lint_project(tmp_path).findings == []
