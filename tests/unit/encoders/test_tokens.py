import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.tokens import Masked, Projection, file_positions, positions
from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.types import Chunk, Role


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "projection", [Projection.orthonormal(48, 16), Projection.pca(np.eye(48, dtype=np.float32), 16)]
)
def test_unlearned_projection_has_orthonormal_columns(projection):
    np.testing.assert_allclose(projection.matrix.T @ projection.matrix, np.eye(16), atol=1e-5)


def test_orthonormal_projection_is_given_by_its_seed():
    first, same, other = (Projection.orthonormal(48, 16, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrix, same.matrix)
    assert first.sha256 == same.sha256 != other.sha256


def test_pca_keeps_every_inner_product_that_fits():
    """Rows that span 16 dimensions lose nothing by going there."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((200, 16)) @ rng.standard_normal((16, 48))).astype(np.float32)
    projected = Projection.pca(rows, 16)(rows)
    np.testing.assert_allclose(projected @ projected.T, rows @ rows.T, atol=1e-4)


def test_pca_of_fewer_rows_than_dimensions_is_whole():
    assert Projection.pca(np.ones((1, 48), np.float32), 16).matrix.shape == (48, 16)


def test_projection_comes_back_as_it_was_written():
    projection = Projection(np.ones((4, 2), np.float32), np.array([1, 2], np.float32))
    again = Projection.from_bytes(projection.to_bytes())
    assert again.sha256 == projection.sha256
    np.testing.assert_array_equal(again(np.ones((1, 4), np.float32)), [[5, 6]])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04.",
        Projection(np.ones((4, 2), np.float32), np.ones(3, np.float32)).to_bytes(),
        Projection(np.full((4, 2), np.nan, np.float32), np.ones(2, np.float32)).to_bytes(),
        Projection.orthonormal(4, 2).to_bytes()[:-1],
    ],
)
def test_damaged_projection_is_refused(data):
    """F13, S21"""
    with pytest.raises(IndexCorrupt, match="projection"):
        Projection.from_bytes(data)


@given(st.text(alphabet="ab\n\r🦀é\u2028"), st.data())
def test_position_is_where_the_character_stands(text, data):
    """A13"""
    start = data.draw(st.integers(0, len(text)))
    [[line, column]] = positions(text, np.array([[start, start]]))
    lines = text.split("\n")
    assert "\n".join([*lines[: line - 1], lines[line - 1][: column - 1]]) == text[:start]


def test_token_of_a_chunk_stands_at_its_line_of_the_file():
    """A13: what was encoded begins with path, symbol and header; the file does not."""
    code = "    def close(self):\n        self.file.close()"
    chunk = Chunk(1, "r", "io/store.py", "python", Role.CODE, 41, 42, "function", "Store.close", "class Store:", code)
    text = embedding_text(chunk)
    wanted = [text.index("store"), text.index("close(self)"), text.index("file.close")]
    offsets = np.array([(start, start + 5) for start in wanted] + [(0, 0)])
    assert file_positions(chunk, offsets).tolist() == [[0, 0], [41, 9], [42, 14], [0, 0]]


def test_no_offsets_have_no_positions():
    assert positions("text", np.empty((0, 2), np.int64)).shape == (0, 2)


@pytest.mark.parametrize(
    ("masked", "kept"),
    [
        (Masked(special=False, ids=frozenset()), [True, True, True]),
        (Masked(special=True, ids=frozenset()), [False, True, True]),
        (Masked(special=False, ids=frozenset({7})), [True, False, True]),
        (Masked(special=True, ids=frozenset({7, 8})), [False, False, False]),
    ],
)
def test_masked_tokens_get_no_vector(masked, kept):
    assert masked.kept(np.array([1, 7, 8]), np.array([True, False, False])).tolist() == kept
