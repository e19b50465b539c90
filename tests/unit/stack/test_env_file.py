"""tools/env.py: what ``make env`` writes."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    import env

    return env


def test_every_variable_that_compose_asks_for_is_written(env: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    env.ensure(file)
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yaml").read_text()))
    assert asked <= env.read(file).keys()
    assert file.stat().st_mode & 0o777 == 0o600


def test_secrets_are_random(env: ModuleType, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    env.ensure(first)
    env.ensure(second)
    secret = {*env.PASSWORDS, *env.LONG, env.FERNET}
    values = [file[name] for file in (env.read(first), env.read(second)) for name in secret]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 32


def test_what_is_there_stays_and_only_the_rest_is_added(env: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# mine\nAIRFLOW_PORT=9090\nREDIS_PASSWORD=0123456789abcdef")
    file.chmod(0o644)
    assert "REDIS_PASSWORD" not in env.ensure(file)
    text = file.read_text()
    assert text.startswith("# mine\nAIRFLOW_PORT=9090\nREDIS_PASSWORD=0123456789abcdef\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert env.ensure(file) == []
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("REDIS_PASSWORD=has@sign/in-it", "REDIS_PASSWORD may have letters, digits, '-' and '_' only."),
        ("POSTGRES_PASSWORD=postgres", "POSTGRES_PASSWORD is shorter than 12 characters; remove its line to get"),
    ],
)
def test_a_value_that_the_stack_cannot_take_is_refused(
    env: ModuleType, tmp_path: Path, line: str, sentence: str
) -> None:
    file = tmp_path / ".env"
    file.write_text(line)
    with pytest.raises(SystemExit, match=re.escape(f"{file}: {sentence}")):
        env.ensure(file)
    assert file.read_text() == line
