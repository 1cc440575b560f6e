"""Any encoding becomes text with `\\n` line ends; what is no text is recognised."""

from __future__ import annotations

import codecs
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.io.decode import Decoded, decode, lines_of

CODE = "def compute(value):\n    return value + 1\n\n"
COMMENTS = {
    "cp932": "# このファイルは設定を読み込みます。\n# 変更しないでください。\n",
    "euc_jp": "# このファイルは設定を読み込みます。データベースへの接続を確認します。\n",
    "gb18030": "# 这个文件读取配置并检查数据库连接。\n",
    "big5": "# 這個檔案讀取設定並檢查資料庫連線。\n",
    "cp949": "# 이 파일은 설정을 읽고 데이터베이스 연결을 확인합니다.\n",
    "cp1251": "# Этот файл читает настройки и проверяет соединение с базой данных.\n",
    "koi8_r": "# Этот файл читает настройки и проверяет соединение с базой данных.\n",
    "cp1252": "# Façade für Änderungen à la carte, naïve café\n",
    "latin-1": "// créé par l'équipe, déjà vérifié\n",
    "cp1250": "# Příliš žluťoučký kůň úpěl ďábelské ódy\n",
    "cp1253": "# Αυτό το αρχείο διαβάζει τις ρυθμίσεις\n",
}
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def decoded(content: bytes) -> Decoded:
    found = decode(content)
    assert found is not None
    return found


@pytest.mark.parametrize("encoding", COMMENTS)
def test_a_legacy_encoding_is_recognised(encoding: str) -> None:
    text = COMMENTS[encoding] + CODE
    assert decoded(text.encode(encoding)).text == text


@pytest.mark.parametrize("encoding", MARKS)
def test_a_byte_order_mark_decides_and_is_dropped(encoding: str) -> None:
    """F09."""
    assert decoded(MARKS[encoding] + CODE.encode(encoding)) == Decoded(CODE, encoding)


def test_utf8_with_a_few_bad_bytes_stays_utf8() -> None:
    """F09: one bad byte must not turn every other comment into mojibake."""
    text = decoded("# 日本語のコメント\n".encode() + b"\xff\n").text
    assert text == "# 日本語のコメント\n\N{REPLACEMENT CHARACTER}\n"


def test_a_lone_odd_byte_keeps_its_line() -> None:
    assert lines_of(decoded(b"first\ncaf\xe9\nlast\n").text) == ["first", "café", "last"]


@pytest.mark.parametrize(
    "content",
    [
        b"text\0text",
        b"\x89PNG\r\n\x1a\n\x01\x02\x03\x04",
        codecs.BOM_UTF16_LE + b"a\0\0\xd8",
        codecs.BOM_UTF8 + b"a\0b",
        codecs.BOM_UTF32_LE + b"abc",
        bytes(range(1, 32)) * 10,
    ],
)
def test_binary_content_is_no_text(content: bytes) -> None:
    """F09."""
    assert decode(content) is None


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_newline_becomes_one(newline: str) -> None:
    assert decoded(f"a{newline}b{newline}".encode()).text == "a\nb\n"


def test_a_form_feed_or_a_line_separator_is_no_newline() -> None:
    assert len(lines_of(decoded("a\fb\u2028c\x85d\n".encode()).text)) == 1


@pytest.mark.parametrize(
    ("text", "lines"), [("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\n\n", ["a", ""])]
)
def test_a_final_newline_opens_no_line(text: str, lines: list[str]) -> None:
    assert lines_of(text) == lines


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_utf8_survives_unchanged(text: str) -> None:
    assert decoded(b"x" + text.encode()).text == "x" + text


@given(st.binary(max_size=200))
def test_any_bytes_are_binary_or_storable_text(content: bytes) -> None:
    """F09: whatever comes out can be written as UTF-8 and holds neither a NUL nor a carriage return."""
    found = decode(content)
    assert found is None or not {0, 13} & set(found.text.encode())


def test_random_bytes_are_binary() -> None:
    assert decode(os.urandom(4096)) is None
