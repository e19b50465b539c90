"""docker-compose.yaml says what its readers rely on; without an engine."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from airflow.configuration import conf

from tests.conftest import ROOT

TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
LONG_RUNNING = {name: service for name, service in SERVICES.items() if name != "init"}
WITH_DATABASE = {"init", "api-server", "scheduler", "dag-processor", "triggerer"}


def holders(variable: str) -> set[str]:
    """Return the services that get a variable of .env."""
    return {name for name, service in SERVICES.items() if f"${{{variable}" in str(service.get("environment", ""))}


def test_ports_are_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z0-9]+_PORT:-\d+\}:\d+", port) for port in ports), ports


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_every_service_is_checked_restarted_and_its_log_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]


def test_no_secret_has_a_default_and_each_is_asked_for_in_one_sentence() -> None:
    secrets = set(re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|KEY)\w*)", TEXT))
    used = re.findall(r"\$\{(\w+)(\S?[^}]*)\}", TEXT)
    assert secrets
    for name, rest in used:
        if name in secrets:
            assert rest == ':?is not set; write .env with "make env"', name


def test_each_service_has_the_secrets_that_it_needs_and_no_others() -> None:
    assert holders("AIRFLOW_DB_PASSWORD") == WITH_DATABASE | {"postgres"}
    assert holders("AIRFLOW_FERNET_KEY") == holders("AIRFLOW_JWT_SECRET") == WITH_DATABASE
    assert holders("CELERY_DB_PASSWORD") == {"postgres", "scheduler", "worker"}
    assert holders("REDIS_PASSWORD") == {"redis", "scheduler", "worker"}
    assert holders("MLFLOW_DB_PASSWORD") == {"postgres", "mlflow", "mysql"}
    assert holders("POSTGRES_PASSWORD") == {"postgres"}
    assert holders("S3_SECRET_KEY") == {"s3", "init"}
    assert holders("AIRFLOW_ADMIN_PASSWORD") == {"init"}
    assert holders("MLFLOW_ADMIN_PASSWORD") == {"init", "mlflow"}
    assert holders("MLFLOW_AIRFLOW_PASSWORD") == {"init"}
    assert holders("GIT_PASSWORD") == {"init", "git"}


def test_no_service_needs_one_of_a_profile_that_may_be_off() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"git", "mysql", "sagemaker"}
    for service in SERVICES.values():
        for name, need in service.get("depends_on", {}).items():
            assert need.get("required", True) == ("profiles" not in SERVICES[name])


def test_no_command_line_holds_a_secret() -> None:
    for name, service in SERVICES.items():
        words = f"{service.get('command', '')} {service.get('entrypoint', '')}"
        assert not re.search(r"(?<!\$)\$\{", words), name


def test_code_is_mounted_read_only_and_data_is_in_named_volumes() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, _, target = volume.partition(":")
            assert target.endswith(":ro") if source.startswith(".") else source in COMPOSE["volumes"], name


def test_the_override_for_podman_only_swaps_images() -> None:
    override = yaml.safe_load((ROOT / "tests/stack/podman.yaml").read_text())
    assert override.keys() == {"services"}
    for name, service in override["services"].items():
        assert name in SERVICES
        if service.keys() == {"build"}:
            assert service["build"].keys() == {"args"}
            assert service["build"]["args"].keys() == {"BASE_IMAGE"}
        else:
            assert service.keys() == {"image"}, name


def test_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.fullmatch(r"[a-z/]+:\d+\.\d+.*", service["image"]), name


def test_airflows_pauses_are_as_make_up_has_them_unless_the_environment_says_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from home import PAUSES

    for name, seconds in PAUSES.items():
        assert conf.get_default_value(*name.removeprefix("AIRFLOW__").lower().split("__")), "Airflow knows it"
        for service in ("scheduler", "worker"):
            assert SERVICES[service]["environment"][name] == f"${{{name}:-{seconds}}}"


def test_make_up_takes_a_pause_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    from home import PAUSES, environment

    own, other = PAUSES
    monkeypatch.setenv(own, "7")
    monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", "/their/own")
    made = environment()
    assert (made[own], made[other]) == ("7", PAUSES[other])
    assert made["AIRFLOW__CORE__DAGS_FOLDER"] == str(ROOT / "dags"), "their own Airflow stays untouched"
