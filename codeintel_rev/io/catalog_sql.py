"""Every statement the catalogue runs, one name each: constants with bound parameters, order always asked for.

`source`, `gone`, `matched` and `selected` are Arrow tables registered for one call.
"""

CREATE_META = "CREATE TABLE meta AS SELECT $format::INTEGER AS format"
CREATE_CHUNKS = "CREATE TABLE chunks AS SELECT *, 0::INTEGER AS place FROM source"
CREATE_SYMBOLS = "CREATE TABLE symbols AS FROM source"
CREATE_FILES = "CREATE TABLE files AS FROM source"
CREATE_IDMAP = "CREATE TABLE faiss_idmap (faiss_id BIGINT NOT NULL, chunk_id BIGINT NOT NULL)"
CREATE_JOIN = """
CREATE VIEW v_faiss_join AS
SELECT faiss_id, chunk_id, path, language, role, start_line, end_line, kind, symbol
FROM chunks LEFT JOIN faiss_idmap USING (chunk_id)
"""
INSERT_CHUNKS = "INSERT INTO chunks SELECT *, 0 FROM source"
INSERT_SYMBOLS = "INSERT INTO symbols FROM source"
INSERT_FILES = "INSERT INTO files FROM source"
COUNT_CHUNKS = """
UPDATE files SET chunks = counted.chunks
FROM (SELECT path, count(*)::INTEGER AS chunks FROM chunks GROUP BY path) counted
WHERE files.path = counted.path AND files.chunks <> counted.chunks
"""
DELETE_CHUNKS = "DELETE FROM chunks WHERE path IN (FROM gone) RETURNING chunk_id"
DELETE_SYMBOLS = "DELETE FROM symbols WHERE path IN (FROM gone)"
DELETE_FILES = "DELETE FROM files WHERE path IN (FROM gone)"
DELETE_UNREAD = "DELETE FROM files WHERE sha256 = ''"
SELECT_DIGESTS = "SELECT path, sha256 FROM files WHERE sha256 <> ''"
NUMBER_CHUNKS = """
UPDATE chunks SET place = numbered.place
FROM (
    SELECT
        rowid AS row, place AS old,
        (row_number() OVER (ORDER BY path, start_line, end_line, chunk_id) - 1)::INTEGER AS place
    FROM chunks
) numbered
WHERE chunks.rowid = numbered.row AND numbered.old <> numbered.place
"""
NAME_CHUNKS = "UPDATE chunks SET repo = $repo WHERE repo <> $repo"
CLEAR_IDMAP = "DELETE FROM faiss_idmap"
FILL_IDMAP = "INSERT INTO faiss_idmap SELECT faiss_id, chunk_id FROM source ORDER BY chunk_id"
SELECT_COLLISION = """
SELECT chunk_id, min(path), max(path) FROM chunks
WHERE chunk_id IN (SELECT chunk_id FROM chunks GROUP BY chunk_id HAVING count(*) > 1)
GROUP BY chunk_id ORDER BY chunk_id LIMIT 1
"""
COUNT_BROKEN_TABLES = """
SELECT
    (SELECT count(*) - count(DISTINCT path) FROM files) AS "files that stand twice",
    (SELECT count(*) FROM chunks ANTI JOIN (FROM files WHERE status = 'indexed') USING (path)) AS "chunks of no file",
    (SELECT count(*) FROM symbols ANTI JOIN chunks USING (chunk_id)) AS "symbols of no chunk"
"""
COUNT_BROKEN_VECTORS = """
SELECT
    (SELECT count(*) - count(DISTINCT chunk_id) FROM faiss_idmap) AS "chunks with two vectors",
    (SELECT count(*) FROM faiss_idmap ANTI JOIN chunks USING (chunk_id)) AS "vectors of no chunk"
"""
SELECT_USE = """
SELECT
    (SELECT count(*) FROM chunks) AS chunks, (SELECT coalesce(max(rowid) + 1, 0) FROM chunks) AS rows,
    total_blocks, free_blocks
FROM pragma_database_size()
"""
EVERY_CHUNK = "SELECT * EXCLUDE (place) FROM chunks ORDER BY place"
EVERY_SYMBOL = "FROM symbols ORDER BY path, rowid"
EVERY_FILE = "FROM files ORDER BY path"
EVERY_VECTOR = "FROM faiss_idmap"

SELECT_FORMAT = "SELECT format FROM meta"
SELECT_COUNTS = """
SELECT
    (SELECT count(*) FROM files WHERE status = 'indexed') AS files,
    (SELECT count(*) FROM files WHERE status = 'skipped') AS skipped,
    (SELECT count(*) FROM chunks) AS chunks,
    (SELECT count(*) FROM symbols) AS symbols,
    (SELECT count(*) FROM faiss_idmap) AS vectors
"""
SELECT_COVERAGE = """
SELECT
    array_to_string((string_split(path, '/')[:-2])[:2], '/') AS module, language,
    count(*) AS chunks, count(faiss_id) AS vectors
FROM v_faiss_join GROUP BY ALL ORDER BY module, language
"""
SELECT_IDS = "SELECT chunk_id FROM chunks ORDER BY chunk_id"
SELECT_IDS_OF_FILES = """
SELECT chunk_id FROM chunks WHERE path IN (SELECT UNNEST($paths::VARCHAR[])) ORDER BY chunk_id
"""
SELECT_HYDRATED = """
SELECT asked.chunk_id AS asked_id, chunks.* EXCLUDE (place)
FROM UNNEST($ids::BIGINT[]) WITH ORDINALITY AS asked(chunk_id, position) LEFT JOIN chunks USING (chunk_id)
ORDER BY position
"""
SELECT_INDEXED_PATHS = "SELECT path FROM files WHERE status = 'indexed' ORDER BY path"
SELECT_SCOPE = """
SELECT chunk_id, path FROM chunks
WHERE ($every_path OR path IN (FROM matched))
    AND (len($languages::VARCHAR[]) = 0 OR list_contains($languages::VARCHAR[], language))
    AND (len($kinds::VARCHAR[]) = 0 OR list_contains($kinds::VARCHAR[], kind))
ORDER BY chunk_id
"""
SELECT_FILE = "SELECT * FROM files WHERE path = $path"
SELECT_FILES = "SELECT * FROM files WHERE status = $status ORDER BY path"
SELECT_REASONS = "SELECT reason, count(*) FROM files WHERE reason <> '' GROUP BY reason ORDER BY reason"
SELECT_CHUNKS_OF_FILE = "SELECT * EXCLUDE (place) FROM chunks WHERE path = $path ORDER BY place"
SELECT_SYMBOLS_OF_FILE = "FROM symbols WHERE path = $path ORDER BY rowid"
SELECT_KNOWN_NAMES = """
SELECT DISTINCT name FROM symbols WHERE list_contains($names::VARCHAR[], name) ORDER BY name
"""
SELECT_CHUNKS = """
SELECT * EXCLUDE (place) FROM chunks WHERE place BETWEEN $first AND $last ORDER BY place
"""
SELECT_OUTLINES = "SELECT chunk_id, path, role, kind FROM chunks ORDER BY chunk_id"
SELECT_DEFINES = "SELECT chunk_id, qualified_name FROM symbols ORDER BY chunk_id, rowid"
SELECT_TEXT_WITH_LITERAL = """
SELECT path, start_line, end_line, text FROM chunks
WHERE contains(text, $pattern)
    AND (path > $path OR (path = $path AND end_line > $line))
    AND ($everything OR chunk_id IN (FROM selected))
ORDER BY place LIMIT $limit
"""
SELECT_PLACES_BEHIND = """
SELECT min(place), max(place) FROM chunks WHERE path > $path OR (path = $path AND end_line > $line)
"""
SELECT_TEXT_WITH_REGEX = """
SELECT path, start_line, end_line, text FROM chunks
WHERE place BETWEEN $first AND $last
    AND regexp_matches(text, $pattern)
    AND (path > $path OR (path = $path AND end_line > $line))
    AND ($everything OR chunk_id IN (FROM selected))
ORDER BY place LIMIT $limit
"""
