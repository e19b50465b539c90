"""Every requirements file that we install is pinned and hashed, but for those that docs/releasing.md names."""

from __future__ import annotations

import re
import subprocess

from tests.conftest import ROOT


def test_every_requirements_file_is_hashed_or_named_with_the_reason() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*requirements*.txt", ":!docs/examples"], cwd=ROOT, capture_output=True, text=True
    )
    files = {file for file in listed.stdout.split() if (ROOT / file).is_file()}
    assert "requirements.txt" in files
    bare = {}
    for file in sorted(files):
        text = re.sub(r"\\\n", " ", (ROOT / file).read_text(encoding="utf-8"))
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        assert all(re.match(r"[\w.-]+==", line) for line in lines), f"{file} has what is not pinned"
        if unhashed := [line for line in lines if "--hash=sha256:" not in line]:
            bare[file] = unhashed
    page = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(\S*requirements\S*\.txt)` \| no", page, re.MULTILINE))
    assert set(bare) == named


def test_the_page_names_every_image_that_is_pulled() -> None:
    """Of docker-compose.yaml and of each Dockerfile."""
    page = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
    compose = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    pulled = set(re.findall(r"^ +image: ([^$\s]+)$", compose, re.MULTILINE))
    assert len(pulled) == 4
    pulled |= set(re.findall(r"BASE_IMAGE:-([^}]+)}", compose))
    for file in [*ROOT.glob("custom_images/*/Dockerfile"), *ROOT.glob("sample_projects/*/*/Dockerfile")]:
        pulled |= set(re.findall(r"^ARG BASE_IMAGE=(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    assert all("@sha256:" in image or f"`{image}`" in page for image in pulled), pulled
