"""``docker_env`` of an MLproject, read as the shell behind MLflow's ``docker run`` line reads it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlflow_projects.backends.local.docker_env import declared_variables, expanded, volumes_of
from mlflow_projects.exceptions import ProjectError

WORKER = {"HOME": "/home/worker", "DATA": "/data/in", "A_1": "x"}


def test_declared_variables_are_set_or_copied(project: Any) -> None:
    declared = project(environment=["COPIED", ["SET", 1], ["FOLDER", "$DATA/a"], "MLFLOW_RUN_ID"])
    worker = {"COPIED": "yes", "OTHER": "no", **WORKER}
    assert declared_variables(declared, worker) == {"COPIED": "yes", "SET": "1", "FOLDER": "/data/in/a"}
    with pytest.raises(ProjectError, match=r"MLproject: 'docker_env.environment' copies the variable 'COPIED'"):
        declared_variables(declared, WORKER)
    with pytest.raises(ProjectError, match=re.escape("write [name, value]")):
        declared_variables(project(environment=[["only a name"]]), {})


def test_what_the_connection_does_not_say_of_tracking_is_not_missing(project: Any) -> None:
    names = ["MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN", "MLFLOW_EXPERIMENT_ID"]
    uri = {"MLFLOW_TRACKING_URI": "http://server"}
    assert declared_variables(project(environment=names), uri) == uri


def test_volumes(project: Any, tmp_path: Path) -> None:
    volumes = volumes_of(project(volumes=["/a:/b:ro", "named:/c", "./data:/d", "/scratch"]), {})
    assert volumes.binds == ["/a:/b:ro", "named:/c", f"{tmp_path}/data:/d"]
    assert volumes.unnamed == ["/scratch"]
    assert [volumes.covers(path) for path in ("/b", "/scratch", "/a", "/")] == [True, True, False, False]
    assert volumes_of(project(volumes=["$(pwd):/mlflow/projects/code/"]), {}).covers("/mlflow/projects/code")
    for wrong in ("/a:b", "name", "/a:/b:ro:z", ":/b", "%cd%:/home/app", "a b:/c"):
        with pytest.raises(ProjectError, match=re.escape(f"'docker_env.volumes' has {wrong!r}")):
            volumes_of(project(volumes=[wrong]), {})


def test_folders_of_the_user_and_of_the_project(project: Any, tmp_path: Path) -> None:
    texts = [
        "~/.aws:/root/.aws:ro",
        "$(pwd)/data:/opt/data",
        "${PWD}:/code",
        "$DATA:/in",
        "${HOME}/x:$DATA",
        "`pwd`:/e",
    ]
    assert volumes_of(project(volumes=texts), WORKER).binds == [
        "/home/worker/.aws:/root/.aws:ro",
        f"{tmp_path}/data:/opt/data",
        f"{tmp_path}:/code",
        "/data/in:/in",
        "/home/worker/x:/data/in",
        f"{tmp_path}:/e",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a", "$PWD/b", "${PWD}b", "$(pwd)", "$( pwd )/c", "`pwd`/d", "$DATA", "${DATA}/x", "$A_1-${A_1}", "a\\$DATA",
        "a\\\\b", "10%", "a$", "a$/b", "$1x$", "~/x", "~", "a~/x", "'~/x'", "'a b'", '"a b"', "'$DATA'",
        '"$DATA/x y"/z', "a'b'\"c\"", '"\\$DATA\\a"', "'$(id)'", '"it\'s"', "/home/$UID-${EUID}", "$HOSTNAME",
    ],
)  # fmt: skip
def test_a_text_is_what_bash_makes_of_it(text: str, project: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf %s {text}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **WORKER},
        capture_output=True,
    )
    if text == "$1x$":  # positions mean nothing here, and stay
        assert expanded("key", text, project(), WORKER) == text
    else:
        assert expanded("key", text, project(), WORKER) == done.stdout.decode()


@pytest.mark.parametrize(
    "text", ["$(whoami)", "`id`", "${DATA:-/x}", "${!DATA}", "$(pwd; touch x)", "$((1+1))", '"$(id)"']
)
def test_what_needs_a_shell_is_refused(text: str, project: Any, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=re.escape("which asks for a shell; write it out")):
        volumes_of(project(volumes=[f"{text}:/x"]), WORKER)
    with pytest.raises(ProjectError, match=re.escape(f"'docker_env.environment' has '{text}'")):
        declared_variables(project(environment=[["A", text]]), WORKER)
    assert not (tmp_path / "x").exists()


def test_the_home_folder_is_meant_in_a_variable_too(project: Any, tmp_path: Path) -> None:
    for text in ("~/x", "~", "~/x:~/y", "/a:~", "x~/y", "~x/y", "'~/x'"):
        done = subprocess.run(["bash", "-c", f"printf %s A={text}"], env=WORKER, capture_output=True, text=True)
        assert declared_variables(project(environment=[["A", text]]), WORKER) == {"A": done.stdout.removeprefix("A=")}
    with pytest.raises(ProjectError, match=re.escape("'docker_env.volumes' has '/a:~/x'")):
        volumes_of(project(volumes=["/a:~/x"]), WORKER)  # where a shell takes it as it stands


@pytest.mark.parametrize("text", ["it's", "'a' b", '{"k": 1}', '"a'])
def test_quotes_that_no_shell_reads_as_one_word_are_refused(text: str, project: Any) -> None:
    with pytest.raises(ProjectError, match=r"'docker_env.environment' has .*; put quotes around all of it\."):
        declared_variables(project(environment=[["A", text]]), WORKER)


def test_a_variable_that_the_worker_does_not_have_is_named(project: Any) -> None:
    with pytest.raises(ProjectError, match="this worker has no variable 'NONE'"):
        volumes_of(project(volumes=["$NONE/a:/x"]), WORKER)
