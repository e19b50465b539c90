"""The git repository that holds a local folder, read without obeying it.

A repository's own settings name programs (``core.fsmonitor``, ``filter.*``, hooks), and git runs them. The folder may
be anybody's, and its project is not to run a line before its command does. So git never finds a repository by itself
here: it works with one of ours, whose objects, index and commit are the folder's, and whose settings are a few of the
folder's that only say how files are compared. One that belongs to somebody else is not given to git at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_projects.project import git_command

# Of a repository's settings: those without which an honest work tree would look changed, or not be understood.
_TAKEN = re.compile(
    r"core\.(filemode|symlinks|ignorecase|precomposeunicode|autocrlf|eol|sparsecheckout(cone)?)"
    r"|index\.sparse|extensions\.objectformat",
)
_PLAIN = re.compile(r"[\w-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REFERENCE = re.compile(r"refs/(?!.*\.\.)[^\s\\:?*\[~^]+")
_MAX_SMALL, _MAX_PACKED_REFS = 64 * 2**10, 64 * 2**20  # bytes
_MAX_LINKS = 5  # a reference may name another one


@dataclass(frozen=True)
class LocalRepository:
    """A repository with a work tree.

    :param top: the work tree
    :param git_dir: what holds its HEAD and its index
    :param common_dir: what holds its objects, references and settings; that of several work trees
    :param is_trusted: False: it is somebody else's
    """

    top: Path
    git_dir: Path
    common_dir: Path
    is_trusted: bool

    def commit(self) -> str | None:
        """Return the full id of the commit that is checked out, read without git; None before the first one."""
        name = (_read(self.git_dir / "HEAD") or "").strip()
        for _ in range(_MAX_LINKS):
            if _COMMIT.fullmatch(name):
                return name
            reference = name.removeprefix("ref: ").strip()
            if not _REFERENCE.fullmatch(reference):
                return None
            own = _read(self.git_dir / reference) or _read(self.common_dir / reference)
            name = own.strip() if own else self._packed(reference)
        return None

    def _packed(self, reference: str) -> str:
        lines = (_read(self.common_dir / "packed-refs", _MAX_PACKED_REFS) or "").splitlines()
        return next((line.split(" ")[0] for line in lines if line.endswith(f" {reference}")), "")

    @contextlib.contextmanager
    def opened(self) -> Iterator[OpenRepository]:
        """Yield the repository for questions; only a trusted one.

        :raises OSError: git is not installed
        """
        assert self.is_trusted, "git would read what somebody else wrote"
        with _empty(self._settings()) as folder:
            for name in ("index", "info/exclude", "info/sparse-checkout", *self._shared_indexes()):
                home = self.common_dir if name == "info/exclude" else self.git_dir
                if _is_file(home / name):
                    (folder / name).parent.mkdir(exist_ok=True)
                    (folder / name).symlink_to(home / name)
            if commit := self.commit():
                (folder / "HEAD").write_text(f"{commit}\n", encoding="ascii")
            yield OpenRepository(self.top, folder, {"GIT_OBJECT_DIRECTORY": str(self.common_dir / "objects")})

    def _shared_indexes(self) -> list[str]:
        """Return the files of a split index."""
        return [file.name for file in self.git_dir.glob("sharedindex.*")]

    def setting(self, name: str) -> str:
        """Return one of the repository's settings, or "" where it has none; nothing that it names is run or read."""
        found = [value for key, value in self._all_settings() if key == name]
        return found[-1] if found else ""

    def _settings(self) -> list[tuple[str, str]]:
        settings = self._all_settings()
        return [(key, value) for key, value in settings if _TAKEN.fullmatch(key) and _PLAIN.fullmatch(value)]

    def _all_settings(self) -> list[tuple[str, str]]:
        found = []
        # The second holds what differs between the work trees of a repository.
        for file in (self.common_dir / "config", self.git_dir / "config.worktree"):
            if not _is_file(file):
                continue
            command = ("config", "--file", str(file), "--no-includes", "--null", "--list")
            listing = git_command.ask(self.top, *command, environment={"GIT_DIR": os.devnull})
            entries = os.fsdecode(listing or b"").split("\0")
            found += [(key, value) for key, _, value in (entry.partition("\n") for entry in entries) if key]
        return found


@dataclass(frozen=True)
class OpenRepository:
    """What git may be asked.

    :param top: the work tree
    :param folder: git's own folder, which is ours
    """

    top: Path
    folder: Path
    environment: dict[str, str]

    def ask(self, folder: Path, *arguments: str) -> bytes | None:
        """Return what git says of a folder of the work tree, or None if it refuses."""
        environment = {**self.environment, "GIT_DIR": str(self.folder), "GIT_WORK_TREE": str(self.top)}
        return git_command.ask(folder, *arguments, environment=environment)


@contextlib.contextmanager
def no_repository(top: Path) -> Iterator[OpenRepository]:
    """Yield a repository without a commit whose work tree is a folder: git then lists what is in it."""
    with _empty() as folder:
        yield OpenRepository(top, folder, {})


def find(folder: Path, trusted_dirs: Sequence[Path] = ()) -> LocalRepository | None:
    """Return the repository that holds a local folder, as git finds it; None where it is in none.

    A repository further up that is somebody else's is not that of a folder of ours: anybody may put one into /tmp.

    :param trusted_dirs: folders whose repositories count as ours, whoever owns them
    """
    folder = folder.resolve()
    if not folder.is_dir():
        return None
    device = folder.stat().st_dev
    for top in (folder, *folder.parents):
        if top.stat().st_dev != device:
            return None
        git_dir = _git_dir(top)
        if git_dir is None:
            continue
        common_dir = git_dir / (_read(git_dir / "commondir") or "").strip()
        places = (top, top / ".git", git_dir, common_dir)
        if all(map(_is_ours, places)) or any(top.is_relative_to(directory) for directory in trusted_dirs):
            return LocalRepository(top, git_dir, common_dir, is_trusted=True)
        return None if _is_ours(folder) else LocalRepository(top, git_dir, common_dir, is_trusted=False)
    return None


def is_trusted(repository: Path, trusted_dirs: Sequence[Path] = ()) -> bool:
    """Tell whether git may read a repository: it is ours, or root's, or one of the named."""
    return all(_is_ours(path) for path in (repository, repository / ".git") if os.path.lexists(path)) or any(
        repository.resolve().is_relative_to(directory) for directory in trusted_dirs
    )


def _git_dir(top: Path) -> Path | None:
    dot_git = top / ".git"
    text = _read(dot_git)  # of a submodule, or of a second work tree
    git_dir = top / text.removeprefix("gitdir:").strip() if text and text.startswith("gitdir:") else dot_git
    return git_dir.resolve() if os.path.lexists(git_dir / "HEAD") else None


def _is_ours(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.lstat().st_uid in (0, os.geteuid())
    return False


def _is_file(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def _read(path: Path, limit: int = _MAX_SMALL) -> str | None:
    """Return the text of a regular file; None for one that cannot be read, and for what may never end."""
    if not _is_file(path):
        return None
    try:
        # Nothing that took its place meanwhile is waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123
            return file.read(limit).decode("utf-8", "surrogateescape")
    except OSError:  # that of another user, say
        return None


@contextlib.contextmanager
def _empty(settings: Sequence[tuple[str, str]] = ()) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mlflow-projects-git-") as name:
        folder = Path(name)
        for part in ("objects", "refs"):
            (folder / part).mkdir()
        (folder / "HEAD").write_text("ref: refs/heads/main\n", encoding="ascii")
        lines = ["[core]", "repositoryformatversion = 1", "bare = false"]
        for key, value in settings:
            section, _, variable = key.partition(".")
            lines += [f"[{section}]", f"{variable} = {value}" if value else variable]
        (folder / "config").write_text("\n".join(lines) + "\n", encoding="ascii")
        yield folder
