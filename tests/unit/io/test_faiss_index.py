import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from codeintel_rev.errors import (
    DimensionMismatch,
    GenerationMismatch,
    IndexCorrupt,
    IndexIncompatible,
    InvalidArgument,
)
from codeintel_rev.io.faiss_index import (
    EXACT_BELOW,
    FaissIndex,
    Family,
    build_index,
    choose_family,
    inverted_family,
)
from codeintel_rev.io.vectors import PRIMARY, VectorTable, write_vectors

INDEX, META = PRIMARY.index, PRIMARY.meta
DIM = 16
ROWS = 4000
INVERTED = inverted_family(ROWS)


def clustered(rows: int, dim: int, clusters: int) -> np.ndarray:
    random = np.random.default_rng(0)
    centres = random.standard_normal((clusters, dim), np.float32)
    vectors = centres[random.integers(0, clusters, rows)] + 0.8 * random.standard_normal((rows, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(directory: Path, vectors: np.ndarray, family: Family | None = None, dim: int = DIM) -> VectorTable:
    ids = np.random.default_rng(1).choice(2**62, len(vectors), replace=False).astype(np.int64)
    write_vectors(directory, ids, vectors)
    table = VectorTable.open(directory, dim)
    build_index(directory, table, family=family)
    return table


@pytest.fixture(scope="module", params=[None, INVERTED], ids=["exact", "inverted"])
def generation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VectorTable]:
    directory = tmp_path_factory.mktemp("generation")
    return directory, build(directory, clustered(ROWS, DIM, 50), request.param)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VectorTable]:
    directory = tmp_path_factory.mktemp("exact")
    return directory, build(directory, clustered(200, DIM, 10))


def truth(table: VectorTable, query: np.ndarray, k: int, ids: np.ndarray | None = None) -> np.ndarray:
    """Return the ids of a full scan over the stored vectors."""
    among = np.asarray(table.ids if ids is None else ids)
    scores = table.vectors[np.searchsorted(table.ids, among)].astype(np.float32) @ query.astype(np.float32)
    return among[np.lexsort((among, -scores))][:k]


def test_the_family_is_keyed_by_corpus_size() -> None:
    """Decision 11, B16, B17."""
    assert choose_family(0) == choose_family(EXACT_BELOW - 1) == Family("SQfp16", nbits=16)
    assert choose_family(5).parameter_space == {}
    assert choose_family(EXACT_BELOW).factory == "IVF2048,RaBitQ,Refine(SQ8)"
    assert choose_family(10**6).parameter_space == {"nprobe": 128, "k_factor": 4}


@pytest.mark.parametrize("count", [0, 1, 39, 80, 10**4, 10**9])
def test_inverted_knobs_are_whole_numbers_within_their_bounds(count: int) -> None:
    """Decision 4: FAISS takes "0.07*nlist" silently for 0."""
    family = inverted_family(count)
    assert 1 <= family.nprobe <= family.nlist <= max(1, count)
    assert f"IVF{family.nlist}," in family.factory


def test_search_returns_chunk_ids_best_first(generation: tuple[Path, VectorTable]) -> None:
    """B01: a survivor finds itself, under its own id."""
    directory, table = generation
    index = FaissIndex.open(directory, DIM)
    for row in range(0, ROWS, 97):
        query = table.vectors[row].astype(np.float32)
        ids, scores = index.search(query, 5)
        assert ids[0] == table.ids[row]
        assert (ids.dtype, scores.dtype, len(ids)) == (np.int64, np.float32, 5)
        assert np.all(np.diff(scores) <= 0)


def test_the_exact_family_finds_what_a_full_scan_finds(exact: tuple[Path, VectorTable]) -> None:
    """B30: the oracle is every stored vector, not the index's own pool (decision 7)."""
    directory, table = exact
    index = FaissIndex.open(directory, DIM)
    for query in clustered(40, DIM, 7):
        ids, scores = index.search(query, 10)
        assert ids.tolist() == truth(table, query, 10).tolist()
        found = table.vectors[np.searchsorted(table.ids, ids)].astype(np.float32)
        assert np.allclose(scores, found @ query, atol=1e-5)


def test_the_inverted_family_recalls_most_of_the_truth(tmp_path: Path) -> None:
    """B29: measured against a full scan."""
    table = build(tmp_path, clustered(ROWS, DIM, 50), INVERTED)
    index = FaissIndex.open(tmp_path, DIM)
    queries = table.vectors[::80].astype(np.float32)
    recall = [len(np.intersect1d(index.search(q, 10, nprobe=16)[0], truth(table, q, 10))) / 10 for q in queries]
    assert np.mean(recall) > 0.85


def test_a_filter_is_pushed_down(generation: tuple[Path, VectorTable]) -> None:
    """Decision 6: k hits come from the allowed ids however few they are, in an inverted family too."""
    directory, table = generation
    index = FaissIndex.open(directory, DIM)
    allowed = np.sort(np.concatenate([table.ids[::400], [3, 2**62 + 5]]))
    query = table.vectors[7].astype(np.float32)
    ids, _ = index.search(query, 10, allowed=allowed)
    assert sorted(ids.tolist()) == table.ids[::400].tolist()


def test_a_filter_finds_the_best_of_the_allowed(exact: tuple[Path, VectorTable]) -> None:
    directory, table = exact
    allowed = table.ids[::3]
    query = table.vectors[1].astype(np.float32)
    ids, _ = FaissIndex.open(directory, DIM).search(query, 7, allowed=allowed)
    assert ids.tolist() == truth(table, query, 7, allowed).tolist()


@pytest.mark.parametrize("allowed", [[], [1, 2, 3]], ids=["nothing", "no vectors"])
def test_a_filter_that_leaves_nothing_finds_nothing(generation: tuple[Path, VectorTable], allowed: list[int]) -> None:
    index = FaissIndex.open(generation[0], DIM)
    ids, scores = index.search(np.ones(DIM), 10, allowed=np.array(allowed, np.int64))
    assert (ids.size, scores.size) == (0, 0)


def test_equal_scores_come_by_ascending_id(tmp_path: Path) -> None:
    """The same generation and query give the same bytes: of 300 twins the ten smallest ids."""
    table = build(tmp_path, np.tile(clustered(1, DIM, 1), (300, 1)))
    ids, scores = FaissIndex.open(tmp_path, DIM).search(table.vectors[0], 10)
    assert ids.tolist() == table.ids[:10].tolist()
    assert len(set(scores.tolist())) == 1


@pytest.mark.parametrize("family", [None, INVERTED], ids=["exact", "inverted"])
def test_equal_scores_at_the_end_are_cut_by_id(tmp_path: Path, family: Family | None) -> None:
    """FAISS's heap keeps the last of them; another cut of the same vectors into indexes must not show."""
    vectors = clustered(ROWS, DIM, 1)
    vectors[500:900] = vectors[3]
    table = build(tmp_path, vectors, family)
    index = FaissIndex.open(tmp_path, DIM)
    whole = truth(table, vectors[700], 401)
    for k in (1, 2, 50, 150, 400):
        assert index.search(vectors[700], k)[0].tolist() == whole[:k].tolist()


@pytest.mark.parametrize("k", [201, 10**9, 2**31 + 1])
def test_a_huge_k_finds_every_vector_once(exact: tuple[Path, VectorTable], k: int) -> None:
    """F38. No id is ever -1."""
    directory, table = exact
    ids, _ = FaissIndex.open(directory, DIM).search(np.ones(DIM), k)
    assert sorted(ids.tolist()) == table.ids.tolist()


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one_is_refused(exact: tuple[Path, VectorTable], k: int) -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        FaissIndex.open(exact[0], DIM).search(np.ones(DIM), k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_is_refused(exact: tuple[Path, VectorTable], bad: float) -> None:
    """F28."""
    query = np.ones(DIM)
    query[3] = bad
    with pytest.raises(InvalidArgument, match="not finite"):
        FaissIndex.open(exact[0], DIM).search(query, 5)


@pytest.mark.parametrize("shape", [(DIM + 1,), (1, DIM), (0,), ()])
def test_a_query_of_another_shape_is_refused(exact: tuple[Path, VectorTable], shape: tuple[int, ...]) -> None:
    with pytest.raises(DimensionMismatch):
        FaissIndex.open(exact[0], DIM).search(np.ones(shape), 5)


def test_a_knob_the_family_does_not_have_is_refused(exact: tuple[Path, VectorTable]) -> None:
    """Decision 5."""
    with pytest.raises(InvalidArgument, match="nprobe does not apply to SQfp16"):
        FaissIndex.open(exact[0], DIM).search(np.ones(DIM), 5, nprobe=4)


def test_a_knob_out_of_range_is_refused(tmp_path: Path) -> None:
    """Decision 4."""
    table = build(tmp_path, clustered(ROWS, DIM, 50), INVERTED)
    index = FaissIndex.open(tmp_path, DIM)
    with pytest.raises(InvalidArgument, match="nprobe is 0"):
        index.search(table.vectors[0], 5, nprobe=0)
    assert index.search(table.vectors[0], 5, nprobe=10**9)[0][0] == table.ids[0]


def test_concurrent_searches_with_other_knobs_do_not_meet(generation: tuple[Path, VectorTable]) -> None:
    """Decision 6: parameters belong to the call."""
    directory, table = generation
    index = FaissIndex.open(directory, DIM)

    def ask(row: int) -> list[int]:
        allowed = table.ids[row % 7 :: 7] if row % 2 else None
        return index.search(table.vectors[row], 10, allowed=allowed)[0].tolist()

    alone = [ask(row) for row in range(100)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(100))) == alone


def test_an_index_of_no_vectors_finds_nothing(tmp_path: Path) -> None:
    build(tmp_path, np.empty((0, DIM), np.float32))
    index = FaissIndex.open(tmp_path, DIM)
    assert (len(index), index.search(np.ones(DIM), 5)[0].size) == (0, 0)


@pytest.mark.parametrize("deleted", [1, 100, ROWS - 7, ROWS])
def test_deleted_vectors_are_never_found_and_the_others_find_themselves(
    generation: tuple[Path, VectorTable], deleted: int
) -> None:
    """Decision 1, B12: counts would shrink on a corrupt index too."""
    directory, table = generation
    gone = np.sort(np.random.default_rng(deleted).choice(table.ids, deleted, replace=False))
    index = FaissIndex.open(directory, DIM, deleted=gone)
    left = np.flatnonzero(~np.isin(table.ids, gone))
    assert [index.search(table.vectors[row], 3)[0][0] for row in left[::61]] == table.ids[left[::61]].tolist()
    assert len(index) == ROWS - deleted
    assert not np.isin(index.search(np.ones(DIM), ROWS)[0], gone).any()


def test_a_filter_does_not_bring_the_deleted_back(generation: tuple[Path, VectorTable]) -> None:
    directory, table = generation
    index = FaissIndex.open(directory, DIM, deleted=table.ids[:50])
    found, _ = index.search(table.vectors[0], 100, allowed=table.ids[40:60])
    assert sorted(found.tolist()) == table.ids[50:60].tolist()


def test_a_deleted_id_that_was_never_there_is_a_mismatch(exact: tuple[Path, VectorTable]) -> None:
    """F14: tombstones of another generation."""
    with pytest.raises(GenerationMismatch, match="1 deleted ids"):
        FaissIndex.open(exact[0], DIM, deleted=np.append(exact[1].ids[:1], 2**62 + 9))


def test_meta_holds_what_the_index_was_built_with(generation: tuple[Path, VectorTable]) -> None:
    """B10, decision 12."""
    directory, _ = generation
    meta = json.loads((directory / META).read_text())
    inverted = meta["factory"] == INVERTED.factory
    assert meta["factory"] == (INVERTED.factory if inverted else "SQfp16")
    assert meta["parameter_space"] == (INVERTED.parameter_space if inverted else {})
    assert meta["training_rows"] == INVERTED.nlist * 40 * inverted
    assert (meta["vec_dim"], meta["vector_count"], meta["metric"]) == (DIM, ROWS, "inner_product")
    assert meta["faiss_compile"] == faiss.get_compile_options().strip()
    assert meta["gpu_enabled"] is not bool(meta["gpu_disabled_reason"])


def test_searching_leaves_the_files_as_they_were(generation: tuple[Path, VectorTable]) -> None:
    """Decision 10."""
    directory, table = generation
    before = {name: (directory / name).read_bytes() for name in (INDEX, META)}
    FaissIndex.open(directory, DIM).search(table.vectors[0], 5)
    assert {name: (directory / name).read_bytes() for name in before} == before


def test_the_audit_line_says_what_serves(exact: tuple[Path, VectorTable]) -> None:
    """B11."""
    line = FaissIndex.open(exact[0], DIM).describe()
    assert faiss.__version__ in line
    assert "factory=SQfp16 params=none gpu=" in line
    assert line.endswith(f"dim={DIM} count=200")


def test_another_encoder_is_refused_with_both_dimensions(exact: tuple[Path, VectorTable]) -> None:
    """F16, C25, decision 49."""
    with pytest.raises(DimensionMismatch, match="Dimension mismatch: FAISS=16, encoder=384"):
        FaissIndex.open(exact[0], 384)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    build(tmp_path, clustered(200, DIM, 10))
    return tmp_path


@pytest.mark.parametrize("name", [INDEX, META])
@pytest.mark.parametrize("length", [0, 3, 40, 200, -1])
def test_a_truncated_file_is_corrupt(broken: Path, name: str, length: int) -> None:
    """F12."""
    path = broken / name
    path.write_bytes(path.read_bytes().rstrip()[:length])
    with pytest.raises(IndexCorrupt):
        FaissIndex.open(broken, DIM)


@pytest.mark.parametrize("name", [INDEX, META])
def test_a_missing_file_is_named(broken: Path, name: str) -> None:
    (broken / name).unlink()
    with pytest.raises(IndexCorrupt, match=f"{name} is missing"):
        FaissIndex.open(broken, DIM)


def test_a_length_beyond_the_file_is_refused_before_it_is_allocated(broken: Path) -> None:
    """S22: a hostile file must not ask for a terabyte."""
    path = broken / INDEX
    data = bytearray(path.read_bytes())
    place = data.index((200).to_bytes(8, "little"), len(data) - 200 * 8 - 16)  # the length of the id map
    data[place : place + 8] = (2**34).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        FaissIndex.open(broken, DIM)


def test_files_of_two_generations_do_not_open_together(broken: Path, exact: tuple[Path, VectorTable]) -> None:
    """F14: same size, same dimension, other ids."""
    vectors = VectorTable.open(broken, DIM)
    write_vectors(broken, vectors.ids + 1, vectors.vectors)
    (broken / "other").mkdir()
    build_index(broken / "other", VectorTable.open(broken, DIM))
    (broken / META).write_bytes((broken / "other" / META).read_bytes())
    with pytest.raises(GenerationMismatch, match="is not the index"):
        FaissIndex.open(broken, DIM)


def test_meta_of_another_format_is_incompatible(broken: Path) -> None:
    """F16."""
    meta = json.loads((broken / META).read_text())
    (broken / META).write_text(json.dumps({**meta, "format": 999}))
    with pytest.raises(IndexIncompatible, match="999"):
        FaissIndex.open(broken, DIM)


def test_meta_with_a_foreign_field_is_corrupt(broken: Path) -> None:
    meta = json.loads((broken / META).read_text())
    (broken / META).write_text(json.dumps({**meta, "efSearch": 64}))
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        FaissIndex.open(broken, DIM)


def test_an_index_without_ids_of_its_own_is_incompatible(broken: Path) -> None:
    """Decisions 2 and 3: no map is guessed."""
    faiss.write_index(faiss.index_factory(DIM, "SQfp16", faiss.METRIC_INNER_PRODUCT), str(broken / INDEX))
    with pytest.raises(IndexIncompatible, match="does not hold its own ids"):
        FaissIndex.open(broken, DIM)


def test_ids_out_of_order_are_corrupt(tmp_path: Path) -> None:
    """They are looked up by bisection."""
    vectors = clustered(3, DIM, 2)
    write_vectors(tmp_path, np.array([5, 7, 9]), vectors)
    table = VectorTable.open(tmp_path, DIM)
    build_index(tmp_path, VectorTable(np.array([7, 5, 9]), table.vectors))
    with pytest.raises(IndexCorrupt, match="ascending"):
        FaissIndex.open(tmp_path, DIM)


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(exact: tuple[Path, VectorTable]) -> None:
    """C24."""
    directory, table = exact
    index = FaissIndex.open(directory, DIM)
    assert "gpu=on" in index.describe()
    assert index.search(table.vectors[3], 5)[0].tolist() == truth(table, table.vectors[3], 5).tolist()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_320k_vectors_are_inverted_and_recalled(tmp_path: Path) -> None:
    """performance.md: recall@10 against a full scan at the family's own knobs."""
    table = build(tmp_path, clustered(320_000, 64, 4000), dim=64)
    index = FaissIndex.open(tmp_path, 64)
    assert index.meta.factory == "IVF2048,RaBitQ,Refine(SQ8)"
    queries = table.vectors[::8000].astype(np.float32)
    recall = [len(np.intersect1d(index.search(q, 200)[0][:10], truth(table, q, 10))) / 10 for q in queries]
    assert np.mean(recall) >= 0.9
