"""The files of a repository: listed cheaply, then read one at a time.

A git work tree holds what git says it holds; in a plain folder nested `.gitignore` files are honoured alike. What is
left out for any other reason is reported with it, never silently dropped (reliability F09, S15, S29).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from codeintel_rev.config.settings import SourceSettings
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.indexing import roles
from codeintel_rev.indexing.languages import PROSE, TEXT, language_of
from codeintel_rev.io import git
from codeintel_rev.io.confined import read_beneath
from codeintel_rev.io.decode import decode
from codeintel_rev.io.globs import IgnoreFiles, PathMatcher
from codeintel_rev.io.stat_cache import Stamp, StatCache
from codeintel_rev.types import Revision, Role, SkippedFile, SourceFile

IGNORE_FILE = ".codeintelignore"

_SECRETS = PathMatcher(
    """
    .env* *.env !.env.example !.env.sample !.env.template !.env.dist !.env.defaults !.env.schema
    *.pem *.key *.p8 *.p12 *.pfx *.pkcs12 *.jks *.keystore *.bks *.kdb *.kdbx *.ppk *.asc *.gpg *.ovpn
    id_rsa id_dsa id_ecdsa id_ecdsa_sk id_ed25519 id_ed25519_sk *_rsa *_ed25519 .ssh/
    .npmrc .netrc _netrc .pypirc .pgpass .my.cnf .htpasswd .git-credentials .dockercfg .docker/config.json .boto .s3cfg
    .aws/credentials .kube/config kubeconfig *.kubeconfig .terraformrc .vault-token .vault_pass
    credentials.json credentials.yml credentials.yaml credentials.xml credentials.csv
    *service-account*.json *service_account*.json client_secret*.json application_default_credentials.json
    secrets.json secrets.yml secrets.yaml secrets.toml secrets.env master.key *.tfstate *.tfstate.* *.tfvars
    .bash_history .zsh_history .python_history .psql_history .mysql_history .node_repl_history .rediscli_history
    """.split()
)
_PRIVATE_KEY = re.compile(r"\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY")


@dataclass(frozen=True, slots=True)
class PathEntry:
    """One file that may be indexed, not read yet, and its stamp when it was listed."""

    path: str
    stamp: Stamp

    @property
    def size(self) -> int:
        return self.stamp.size


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The files under `root` in path order, and those left out with the reason why.

    Reasons: binary, oversize, minified, generated, vendored, secret, denied, symlink, submodule, special, unreadable,
    empty, too-many-files. A folder that `.codeintelignore` excludes is one entry whose path ends in `/`.
    """

    root: Path
    revision: Revision
    settings: SourceSettings
    files: tuple[PathEntry, ...]
    skipped: tuple[SkippedFile, ...]


def scan(root: Path, settings: SourceSettings) -> SourceTree:
    """List the files under folder `root`, a git work tree, part of one, or a plain folder; nothing is read.

    Files that git ignores are not mentioned. Raises NotFound when `root` is no folder that can be read, SourceFailed
    when git fails.
    """
    if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK):
        raise NotFound(f"{root.name!r} is no folder that can be read.", "Give the folder of a repository.")
    in_git = git.work_tree_root(root) is not None
    revision = git.revision(root) if in_git else Revision(commit="", branch="", dirty=False)
    ignored = IgnoreFiles(root, IGNORE_FILE)
    listed = _listed_by_git(root) if in_git else _listed_by_walk(root, ignored)
    files, skipped = _classify(listed, ignored, settings)
    files.sort(key=lambda entry: entry.path)
    skipped |= {_skip(entry, "too-many-files") for entry in files[settings.max_files :]}
    ordered = sorted(skipped, key=lambda skip: skip.path)
    return SourceTree(root, revision, settings, tuple(files[: settings.max_files]), tuple(ordered))


def contents_of(tree: SourceTree, cache: StatCache) -> dict[str, str]:
    """Return path → SHA-256 of every file of the tree, "" for one that cannot be read; `cache` saves most reading."""

    def read(path: str) -> str:
        try:
            return _sha256(read_beneath(tree.root, path, tree.settings.max_bytes))
        except (NotFound, InvalidArgument):
            return ""

    return {entry.path: cache.digest(entry.path, entry.stamp, read) for entry in tree.files}


def read_file(root: Path, entry: PathEntry, settings: SourceSettings) -> SourceFile | SkippedFile:
    """Read, decode and classify one file that `scan` listed; a file gone since then is "unreadable"."""
    try:
        content = read_beneath(root, entry.path, settings.max_bytes)
    except NotFound:
        return _skip(entry, "unreadable")
    except InvalidArgument:
        return _skip(entry, "oversize")
    digest = _sha256(content)
    decoded = decode(content)
    if decoded is None:
        return SkippedFile(entry.path, "binary", entry.size, digest)
    head = decoded.text[: roles.HEAD_CHARS]
    language = language_of(entry.path, head)
    role = roles.role_of(entry.path, language, head)
    if reason := _content_reason(decoded.text, language, role, settings):
        return SkippedFile(entry.path, reason, entry.size, digest)
    return SourceFile(entry.path, language, role, len(content), digest, decoded.encoding, decoded.text)


def _content_reason(text: str, language: str, role: Role, settings: SourceSettings) -> str | None:
    if not text.strip():
        return "empty"
    if _PRIVATE_KEY.match(text):
        return "secret"
    if settings.index_generated:
        return None
    if role is Role.GENERATED:
        return "generated"
    return "minified" if language not in PROSE and roles.is_minified(text) else None


def _listed_by_git(root: Path) -> Iterator[PathEntry | SkippedFile]:
    for path in git.tracked_and_untracked(root):
        if _printable(path) == path:
            yield from _examine(root, path)
        else:
            yield SkippedFile(_printable(path), "unreadable", 0)


def _listed_by_walk(root: Path, ignored: IgnoreFiles) -> Iterator[PathEntry | SkippedFile]:
    gitignored = IgnoreFiles(root, ".gitignore")
    folders = [""]
    while folders:
        folder = folders.pop()
        found = _list_folder(root / folder)
        if found is None:
            yield SkippedFile(folder, "unreadable", 0)
            continue
        for path in (folder + name for name in found):
            if _printable(path) != path:
                yield SkippedFile(_printable(path), "unreadable", 0)
            elif gitignored.excluded(path):
                continue
            elif not path.endswith("/"):
                yield from _examine(root, path)
            elif ignored.excluded(path):
                yield SkippedFile(path, "denied", 0)
            else:
                folders.append(path)


def _list_folder(folder: Path) -> list[str] | None:
    """Return the names in `folder` save `.git`, those of folders ending in `/`; None when it cannot be read."""
    try:
        with os.scandir(folder) as listing:
            return [e.name + "/" * e.is_dir(follow_symlinks=False) for e in listing if e.name != ".git"]
    except OSError:
        return None


def _examine(root: Path, path: str) -> Iterator[PathEntry | SkippedFile]:
    """Yield the file at `path`, or why it cannot be one; nothing when nothing is there any more."""
    try:
        status = os.lstat(f"{root}/{path}")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        yield SkippedFile(path, "unreadable", 0)
        return
    yield _entry(path, status)


def _entry(path: str, status: os.stat_result) -> PathEntry | SkippedFile:
    if stat.S_ISREG(status.st_mode):
        return PathEntry(path, Stamp.of(status))
    if stat.S_ISLNK(status.st_mode):
        return SkippedFile(path, "symlink", 0)
    return SkippedFile(path, "submodule" if stat.S_ISDIR(status.st_mode) else "special", 0)


def _printable(path: str) -> str:
    """Return `path`, its bytes that are no UTF-8 written out; a name that changes cannot be stored or asked for."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _classify(
    listed: Iterable[PathEntry | SkippedFile], ignored: IgnoreFiles, settings: SourceSettings
) -> tuple[list[PathEntry], set[SkippedFile]]:
    files: list[PathEntry] = []
    skipped: set[SkippedFile] = set()
    refusals = _refusals(settings)
    for entry in listed:
        if isinstance(entry, SkippedFile):
            skipped.add(entry)
        elif excluded := ignored.excluded(entry.path):
            skipped.add(SkippedFile(excluded, "denied", 0 if excluded.endswith("/") else entry.size))
        elif reason := next((reason for reason, refuses in refusals if refuses(entry)), None):
            skipped.add(_skip(entry, reason))
        else:
            files.append(entry)
    return files, skipped


def _refusals(settings: SourceSettings) -> list[tuple[str, Callable[[PathEntry], bool]]]:
    """Return the reasons, by path and size, for which a file is not even read; the first that applies is given."""
    allow, deny = PathMatcher(settings.allow), PathMatcher(settings.deny)
    refusals: list[tuple[str, Callable[[PathEntry], bool]]] = [
        ("secret", lambda entry: _SECRETS.matches(entry.path.lower())),
        ("denied", lambda entry: not allow.matches(entry.path)),
    ]
    if settings.deny:
        refusals.append(("denied", lambda entry: deny.matches(entry.path)))
    if not settings.index_vendored:
        refusals.append(("vendored", lambda entry: roles.is_vendored(entry.path)))
    if not settings.index_generated:
        refusals.append(("minified", lambda entry: roles.is_minified_name(entry.path)))
        refusals.append(("generated", lambda entry: roles.is_generated(entry.path, TEXT, "")))
    refusals.append(("empty", lambda entry: entry.size == 0))
    refusals.append(("oversize", lambda entry: entry.size > settings.max_bytes))
    return refusals


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _skip(entry: PathEntry, reason: str) -> SkippedFile:
    return SkippedFile(entry.path, reason, entry.size)
