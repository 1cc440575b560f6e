"""What becomes of the lexical index when a process dies, a file is damaged or a volume is read-only?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import tantivy

from codeintel_rev.errors import CodeIntelError, IndexCorrupt, IndexIncompatible, InsufficientStorage, StorageFailed
from codeintel_rev.io.lexical import LexicalIndex, LexicalWriter
from codeintel_rev.types import Chunk, Role

BATCH = 20
CHILD = f"""
import sys
from pathlib import Path
from codeintel_rev.io.lexical import LexicalWriter
from codeintel_rev.types import Chunk, Role

with LexicalWriter(Path(sys.argv[1])) as writer:
    for batch in range(1_000_000):
        for each in range(batch * {BATCH}, (batch + 1) * {BATCH}):
            writer.add(Chunk(each, "r", "p.py", "python", Role.CODE, 1, 1, "module", "", "", f"word{{each}} text"), [])
        writer.commit()
        print(batch, flush=True)
"""


def chunk(chunk_id: int) -> Chunk:
    return Chunk(chunk_id, "r", "p.py", "python", Role.CODE, 1, 1, "module", "", "", f"parse word{chunk_id}")


def write(directory: Path, added: range, deleted: range = range(0)) -> Path:
    with LexicalWriter(directory) as writer:
        writer.delete(np.array(deleted, dtype=np.int64))
        for each in added:
            writer.add(chunk(each), [])
        writer.commit()
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def damaged(index: Path, target: Path, name: str, content: bytes) -> Path:
    copy = copytree(index, target)
    (copy / name).write_bytes(content)
    return copy


def ask(directory: Path) -> None:
    index = LexicalIndex.open(directory)
    index.chunk_ids()
    index.search("parse word3 word7", 10)
    index.symbols(["parse"], 10)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return write(tmp_path / "index", range(30))


@pytest.mark.parametrize("seed", range(5))
def test_a_build_killed_while_committing_leaves_whole_commits(tmp_path: Path, seed: int) -> None:
    """F01: nothing acknowledged is lost, and at most the commit under way is there beside it, whole."""
    rng = random.Random(seed)
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        acknowledged = [int(child.stdout.readline()) for _ in range(rng.randint(1, 6))][-1]
        for _ in range(rng.randrange(2_000)):
            names(tmp_path)  # let the next commit run to a random point
        child.send_signal(signal.SIGKILL)
        acknowledged += len(child.stdout.readlines())

    ids = LexicalIndex.open(tmp_path).chunk_ids().tolist()

    assert ids in [list(range((acknowledged + extra) * BATCH)) for extra in (1, 2)]


def test_a_child_generation_made_of_hard_links_leaves_its_parent_as_it_was(tmp_path: Path, index: Path) -> None:
    """F01: the parent's bytes and answers, and its open readers, do not see the child's commits."""
    before, reader = contents(index), LexicalIndex.open(index)
    child = tmp_path / "child"
    child.mkdir()
    for file in index.iterdir():
        (child / file.name).hardlink_to(file)

    for start in range(30, 330, 30):  # enough segments for a merge, which deletes files
        write(child, range(start, start + 30), range(start - 30, start))

    assert contents(index) == before
    assert reader.chunk_ids().tolist() == LexicalIndex.open(index).chunk_ids().tolist() == list(range(30))
    assert LexicalIndex.open(child).chunk_ids().tolist() == list(range(300, 330))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_keeps_what_was_committed(small_disk: Path) -> None:
    """F06."""
    directory = write(small_disk / "index", range(30))

    with pytest.raises(InsufficientStorage):
        write(directory, range(100, 100_000))

    assert LexicalIndex.open(directory).chunk_ids().tolist() == list(range(30))


def test_reading_writes_nothing_into_the_directory(index: Path) -> None:
    """A published generation may lie on a read-only volume, and holds no file its manifest does not name."""
    before = names(index)
    index.chmod(0o555)

    ask(index)

    assert names(index) == before


def test_a_truncated_file_is_refused_at_open(tmp_path: Path, index: Path) -> None:
    """F12."""
    rng = random.Random(12)
    for case in range(60):
        name, content = rng.choice(sorted(contents(index).items()))
        with pytest.raises(IndexCorrupt):
            LexicalIndex.open(damaged(index, tmp_path / str(case), name, content[: rng.randrange(len(content))]))


def test_a_flipped_bit_is_unnoticed_or_a_typed_error(tmp_path: Path, index: Path) -> None:
    """F13: tantivy lets most pass (hence the manifest's SHA-256), but nothing foreign escapes and nothing dies."""
    rng = random.Random(13)
    noticed = 0
    for case in range(60):
        name, content = rng.choice(sorted(contents(index).items()))
        place = rng.randrange(len(content))
        flipped = content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        try:
            ask(damaged(index, tmp_path / str(case), name, flipped))
        except CodeIntelError:
            noticed += 1

    assert 0 < noticed < 60


def test_a_panic_of_the_engine_becomes_a_typed_error(tmp_path: Path, index: Path) -> None:
    """F17, §0.12: a PanicException is a BaseException, which nobody else would catch."""
    name = next(name for name in contents(index) if name.endswith(".pos"))

    assert any(type(error.__cause__).__name__ == "PanicException" for error in errors_of_flips(tmp_path, index, name))


def errors_of_flips(tmp_path: Path, index: Path, name: str) -> Iterator[CodeIntelError]:
    content = contents(index)[name]
    for place in range(len(content)):
        flipped = content[:place] + bytes([content[place] ^ 0x80]) + content[place + 1 :]
        try:
            ask(damaged(index, tmp_path / str(place), name, flipped))
        except CodeIntelError as error:
            yield error


@pytest.mark.parametrize("missing", ["meta.json", "*.term", "*"])
def test_a_missing_file_is_refused_at_open(index: Path, missing: str) -> None:
    """F12."""
    for file in index.glob(missing):
        file.unlink()

    with pytest.raises(IndexCorrupt):
        LexicalIndex.open(index)


@pytest.mark.parametrize("use", [LexicalIndex.open, LexicalWriter])
def test_an_index_with_other_fields_is_incompatible(tmp_path: Path, use: type[LexicalWriter]) -> None:
    tantivy.Index(tantivy.SchemaBuilder().add_text_field("other").build(), str(tmp_path))

    with pytest.raises(IndexIncompatible, match="format 1"):
        use(tmp_path)


def test_an_index_of_another_tantivy_is_incompatible(index: Path) -> None:
    for file in index.iterdir():
        file.write_bytes(file.read_bytes().replace(b'"index_format_version":7', b'"index_format_version":3'))

    with pytest.raises(IndexIncompatible, match="another tantivy"):
        LexicalIndex.open(index)


def test_a_second_writer_is_refused(index: Path) -> None:
    with LexicalWriter(index), pytest.raises(StorageFailed):
        LexicalWriter(index)


def test_an_error_inside_the_block_is_not_hidden_and_nothing_is_committed(index: Path) -> None:
    def build() -> None:
        with LexicalWriter(index) as writer:
            writer.add(chunk(99), [])
            raise RuntimeError("chunking failed")

    with pytest.raises(RuntimeError, match="chunking failed"):
        build()

    assert 99 not in LexicalIndex.open(index).chunk_ids()
