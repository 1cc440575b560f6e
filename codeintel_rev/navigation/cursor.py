"""Cursors: where a long answer goes on, pinned to the generations it was read from.

On the wire a cursor is opaque: URL-safe base64 of compact JSON. It is not signed: all it can say is where to go on, and
every field is checked against what is served.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from codeintel_rev.errors import GenerationGone, InvalidArgument

_FRESH_START = "Ask again without a cursor."


@dataclass(frozen=True, slots=True)
class Cursor:
    """`position` is the caller's own mark, `question` a digest of what was asked, `generations` repository → id."""

    position: str
    question: str
    generations: dict[str, str]


def digest(*asked: object) -> str:
    """Return what tells this question from others: a cursor only goes on with the question it came from."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def encode(cursor: Cursor) -> str:
    """Return the wire form of `cursor`."""
    raw = json.dumps(asdict(cursor), separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str, *, question: str) -> Cursor:
    """Return the cursor in `text`. Raises InvalidArgument when it is no cursor or belongs to another question."""
    try:
        fields = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        cursor = Cursor(**fields)
    except (binascii.Error, UnicodeError, ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument("cursor was not made by this server.", _FRESH_START) from error
    if cursor.question != question or not _is_sound(cursor):
        raise InvalidArgument("cursor belongs to another question.", "Repeat the question it came with, unchanged.")
    return cursor


def check_served(cursor: Cursor, generations: Mapping[str, str]) -> None:
    """Raise GenerationGone unless `generations` (repository → id served now) still has all that the cursor names."""
    for repo, generation in cursor.generations.items():
        if generations.get(repo) != generation:
            raise GenerationGone(f"generation {generation} of {repo} is no longer served.", _FRESH_START)


def _is_sound(cursor: Cursor) -> bool:
    return isinstance(cursor.position, str) and isinstance(cursor.generations, dict)
