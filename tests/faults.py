"""A storage that fails on purpose: the n-th step breaks, or the power goes and takes what was never synced with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from codeintel_rev.io.durable import Digest, Storage, os_errors_mapped


class UnsyncedStorage(Storage):
    """The real disk without its slow syncs, for tests in which no power is really lost."""

    def _sync(self, path: Path, flags: int) -> None:
        path.stat()


class PowerLost(BaseException):
    """Not an Exception: nothing may catch it, clean up and go on."""


def os_error_at(step: int, number: int, only: tuple[str, ...] = ()) -> Callable[[str, Path], None]:
    """Return a fault that raises OSError `number` at the `step`-th operation, counting only those named in `only`."""
    seen = 0

    def fault(operation: str, path: Path) -> None:
        nonlocal seen
        if operation in (only or (operation,)):
            seen += 1
            if seen == step:
                raise OSError(number, "injected", str(path))

    return fault


class FaultyStorage(UnsyncedStorage):
    """A disk whose syncs are only remembered: `fault` sees every step first, and `lose_power`
    forgets what was never synced.

    A file never synced since its last change becomes empty, half as long, noise or vanishes; a name never synced
    vanishes or stays; a replaced file stays replaced or comes back. `lying` disks acknowledge syncs they do not do.
    """

    def __init__(
        self, root: Path, seed: int, fault: Callable[[str, Path], None] = lambda *_: None, *, lying: bool = False
    ) -> None:
        print(f"FaultyStorage seed={seed} lying={lying}")  # noqa: T201 (pytest shows it when the test fails)
        self._root = root
        self._random = random.Random(seed)
        self._fault = fault
        self._lying = lying
        self._dead = False
        self.steps = 0
        self.power_goes_at = 0
        self._replaced: dict[Path, bytes | None] = {}
        self._contents = {path.stat().st_ino: super(FaultyStorage, self).digest(path) for path in self._files()}
        self._names = {folder: _names(folder) for folder in [root, *_folders(root)]}

    def make_directory(self, path: Path) -> None:
        with self._step("make_directory", path):
            super().make_directory(path)

    def write(self, path: Path, data: bytes) -> None:
        with self._step("write", path):
            super().write(path, data)

    def sync_file(self, path: Path) -> None:
        with self._step("sync_file", path):
            super().sync_file(path)
            if not self._lying:
                self._contents[path.stat().st_ino] = super().digest(path)

    def sync_directory(self, path: Path) -> None:
        with self._step("sync_directory", path):
            super().sync_directory(path)
            if not self._lying:
                self._names[path] = _names(path)
                self._replaced = {target: old for target, old in self._replaced.items() if target.parent != path}

    def replace(self, source: Path, target: Path) -> None:
        with self._step("replace", target):
            if source.is_file():
                self._replaced.setdefault(target, target.read_bytes() if target.exists() else None)
            super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        with self._step("link", target):
            super().link(source, target)

    def protect(self, path: Path) -> None:
        with self._step("protect", path):
            super().protect(path)

    def unlink(self, path: Path) -> None:
        with self._step("unlink", path):
            super().unlink(path)

    def remove_tree(self, path: Path) -> None:
        with self._step("remove_tree", path):
            super().remove_tree(path)

    def digest(self, path: Path) -> Digest:
        with self._step("digest", path):
            return super().digest(path)

    def lose_power(self) -> None:
        """Make the disk what it may be after a power cut now."""
        for target, old in self._replaced.items():
            if self._random.random() < 0.5:
                target.unlink()
                if old is not None:
                    target.write_bytes(old)
                    self._contents[target.stat().st_ino] = Storage().digest(target)
        for path in self._files():
            if self._contents.get(path.stat().st_ino) != Storage().digest(path):
                self._damage(path)
        for folder in reversed(_folders(self._root)):
            for name in _names(folder) - self._names.get(folder, set()):
                self._maybe_forget(folder / name)

    def _damage(self, path: Path) -> None:
        data = path.read_bytes()
        kind = self._random.choice(["empty", "half", "noise", "kept", "gone"])
        path.unlink()
        kept = {"empty": b"", "half": data[: len(data) // 2], "noise": self._random.randbytes(len(data)), "kept": data}
        if kind in kept:
            path.write_bytes(kept[kind])

    def _maybe_forget(self, path: Path) -> None:
        if path in self._replaced or self._random.random() < 0.5:
            return
        if path.is_dir():
            super().remove_tree(path)
        else:
            path.unlink()

    def _files(self) -> list[Path]:
        return [path for path in self._root.rglob("*") if path.is_file()]

    @contextmanager
    def _step(self, operation: str, path: Path) -> Iterator[None]:
        self.steps += 1
        if self._dead or self.steps == self.power_goes_at:
            self._dead = True
            raise PowerLost(operation)
        with os_errors_mapped(operation, path):
            self._fault(operation, path)
        yield


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_dir())


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
