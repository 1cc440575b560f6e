"""What git says of a work tree: where it starts, which revision it is, which files it holds.

A repository is foreign input: its config, attributes and hooks name programs that git would start for it. Every call
here switches those off (reliability F40, S16), reads no configuration but the repository's own, and none but
`fetch_clone` opens a connection: to the URL it is given and by the protocol of that URL.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from codeintel_rev.errors import BuildInProgress, InvalidArgument, NotFound, SourceFailed
from codeintel_rev.io.leases import FileLock
from codeintel_rev.types import Revision

TIMEOUT_S = 120.0
FETCH_TIMEOUT_S = 1800.0

_URL = re.compile(r"(https|ssh|file)://[^\s\x00-\x1f]+")
_REF = re.compile(r"[^-+@:~^?*\[\\\s\x00-\x1f][^:~^?*\[\\\s\x00-\x1f]*")
_PASSWORD = re.compile(r"[a-z]+://[^/@]*:[^/@]*@")

_INERT = (
    "--no-pager",
    *("-c", "safe.directory=*"),
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "protocol.allow=never"),
)
# GIT_ALLOW_PROTOCOL (see `_git`) outranks a repository's own protocol.<name>.allow, which protocol.allow does not.
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_TERMINAL_PROMPT": "0",
    "PATH": os.defpath,
}


def work_tree_root(path: Path) -> Path | None:
    """Return the root of the work tree that holds folder `path`.

    None when there is none: outside of any repository, a folder its repository ignores, a root that the repository's
    own config puts elsewhere, or no git on this machine. Raises SourceFailed when git cannot read the repository.
    """
    if shutil.which("git") is None:
        return None
    asked = _git(path, ["rev-parse", "--show-toplevel"])
    if asked.returncode:
        if b"not a git repository" in asked.stderr:
            return None
        raise _failed(path, asked)
    root, folder = Path(os.fsdecode(asked.stdout.removesuffix(b"\n"))), path.resolve()
    if root != folder and root not in folder.parents:
        return None
    ignored = root != folder and _git(path, ["check-ignore", "--quiet", "."]).returncode == 0
    return None if ignored else root


def place_in_history(root: Path) -> bytes:
    """Return what all work trees of one repository have in common, and where `root` lies in them: equal for folders of
    the same history. Empty outside of a work tree, and where git cannot tell."""
    if shutil.which("git") is None:
        return b""
    asked = _git(root, ["rev-parse", "--path-format=absolute", "--git-common-dir", "--show-prefix"])
    return b"" if asked.returncode else asked.stdout


def is_url(text: str) -> bool:
    """Return whether `text` is meant as the URL of a repository and not as a folder."""
    return "://" in text


def commit_of(root: Path, ref: str) -> str:
    """Return the commit that `ref`, a branch, tag or commit, names in the repository at `root`.

    Raises InvalidArgument for what can be no ref, NotFound for one that is not there.
    """
    _check_ref(ref)
    asked = _git(root, ["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"])
    if asked.returncode:
        raise NotFound(f"{root.name} has no branch, tag or commit {ref!a}.", "Fetch it, or see `git branch --all`.")
    return asked.stdout.decode("ascii").strip()


def _check_ref(ref: str) -> None:
    if not _REF.fullmatch(ref):
        raise InvalidArgument(f"{ref!a} is no name of a branch, tag or commit.", "Give one as git prints it.")


def fetch_clone(url: str, clone: Path, ref: str = "HEAD") -> None:
    """Make folder `clone` a work tree of the newest commit that `ref` at `url` names, and nothing else.

    Shallow, without submodules, tags or hooks; nobody is asked for a password. Called again it fetches what is new and
    drops what was changed in the folder. Raises InvalidArgument for another protocol than https, ssh or file, for a
    password in the URL, for what can be no ref and for the clone of another URL; BuildInProgress while another process
    fetches into it, SourceFailed when git cannot fetch.
    """
    _check_ref(ref)
    found = _URL.fullmatch(url)
    # "ssh://-oProxyCommand=…" would be an option of ssh.
    if not found or "://-" in url:
        raise InvalidArgument("the URL is not one of a git repository.", "Give https://…, ssh://… or file://….")
    if _PASSWORD.match(url):
        raise InvalidArgument("the URL holds a password.", "Use ssh and a key: what is written here is kept.")
    clone.mkdir(parents=True, exist_ok=True)
    with _alone(clone):
        _fetch(url, found[1], clone, ref)


@contextmanager
def _alone(clone: Path) -> Iterator[None]:
    """Be the only one who fetches into folder `clone`. Raises BuildInProgress."""
    lock = FileLock.take(clone, exclusive=True)
    if lock is None:
        raise BuildInProgress(f"another process fetches into the clone {clone.name}.", "Wait for it, or stop it.")
    try:
        yield
    finally:
        lock.release()


def _fetch(url: str, protocol: str, clone: Path, ref: str) -> None:
    _output(clone, ["init", "--quiet", "--template="])
    known = _git(clone, ["config", "--get", "remote.origin.url"]).stdout.decode(errors="replace").removesuffix("\n")
    if known and known != url:
        raise InvalidArgument(f"{clone.name} is the name of a clone of another URL.", "Choose another with --name.")
    options = ["--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-commit-graph"]
    fetched = _git(clone, ["fetch", *options, "--", url, ref], protocol=protocol, timeout_s=FETCH_TIMEOUT_S)
    if fetched.returncode:
        said = fetched.stderr.decode(errors="replace").replace(url.split("://")[1], "URL").strip().splitlines()
        raise SourceFailed(f"git could not fetch: {said[0] if said else fetched.returncode}.", "Check URL and access.")
    _output(clone, ["config", "remote.origin.url", url])
    _output(clone, ["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD", "--"])
    _output(clone, ["clean", "--quiet", "-ffdx"])


def revision(root: Path) -> Revision:
    """Return commit and branch of the work tree at `root`, and whether anything under `root` differs from the commit.

    An unborn branch has commit "", a detached head branch "". Untracked files count as a difference, submodules do not.
    """
    options = ["--branch", "-z", "--untracked-files=normal", "--ignore-submodules=all", "--no-renames"]
    fields = _output(root, ["status", "--porcelain=v2", *options, "--", "."], _filters(root)).split(b"\0")
    headers = dict(field[2:].split(b" ", 1) for field in fields if field.startswith(b"# branch."))
    commit, branch = os.fsdecode(headers[b"branch.oid"]), os.fsdecode(headers[b"branch.head"])
    return Revision(
        commit="" if commit == "(initial)" else commit,
        branch="" if branch == "(detached)" else branch,
        dirty=any(field and not field.startswith(b"# ") for field in fields),
    )


def tracked_and_untracked(root: Path) -> list[str]:
    """Return the paths under `root`, relative to it and sorted: tracked ones, and untracked ones that are not ignored.

    A submodule or nested repository is one path and is not entered. Paths may be gone from the work tree. Bytes that
    are no UTF-8 are kept as surrogates.
    """
    listed = _output(root, ["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
    return sorted({os.fsdecode(path.removesuffix(b"/")) for path in listed.split(b"\0") if path})


def ignored(root: Path, paths: Iterable[str]) -> set[str]:
    """Return those of `paths`, relative to `root` and there or not, that git ignores; never one that it tracks.

    Raises SourceFailed when git cannot tell, as of a path within a submodule.
    """
    asked = _git(root, ["check-ignore", "-z", "--stdin"], given=b"".join(os.fsencode(path) + b"\0" for path in paths))
    if asked.returncode not in (0, 1):
        raise _failed(root, asked)
    return {os.fsdecode(path) for path in asked.stdout.split(b"\0") if path}


def _filters(root: Path) -> list[str]:
    """Return the keys of every filter driver the repository's config defines; git would run them to compare files."""
    listed = _git(root, ["config", "--name-only", "-z", "--get-regexp", r"^filter\."])
    return [os.fsdecode(key) for key in listed.stdout.split(b"\0") if key]


def _output(root: Path, arguments: list[str], blanked: Iterable[str] = ()) -> bytes:
    done = _git(root, arguments, blanked)
    if done.returncode:
        raise _failed(root, done)
    return done.stdout


def _git(
    root: Path,
    arguments: list[str],
    blanked: Iterable[str] = (),
    *,
    given: bytes = b"",
    protocol: str = "none",
    timeout_s: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[bytes]:
    """Run git in folder `root` with the config keys `blanked` set to nothing and `given` as its standard input.

    It may connect by `protocol` only.
    """
    program = shutil.which("git")
    if program is None:
        raise SourceFailed("git is not installed.", "Install git, or index a folder that is no git work tree.")
    keys = list(blanked)
    # By environment, not by -c: a key may hold "=", where -c would cut it in two and leave the real key as it was.
    overrides = {f"GIT_CONFIG_KEY_{i}": key for i, key in enumerate(keys)}
    overrides |= {f"GIT_CONFIG_VALUE_{i}": "" for i in range(len(keys))}
    environment = {**_ENVIRONMENT, **overrides, "GIT_CONFIG_COUNT": str(len(keys)), "GIT_ALLOW_PROTOCOL": protocol}
    try:
        return subprocess.run(
            [program, *_INERT, *arguments],
            cwd=root,
            env=environment,
            input=given,
            capture_output=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceFailed(f"git {arguments[0]} took longer than {timeout_s:.0f} s.") from error
    except OSError as error:
        raise SourceFailed(f"git {arguments[0]} could not be started: {error.strerror}.") from error


def _failed(root: Path, done: subprocess.CompletedProcess[bytes]) -> SourceFailed:
    said = done.stderr.decode(errors="replace").replace(str(root.resolve()), ".").strip()
    return SourceFailed(f"git failed: {said.splitlines()[-1] if said else done.returncode}.", "Repair the repository.")
