"""Build the site of the documentation into build/site; --serve shows it, and what is changed meanwhile.

Usage: build/docs-env/bin/python tools/docs.py [--serve]      (make docs, make docs-serve)

The pages of docs/ are written for a repository: they link to sources, folders and files such as CONTRIBUTING.md. So
build/pages holds what the generator reads: docs/ and the pages of ROOT_PAGES, a page for each file or folder of the
repository that one of them links to, and the reference, whose pages name what `mlflow_projects` exports. Nothing is
fetched, neither here nor by the reader's browser.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import posixpath
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pages as texts

ROOT = Path(__file__).resolve().parents[1]
PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"
ROOT_PAGES = {
    "README.md": "start.md",
    "README.ja.md": "start_ja.md",
    "README.ko.md": "start_ko.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security_policy.md",
    "custom_images/README.md": "custom_images.md",
    "tests/aws/README.md": "aws_check.md",
}
# Of the npm package mermaid 11.16.0, dist/mermaid.min.js. The Python package mermaidx has the same file, to the byte.
MERMAID = "74d7c46dabca328c2294733910a8aa1ed0c37451776e8d5295da38a2b758fb9b"
# What a DAG calls of the classes; their other methods are for Airflow.
STEP = ["artifact", "model", "metric", "param"]
MEMBERS = {
    "MLflowProjectOperator": STEP,
    "MLflowTaskOperator": STEP,
    "MLflowHook": ["client", "get_conn", "settings", "test_connection"],
}
_FOREIGN = re.compile(r"^[a-z][a-z0-9+.-]*:|^#")
_PICTURE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LONGEST_SOURCE = 200_000  # bytes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="show the site, and what is changed meanwhile")
    parser.add_argument("--address", default="127.0.0.1:8001", help="for --serve")
    options = parser.parse_args()
    shutil.rmtree(PAGES, ignore_errors=True)
    write(staged())
    copy_mermaid()
    zensical = [str(Path(sys.executable).with_name("zensical"))]
    if options.serve:
        return serve([*zensical, "serve", "--dev-addr", options.address])
    shutil.rmtree(SITE, ignore_errors=True)
    status = subprocess.call([*zensical, "build", "--clean", "--strict"], cwd=ROOT)
    if status:
        return status
    problems = missing_anchors() + foreign_hosts() + undrawn_pictures()
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    copy_markdown()
    print(f"The site is in {SITE.relative_to(ROOT)}; begin with {SITE.relative_to(ROOT)}/index.html")
    return 0


def serve(command: list[str]) -> int:
    """Run the generator's server, and write anew what was changed, until Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        while server.poll() is None:
            time.sleep(1)
            write(staged())
        return server.returncode
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()


def write(pages: dict[str, bytes]) -> None:
    for name, content in pages.items():
        file = PAGES / name
        if not file.is_file() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def staged() -> dict[str, bytes]:
    """Return what the generator reads, by its name below build/pages."""
    sources = {f"docs/{file.relative_to(ROOT / 'docs').as_posix()}": file for file in (ROOT / "docs").rglob("*")}
    sources = {name: file for name, file in sources.items() if file.is_file()}
    names = {source: source.removeprefix("docs/") for source in sources}
    names.update(ROOT_PAGES)
    pages: dict[str, bytes] = {}
    for source, name in list(names.items()):
        file = ROOT / source
        if file.suffix == ".md":
            pages[name] = page_of(source, name, names).encode()
        else:
            pages[name] = file.read_bytes()
    for source, name in names.items():
        if name not in pages:
            pages[name] = source_page(source).encode()
    pages.update({name: text.encode() for name, text in reference().items()})
    return pages


def page_of(source: str, name: str, names: dict[str, str]) -> str:
    """Return a page with its links as they are in the site; note in names what they lead to."""

    def changed(target: str) -> str:
        if _FOREIGN.match(target):
            return target
        path, hash_, anchor = target.partition("#")
        to = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / to).exists():
            raise SystemExit(f"{source} links to {target}, which is not there.")
        if to not in names:
            names[to] = f"files/{to.removesuffix('/').replace('.', '_')}.md"
        return posixpath.relpath(names[to], posixpath.dirname(name) or ".") + hash_ + anchor

    return texts.with_links((ROOT / source).read_text(encoding="utf-8"), changed)


def source_page(source: str) -> str:
    """Return a page that shows a file, or the files of a folder."""
    path = ROOT / source
    files = [path] if path.is_file() else files_below(path)
    parts = [f"# {source}\n"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
        language = {".py": "python", ".yaml": "yaml", ".sh": "bash"}.get(file.suffix, "text")
        if file != path:
            parts.append(f"## {file.relative_to(path).as_posix()}\n")
        parts.append(f"{fence}{language}\n{text.rstrip()}\n{fence}\n")
    return "\n".join(parts)


def files_below(folder: Path) -> list[Path]:
    """Return the texts of a folder, those of git where there is git."""
    listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=folder, capture_output=True, text=True, check=False)
    names = [name for name in listed.stdout.split("\0") if name]
    files = [folder / name for name in names] or sorted(folder.rglob("*"))
    return [file for file in files if file.is_file() and is_text(file)]


def is_text(file: Path) -> bool:
    content = file.read_bytes()
    return 0 < len(content) < _LONGEST_SOURCE and b"\0" not in content


def reference() -> dict[str, str]:
    """Return a page for each kind of public name: the folder of the module that has it."""
    sys.path.insert(0, str(ROOT / "plugins"))
    import mlflow_projects

    kinds: dict[str, list[str]] = defaultdict(list)
    for name in mlflow_projects.__all__:
        _, kind, module = mlflow_projects._HOMES[name].split(".")
        kinds[module if module == "retry_policy" else kind].append(f"{mlflow_projects._HOMES[name]}.{name}")
    pages = {}
    for kind, names in kinds.items():
        entries = "\n\n".join(map(entry_of, names))
        title = kind.replace("_", " ").capitalize()
        pages[f"reference/{kind}.md"] = (
            f"# Reference: {title}\n\nMade from the code. Import all of it from `mlflow_projects`.\n\n{entries}\n"
        )
    return pages


def entry_of(name: str) -> str:
    members = MEMBERS.get(name.rpartition(".")[2])
    # They are inherited, so both must be said.
    shown = f"members: {members}\n      inherited_members: {members}" if members else "members: false"
    return f"::: {name}\n    options:\n      {shown}"


def copy_mermaid() -> None:
    """Put the script that draws the pictures beside the pages."""
    import mermaidx

    content = (Path(mermaidx.__file__).parent / "assets" / "mermaid.js").read_bytes()
    if hashlib.sha256(content).hexdigest() != MERMAID:
        raise SystemExit(
            "mermaidx brings another mermaid.js; compare it with npm's, then change MERMAID in tools/docs.py."
        )
    write({"assets/mermaid.js": content})


def missing_anchors() -> list[str]:
    """Return the links of the built site that lead to no page or to no place of it."""
    texts = {file.relative_to(SITE).as_posix(): file.read_text(encoding="utf-8") for file in SITE.rglob("*.html")}
    places = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in texts.items()}
    missing = []
    for name, text in texts.items():
        if name == "404.html":
            continue
        for target in sorted(set(re.findall(r'<a [^>]*?href="([^"]*)"', text))):
            if _FOREIGN.match(target) and not target.startswith("#"):
                continue
            path, _, anchor = target.partition("#")
            to = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            to = "index.html" if to == "." else to
            if not (SITE / to).exists() or (anchor and to in places and anchor not in places[to] | {"__top"}):
                missing.append(f"build/site/{name} links to {target}, which is not there.")
    return missing


def foreign_hosts() -> list[str]:
    """Return what a browser would load from a foreign host to show a page."""
    loads = re.compile(r'<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)="((?:https?:)?//[^"]+)"[^>]*>')
    found = []
    for file in SITE.rglob("*.html"):
        for tag in loads.finditer(file.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in tag[0]:
                found.append(f"{file.relative_to(ROOT)} loads {tag[1]} from a foreign host.")
    return found


def undrawn_pictures() -> list[str]:
    """Return the pictures of our pages that Mermaid cannot read: a browser would show their text without a word."""
    import mermaidx

    undrawn = []
    for file in sorted(PAGES.glob("*.md")):
        for picture in _PICTURE.findall(file.read_text(encoding="utf-8")):
            try:
                mermaidx.render(picture).svg()
            except RuntimeError as error:
                undrawn.append(f"{file.relative_to(ROOT)}: {error}")
    return undrawn


def copy_markdown() -> None:
    """Put each page's Markdown beside it, and write llms.txt, which lists them as the navigation does."""
    import tomli

    config = tomli.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}", ""]
    for file in PAGES.rglob("*.md"):
        shutil.copyfile(file, SITE / file.relative_to(PAGES))
    for section in config["nav"]:
        for title, entries in section.items():
            lines += [f"## {title}", "", *(f"- [{words_of(entry)}]({page_in(entry)})" for entry in entries), ""]
    (SITE / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def page_in(entry: str | dict[str, str]) -> str:
    return entry if isinstance(entry, str) else next(iter(entry.values()))


def words_of(entry: str | dict[str, str]) -> str:
    """Return what the navigation calls a page: the words given there, else its first heading."""
    if isinstance(entry, dict):
        return next(iter(entry))
    return texts.headings((PAGES / entry).read_text(encoding="utf-8"))[0][1]


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    sys.exit(main())
