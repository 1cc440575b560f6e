"""Bytes to text: the one decoder, so that a file reads the same when it is indexed and when it is opened."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

from charset_normalizer import from_bytes

# Longest first: the UTF-16 mark opens the UTF-32 one.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Supersets of ASCII only: source is mostly ASCII, and UTF-7 or EBCDIC readings of a broken file are never right. Of
# equally good readings the first is taken. cp1257 is left out: it wins over cp1252 on French comments.
_LEGACY = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "koi8_u"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949", "mac_roman", "cp437", "cp866"),
]
_DETECTED_BYTES = 32 * 1024
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"
_CONTROL_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text without byte-order mark, newlines normalised to `\\n`, and the codec that read it."""

    text: str = field(repr=False)
    encoding: str


def decode(content: bytes) -> Decoded | None:
    """Return `content` as text, None when it is binary.

    A byte-order mark decides; else UTF-8, a few bad bytes replaced; else the legacy encoding charset-normalizer finds;
    else Latin-1, which reads anything. Binary is what holds a NUL or more than 2 % control characters.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _marked(content.removeprefix(mark), encoding)
    if b"\0" in content or _is_mostly_control(content):
        return None
    try:
        return _decoded(content.decode(), "utf-8")
    except UnicodeDecodeError:
        return _legacy(content)


def lines_of(text: str) -> list[str]:
    """Return the lines of decoded text; a newline at its end opens no further line, and "" has none."""
    return text.removesuffix("\n").split("\n") if text else []


def _marked(content: bytes, encoding: str) -> Decoded | None:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return _legacy(content) if encoding == "utf-8" and b"\0" not in content else None
    return None if "\0" in text else _decoded(text, encoding)


def _legacy(content: bytes) -> Decoded:
    damaged = content.decode(errors="replace")
    if _is_mostly_utf8(damaged):
        return _decoded(damaged, "utf-8")
    matches = from_bytes(content[:_DETECTED_BYTES], cp_isolation=_LEGACY)
    ranked = sorted(matches, key=lambda match: (match.chaos, -match.coherence, _LEGACY.index(match.encoding)))
    for encoding in [match.encoding for match in ranked]:
        try:
            return _decoded(content.decode(encoding), encoding)
        except UnicodeDecodeError:
            continue
    return _decoded(content.decode("latin-1"), "latin-1")


def _is_mostly_utf8(damaged: str) -> bool:
    """Tell UTF-8 with a few bad bytes: legacy text hardly ever holds a valid multi-byte sequence by chance."""
    lost = damaged.count("\N{REPLACEMENT CHARACTER}")
    return sum(not char.isascii() for char in damaged) > 5 * lost


def _is_mostly_control(content: bytes) -> bool:
    return len(content) - len(content.translate(None, _CONTROL)) > _CONTROL_SHARE * len(content)


def _decoded(text: str, encoding: str) -> Decoded:
    return Decoded(text.replace("\r\n", "\n").replace("\r", "\n"), encoding)
