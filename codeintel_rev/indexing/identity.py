"""chunk_id: one id per chunk, the same in every store (ARCHITECTURE.md, law 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

_MASK = (1 << 63) - 1


def mint(repo: str, path: str, text: str, ordinal: int) -> int:
    """Return the positive 63-bit id of a chunk; `ordinal` counts equal texts within (repo, path) in file order.

    `repo` is the one that the family is named after (`Manifest.family`). Lines are no part of it, so that it stays when
    code above is added or removed.
    """
    digest = blake2b(digest_size=8)
    for field in (repo, path, text, str(ordinal)):
        raw = field.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return int.from_bytes(digest.digest(), "big") & _MASK or 1


def mint_all(repo: str, path: str, texts: Iterable[str]) -> list[int]:
    """Return the ids of one file's chunks, given in file order."""
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        ids.append(mint(repo, path, text, seen[text]))
        seen[text] += 1
    return ids
