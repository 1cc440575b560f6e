import random
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from codeintel_rev.errors import CodeIntelError, StorageFailed
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.types import ModelFingerprint

FINGERPRINT = ModelFingerprint("m", "", 16, "mean", "float32", 128, "0")
RNG = np.random.default_rng(0)
KEYS = [RNG.bytes(32) for _ in range(300)]
VECTORS = RNG.standard_normal((300, 16)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "vectors.sqlite"


@pytest.fixture
def filled(path):
    cache = VectorCache.open(path, FINGERPRINT)
    cache.put_many(KEYS, VECTORS)
    cache.close()
    return path


def test_vectors_come_back_in_the_order_asked(filled):
    vectors, found = VectorCache.open(filled, FINGERPRINT).get_many([KEYS[7], b"?" * 32, KEYS[3]])
    assert found.tolist() == [True, False, True]
    np.testing.assert_allclose(vectors[found], VECTORS[[7, 3]], atol=2e-3)
    assert not vectors[1].any()


def test_what_put_returns_is_what_get_returns(path):
    cache = VectorCache.open(path, FINGERPRINT)
    kept = cache.put_many(KEYS, VECTORS)
    np.testing.assert_array_equal(cache.get_many(KEYS)[0], kept)


def test_no_keys_give_no_rows(path):
    vectors, found = VectorCache.open(path, FINGERPRINT).get_many([])
    assert vectors.shape == (0, 16)
    assert found.shape == (0,)


def test_another_model_finds_nothing(filled):
    """F16"""
    other = VectorCache.open(filled, replace(FINGERPRINT, max_tokens=256))
    assert not other.get_many(KEYS)[1].any()


def test_row_put_twice_is_the_later_one(filled):
    cache = VectorCache.open(filled, FINGERPRINT)
    kept = cache.put_many(KEYS[:1], VECTORS[1:2])
    np.testing.assert_array_equal(cache.get_many(KEYS[:1])[0], kept)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE vectors_1 SET vector = zeroblob(32) WHERE key = ?",
        "UPDATE vectors_1 SET vector = zeroblob(31) WHERE key = ?",
        "UPDATE vectors_1 SET vector = 'text' WHERE key = ?",
        "UPDATE vectors_1 SET crc = crc + 1 WHERE key = ?",
        "UPDATE vectors_1 SET crc = 'text' WHERE key = ?",
    ],
)
def test_changed_row_is_a_miss(filled, damage):
    """F13"""
    with sqlite3.connect(filled) as connection:
        connection.execute(damage, [KEYS[5]])
    cache = VectorCache.open(filled, FINGERPRINT)
    assert np.flatnonzero(~cache.get_many(KEYS)[1]).tolist() == [5]


def test_missed_row_can_be_put_again(filled):
    with sqlite3.connect(filled) as connection:
        connection.execute("UPDATE vectors_1 SET crc = 0")
    cache = VectorCache.open(filled, FINGERPRINT)
    cache.put_many(KEYS, VECTORS)
    assert cache.get_many(KEYS)[1].all()


def test_file_that_is_no_database_is_set_aside(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    cache = VectorCache.open(path, FINGERPRINT)
    assert cache.set_aside is not None
    assert cache.set_aside.name == "vectors.sqlite.corrupt"
    assert cache.set_aside.read_bytes().startswith(b"not a database")
    assert not cache.get_many(KEYS)[1].any()


def test_file_damaged_while_open_is_replaced_and_filled_again(filled):
    cache = VectorCache.open(filled, FINGERPRINT)
    filled.write_bytes(filled.read_bytes()[:5000] + bytes(100_000))
    cache.put_many(KEYS, VECTORS)
    assert cache.set_aside is not None
    assert VectorCache.open(filled, FINGERPRINT).get_many(KEYS)[1].all()


def test_intact_file_is_not_set_aside(filled):
    cache = VectorCache.open(filled, FINGERPRINT)
    assert cache.get_many(KEYS)[1].all()
    assert cache.set_aside is None


def _mutated(data: bytes, chance: random.Random) -> bytes:
    mutated = bytearray(data)
    pages = len(data) // 4096
    match chance.choice(("bit", "header", "zero page", "truncate", "swap pages")):
        case "bit":
            mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
        case "header":
            mutated[chance.randrange(200)] ^= 1 << chance.randrange(8)
        case "zero page":
            start = chance.randrange(pages) * 4096
            mutated[start : start + 4096] = bytes(4096)
        case "truncate":
            del mutated[chance.randrange(len(mutated)) :]
        case "swap pages":
            one, two = (chance.randrange(pages) * 4096 for _ in range(2))
            mutated[one : one + 4096], mutated[two : two + 4096] = data[two : two + 4096], data[one : one + 4096]
    return bytes(mutated)


def test_damaged_files_give_misses_or_a_typed_error_but_never_a_wrong_vector(filled):
    """F13: 300 mutations, silently wrong = 0."""
    intact, chance, wrong, lost = filled.read_bytes(), random.Random(0), 0, 0
    expected = VectorCache.open(filled, FINGERPRINT).get_many(KEYS)[0]
    for _ in range(300):
        for part in filled.parent.iterdir():
            part.unlink()
        filled.write_bytes(_mutated(intact, chance))
        try:
            cache = VectorCache.open(filled, FINGERPRINT)
            vectors, found = cache.get_many(KEYS)
            cache.close()
        except CodeIntelError:
            continue
        wrong += int((vectors[found] != expected[found]).any())
        lost += int(not found.all())
    assert wrong == 0
    assert lost > 30  # the mutations do reach the rows


WRITER = """
import sys
from pathlib import Path
import numpy as np
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.types import ModelFingerprint
cache = VectorCache.open(Path(sys.argv[1]), ModelFingerprint("m", "", 16, "mean", "float32", 128, "0"))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 200):
    cache.put_many([number.to_bytes(32, "little")], np.full((1, 16), number, np.float32))
    print(number, flush=True)
"""


def test_several_processes_write_one_file(path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(first)], stdout=subprocess.DEVNULL)
        for first in (0, 200)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    vectors, found = VectorCache.open(path, FINGERPRINT).get_many([n.to_bytes(32, "little") for n in range(400)])
    assert found.all()
    np.testing.assert_array_equal(vectors[:, 0], np.arange(400))


def test_killed_writer_loses_nothing_it_was_told_is_kept(path):
    """F10"""
    with subprocess.Popen([sys.executable, "-c", WRITER, path, "0"], stdout=subprocess.PIPE, text=True) as writer:
        kept = [int(writer.stdout.readline()) for _ in range(20)]
        writer.kill()
    cache = VectorCache.open(path, FINGERPRINT)
    assert cache.get_many([number.to_bytes(32, "little") for number in kept])[1].all()
    assert cache.set_aside is None


def test_path_that_cannot_be_a_file_is_a_typed_error(path):
    path.mkdir(parents=True)
    with pytest.raises(StorageFailed, match="vector cache"):
        VectorCache.open(path, FINGERPRINT)
