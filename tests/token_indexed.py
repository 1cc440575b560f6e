"""Twenty chunks with a token index of a generation, and an encoder whose every token can be worked out by hand."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.config.settings import DuckDBSettings, Settings
from codeintel_rev.encoders import token_encoder
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.tokens import EncodedDocument, EncodedQuery
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.manifest import MANIFEST, dump_manifest, load_manifest
from codeintel_rev.io.token_index import TOKENS, TokenBuild, token_directory, token_model_id, write_build
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Floats, Ids, ModelFingerprint
from codeintel_rev.xtr.build import build_index
from codeintel_rev.xtr.config import BuildConfig
from tests.indexed import Place, new_place

DIM = 64
REPO = "bank"
DEEDS = {
    "accounts/open_account.py": "open an account for a new customer",
    "accounts/close_account.py": "close an account and pay out its balance",
    "accounts/balance.py": "tell the balance of an account",
    "accounts/freeze.py": "freeze an account so that no payment leaves it",
    "cards/charge.py": "charge a card and take money from the account behind it",
    "cards/refund.py": "refund a card payment to the customer",
    "cards/expire.py": "expire a card that is too old",
    "cards/block.py": "block a card that was stolen",
    "ledger/append.py": "append an entry to the ledger",
    "ledger/verify.py": "verify that debits and credits of the ledger agree",
    "ledger/rotate.py": "rotate the ledger when a month has ended",
    "mail/receipt.py": "mail a receipt of a payment to the customer",
    "mail/statement.py": "mail a statement of the month to the customer",
    "rates/convert.py": "convert money from one currency to another",
    "rates/fetch.py": "fetch the rates of every currency",
    "rates/round_half.py": "round money half to even",
    "retry/backoff.py": "wait longer before each retry",
    "retry/give_up.py": "give up after too many a retry",
    "audit/trail.py": "write who did what to the audit trail",
    "audit/redact.py": "redact the number of a card in the audit trail",
}
_WORD = re.compile(r"[a-z]+")
CONFIGURED = token_encoder.open_token_encoder


class WordTokens:
    """A TokenEncoder with one token a word of lower-case letters; the same word is the same vector, others are not."""

    def __init__(self, model: str = "words") -> None:
        self.fingerprint = ModelFingerprint(model, "", DIM, "tokens", "float32", 4096, model * 8)
        self.dense_fingerprint = self.fingerprint
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def encode_query(self, text: str) -> EncodedQuery:
        self.asked.append(text)
        if self.failure:
            raise self.failure
        return EncodedQuery(*_encoded(text))

    def encode_documents(self, texts: Sequence[str]) -> Iterator[EncodedDocument]:
        return (EncodedDocument(*_encoded(text)) for text in texts)


def _encoded(text: str) -> tuple[Floats, Floats, Ids]:
    words = list(_WORD.finditer(text.lower()))
    tokens = np.array([_vector(word.group()) for word in words], np.float32).reshape(-1, DIM)
    offsets = np.array([word.span() for word in words], np.int64).reshape(-1, 2)
    return np.ones(DIM, np.float32), tokens, offsets


def _vector(word: str) -> Floats:
    row = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM)
    return (row / np.linalg.norm(row)).astype(np.float32)


def bank(folder: Path) -> Place:
    """Return a place where REPO is indexed, one chunk a file, with a token index of WordTokens."""
    place = new_place(folder)
    for path, deed in DEEDS.items():
        name = Path(path).stem
        place.write(REPO, path, f'def {name}(given):\n    """{deed.capitalize()}."""\n    return given\n')
    place.index(REPO)
    add_tokens(place)
    return place


def add_tokens(place: Place, *, without: Sequence[str] = (), model: str = "words") -> Path:
    """Index the tokens of the current generation but those of the paths `without`; return where."""
    generation = place.current(REPO)
    directory = token_directory(generation) / TOKENS
    encoder = WordTokens(model)
    chunks = [chunk for chunk in read_chunks(generation, DuckDBSettings()) if chunk.path not in without]
    directory.parent.mkdir(parents=True, exist_ok=True)
    build_index(
        BuildConfig(directory, DIM, token_model_id(encoder.fingerprint), layout="flat"),
        ((chunk.chunk_id, _encoded(embedding_text(chunk))[1]) for chunk in chunks),
    )
    write_build(directory.parent, TokenBuild(0, {"xtr_build_train_ms": 2.0}))
    republish(generation)
    return directory


def plain_maxsim(place: Place, query: str) -> dict[str, float]:
    """Return by path the sum over the query's tokens of the best token of each chunk."""
    asked = _encoded(query)[1]
    return {
        chunk.path: float((asked @ _encoded(embedding_text(chunk))[1].T).max(axis=1).sum())
        for chunk in read_chunks(place.current(REPO), DuckDBSettings())
    }


def republish(generation: Path) -> None:
    """Enter the token index as it is now into the manifest of its generation."""
    path = generation / MANIFEST
    published = load_manifest(path.read_bytes())
    found = sorted(file for file in token_directory(generation).rglob("*") if file.is_file())
    digests = {file.relative_to(generation).as_posix(): DISK.digest(file) for file in found}
    kept = {name: digest for name, digest in published.files.items() if not name.startswith("xtr/")}
    path.chmod(0o644)
    path.write_bytes(dump_manifest(replace(published, files=kept | digests)))


def with_tokens(place: Place, **changes: object) -> Settings:
    """Return the settings of `place` with late interaction on, and `changes` to its section."""
    return sections(place, xtr={"enable": True, **changes})


def sections(place: Place, **changed: Mapping[str, object]) -> Settings:
    told = place.settings.model_dump()
    return Settings.model_validate({**told, **{name: {**told[name], **values} for name, values in changed.items()}})


@contextmanager
def opened(place: Place, settings: Settings, encoder: WordTokens | None) -> Iterator[Shards]:
    """Open `place` with `encoder` in the place of a model; None opens whatever is configured."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(token_encoder, "open_token_encoder", (lambda *_: encoder) if encoder else CONFIGURED)
        shards = Shards(place.data_dir, None, settings)
        shards.refresh()
        try:
            yield shards
        finally:
            shards.close()
