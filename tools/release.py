"""Build what a release consists of, from the last commit, into dist/; upload nothing.

Usage: build/release-env/bin/python tools/release.py [--out FOLDER]      (make release)

The same commit gives the same bytes: the build backend is pinned (requirements-release.txt), takes the time of the
commit for the time of each file, and sees the files of the commit only.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import uuid
from datetime import datetime, timezone
from pathlib import Path

from compose import DEBIAN, environment

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NAME = "mlflow_projects_on_airflow"
IMAGE = os.environ.get("STACK_IMAGE") or "mlflow-projects/airflow:latest"
# In the image: the system, Debian's packages, and the folders of all Python packages.
CONTENTS = r"""
. /etc/os-release; printf 'os\t%s\t%s\n' "$ID" "$VERSION_ID"
dpkg-query --show --showformat 'deb\t${Package}\t${Version}\t${Architecture}\n'
find / -xdev -type d -name '*.dist-info' -printf 'pypi\t%f\n'
"""
NEXT = """
Nothing was uploaded. To publish {version}, a person who may:
  1. compares: another machine with the same Python makes the same SHA256SUMS from this commit
  2. once: names this repository, its workflow and the environment "release" as trusted publisher on the page of the
     project in the package index; so no token is in the repository, nor anywhere else
  3. tags the commit: git tag --sign v{version} {commit} && git push origin v{version}
  4. lets the workflow run, which builds once more and uploads (docs/releasing.md has it)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    out = parser.parse_args().out.absolute()
    if git("status", "--porcelain"):
        print("What is not committed is not in it: a release is made of the last commit.")
    commit, epoch = git("log", "-1", "--format=%H %ct").split()
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob(f"{NAME}-*"), *out.glob("SHA256SUMS")]:
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(git_bytes("archive", "HEAD"))) as archive:
            archive.extractall(source)  # of git, so no stranger's
        build(source, out, epoch)
        [wheel] = out.glob("*.whl")
        [sdist] = out.glob("*.tar.gz")
        version = wheel.name.split("-")[1]
        run([BIN / "twine", "check", "--strict", wheel, sdist])
        sbom_of_lock(source, out / f"{NAME}-{version}.lock.cdx.json", epoch)
    not_made = sbom_of_image(out / f"{NAME}-{version}.image.cdx.json", epoch)
    made = sorted(out.glob(f"{NAME}-*"))
    sums = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in made)
    (out / "SHA256SUMS").write_text(sums)
    shown = out.relative_to(ROOT) if out.is_relative_to(ROOT) else out
    print(f"\nOf the commit {commit}, in {shown}:\n{sums}{not_made}", end="")
    print(NEXT.format(version=version, commit=commit[:12]), end="")
    return 0


def build(source: Path, out: Path, epoch: str) -> None:
    """Build the sdist of a folder, and the wheel from that sdist.

    :param epoch: seconds since 1970, for the times of all files
    """
    # Without isolation: the build backend is this environment's, which is hashed.
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], SOURCE_DATE_EPOCH=epoch)


def sbom_of_lock(source: Path, file: Path, epoch: str) -> None:
    """Write what `make demo` and a plain Airflow with this package install, with hashes."""
    command = [
        BIN / "cyclonedx-py", "requirements", source / "requirements.txt", "--pyproject", source / "pyproject.toml",
        "--mc-type", "library", "--output-reproducible", "--output-file", file,
    ]  # fmt: skip
    run(command, SOURCE_DATE_EPOCH=epoch)


def sbom_of_image(file: Path, epoch: str) -> str:
    """Write what is in the image of docker-compose.yaml; return a line that says why not, or nothing."""
    for engine in ["podman"] if DEBIAN else ["docker", "podman"]:
        if identity := answer(engine, "image", "inspect", "--format", "{{.Id}}", IMAGE).strip():
            break
    else:
        return f"No SBOM of the image: neither docker nor podman has {IMAGE}; make it first with: make stack-build\n"
    contents = answer(engine, "run", "--rm", "--user=0", "--network=none", "--entrypoint=sh", IMAGE, "-ec", CONTENTS)
    if "\npypi\t" not in contents:
        return f"No SBOM of the image: {engine} cannot list what is in {IMAGE}.\n"
    file.write_text(sbom(contents, identity, epoch))
    return ""


def answer(engine: str, *arguments: str) -> str:
    """Return what an engine prints; nothing if it is missing or fails."""
    try:
        asked = subprocess.run([engine, *arguments], env=environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return asked.stdout if asked.returncode == 0 else ""


def sbom(contents: str, identity: str, epoch: str) -> str:
    """Return the CycloneDX document of an image.

    :param contents: what the commands in ``CONTENTS`` print
    :param identity: the image's own hash
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    rows = [line.split("\t") for line in contents.splitlines()]
    [(system, release)] = [row[1:] for row in rows if row[0] == "os"]
    found = {
        PackageURL("deb", system, name, version, {"arch": arch, "distro": f"{system}-{release}"})
        for name, version, arch in (row[1:] for row in rows if row[0] == "deb")
    }
    for folder in (row[1] for row in rows if row[0] == "pypi"):
        name, _, version = folder.removesuffix(".dist-info").rpartition("-")
        found.add(PackageURL("pypi", None, name.replace("_", "-"), version))
    image = Component(name=IMAGE, version=identity, type=ComponentType.CONTAINER, bom_ref="image")
    document = Bom(
        # The same image gives the same document.
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, identity),
        metadata=BomMetaData(component=image, timestamp=datetime.fromtimestamp(int(epoch), timezone.utc)),
        components=[Component(name=url.name, version=url.version, purl=url, bom_ref=str(url)) for url in found],
    )
    document.register_dependency(image, document.components)
    return JsonV1Dot6(document).output_as_string(indent=2)


def git(*arguments: str) -> str:
    return git_bytes(*arguments).decode().strip()


def git_bytes(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout


def run(command: list[str | Path], **variables: str) -> None:
    """Run a program.

    :raises SystemExit: with all that it printed, if it fails
    """
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}\n{Path(command[0]).name} failed; see above.")


if __name__ == "__main__":
    sys.exit(main())
