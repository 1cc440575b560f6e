"""MANIFEST.json: what a generation is and the digest of every file in it. A directory without one is not published.

Format, schema 1: one JSON object of the fields of `Manifest` and `checksum`, the SHA-256 of that object without
`checksum` in canonical form (sorted keys, no spaces). The checksum finds accidents, not attackers: who can write the
directory can write both.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.durable import Digest
from codeintel_rev.types import ModelFingerprint, Revision

MANIFEST = "MANIFEST.json"
SCHEMA = 1

Stage = Literal["lexical", "partial", "complete"]
"""lexical: text and symbols only; partial: some chunks have vectors; complete: all that will have one."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One published generation. `files` are `/`-separated paths inside it; `created_at` is ISO 8601 in UTC.

    `inputs` is the builder's digest of all that its text half was made from: equal inputs need no new one. `counts` are
    rows by component, `components` format versions by component, `libraries` versions by package. `token_model` is
    what made the token vectors (`token_index.token_model_id`), empty where there are none. `family` is the repository
    in whose name chunk ids are minted, empty for `repo` itself.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: int
    generation: str
    repo: str
    parent: str | None
    created_at: str
    revision: Revision
    inputs: str
    stage: Stage
    model: ModelFingerprint | None
    counts: dict[str, int]
    components: dict[str, int]
    libraries: dict[str, str]
    files: dict[str, Digest]
    token_model: str = ""
    family: str = ""

    @property
    def kindred(self) -> str:
        """The name that repositories share whose chunks have the same ids."""
        return self.family or self.repo


_ADAPTER = TypeAdapter(Manifest)


def dump_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of MANIFEST.json; the same manifest gives the same bytes.

    Raises IndexCorrupt for what could not be read back, such as a file name that is not Unicode: better now than later.
    """
    fields = asdict(manifest)
    for name in ("token_model", "family"):  # The bytes of generations without them are older than these fields.
        if not fields[name]:
            del fields[name]
    canonical = _canonical(fields)
    _validated(canonical)
    return json.dumps(fields | {"checksum": _checksum(canonical)}, indent=1, sort_keys=True).encode()


def load_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`. Raises IndexIncompatible for another schema, IndexCorrupt for anything else
    than what `dump_manifest` writes."""
    fields = _json_object(data)
    if fields.get("schema") != SCHEMA:
        raise IndexIncompatible(
            f"{MANIFEST} has schema {fields.get('schema')!r}, this version reads {SCHEMA}.", "Rebuild the index."
        )
    checksum = fields.pop("checksum", None)
    canonical = _canonical(fields)
    if checksum != _checksum(canonical):
        raise IndexCorrupt(f"{MANIFEST} does not match its own checksum.")
    return _validated(canonical)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IndexCorrupt(f"{MANIFEST} is not JSON.") from error
    if not isinstance(fields, dict):
        raise IndexCorrupt(f"{MANIFEST} is not a JSON object.")
    return fields


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _checksum(canonical: bytes) -> str:
    return hashlib.sha256(canonical).hexdigest()


def _validated(canonical: bytes) -> Manifest:
    try:
        manifest = _ADAPTER.validate_json(canonical, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise IndexCorrupt(f"{MANIFEST} field {field}: {first['msg']}.") from error
    for path in manifest.files:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise IndexCorrupt(f"{MANIFEST} names a file outside its generation.")
    return manifest
