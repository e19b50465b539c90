"""The engine that other tests rely on: it runs containers, and nothing of them is left."""

from __future__ import annotations

from tests.support.engine import Engine


def test_the_engine_runs_the_base_image(engine: Engine, base_image: str) -> None:
    client = engine.client()
    output = client.containers.run(base_image, ["python3", "-c", "print(6 * 7)"], remove=True)
    assert output == b"42\n"
    kept = client.containers.create(base_image, ["true"], name="kept")
    assert engine.leftovers() == ["container kept"]
    kept.remove()
    assert engine.leftovers() == []


def test_the_engine_builds_images_and_bridges_networks(engine: Engine, base_image: str, tmp_path) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN python3 --version > /made\n")
    client = engine.client()
    client.images.build(path=str(tmp_path), tag="localhost/built:1", buildargs={"BASE_IMAGE": base_image})
    output = client.containers.run("localhost/built:1", ["cat", "/made"], remove=True, network_mode="bridge")
    assert output.startswith(b"Python 3.11")
