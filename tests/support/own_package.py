"""A package that can be built without a network: its build backend is its own and needs no other package."""

from __future__ import annotations

from pathlib import Path

_PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "own-package"
version = "3"
"""
_BACKEND = """
import os
import zipfile


def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open("source.py") as source:
        return wheel(folder, "own_package.py", source.read())


def build_editable(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, "own_package.pth", os.getcwd() + "/editable\\n")


def wheel(folder, file, content):
    name, facts = "own_package-3-py3-none-any.whl", "own_package-3.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as archive:
        archive.writestr(file, content)
        archive.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\\nName: own-package\\nVersion: 3\\n")
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{facts}/RECORD", "")
    return name
"""


def write_package(folder: Path, value: int) -> None:
    """Write a package with the module ``own_package``, whose ``VALUE`` is what is given."""
    (folder / "editable").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(_PROJECT)
    (folder / "backend.py").write_text(_BACKEND)
    (folder / "source.py").write_text(f"VALUE = {value}\n")
    (folder / "editable" / "own_package.py").write_text(f"VALUE = {value}\n")
