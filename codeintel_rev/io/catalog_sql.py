"""Every statement the catalogue runs, one name each: constants with bound parameters, order always asked for.

`source`, `matched` and `selected` are Arrow tables registered for one call.
"""

CREATE_META = "CREATE TABLE meta AS SELECT $format::INTEGER AS format"
CREATE_CHUNKS = """
CREATE TABLE chunks AS FROM source ORDER BY path, start_line, end_line, chunk_id
"""
CREATE_SYMBOLS = "CREATE TABLE symbols AS FROM source ORDER BY lower(name), path, start_line, qualified_name"
CREATE_FILES = "CREATE TABLE files AS FROM source ORDER BY path"
CREATE_IDMAP = "CREATE TABLE faiss_idmap (faiss_id BIGINT NOT NULL, chunk_id BIGINT NOT NULL)"
CREATE_JOIN = """
CREATE VIEW v_faiss_join AS
SELECT faiss_id, chunk_id, path, language, role, start_line, end_line, kind, symbol
FROM chunks LEFT JOIN faiss_idmap USING (chunk_id)
"""
CLEAR_IDMAP = "DELETE FROM faiss_idmap"
FILL_IDMAP = "INSERT INTO faiss_idmap SELECT faiss_id, chunk_id FROM source ORDER BY chunk_id"
COUNT_BROKEN_JOINS = """
SELECT
    (SELECT count(*) - count(DISTINCT chunk_id) FROM chunks) AS "chunk ids that stand twice",
    (SELECT count(*) FROM (
        SELECT rowid AS row, row_number() OVER (ORDER BY path, start_line, end_line, chunk_id) AS position FROM chunks
    ) WHERE row <> position - 1) AS "chunks out of order",
    (SELECT count(*) FROM chunks ANTI JOIN (FROM files WHERE status = 'indexed') USING (path)) AS "chunks of no file",
    (SELECT count(*) FROM symbols ANTI JOIN chunks USING (chunk_id)) AS "symbols of no chunk",
    (SELECT count(*) - count(DISTINCT chunk_id) FROM faiss_idmap) AS "chunks with two vectors",
    (SELECT count(*) FROM faiss_idmap ANTI JOIN chunks USING (chunk_id)) AS "vectors of no chunk"
"""

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
SELECT_HYDRATED = """
SELECT asked.chunk_id AS asked_id, chunks.*
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
SELECT_CHUNKS_OF_FILE = "SELECT * FROM chunks WHERE path = $path ORDER BY start_line, end_line, chunk_id"
SELECT_TEXT_WITH_LITERAL = """
SELECT path, start_line, end_line, text FROM chunks
WHERE contains(text, $pattern)
    AND (path > $path OR (path = $path AND end_line > $line))
    AND ($everything OR chunk_id IN (FROM selected))
ORDER BY path, start_line, end_line, chunk_id LIMIT $limit
"""
SELECT_ROWS_BEHIND = """
SELECT min(rowid), max(rowid) FROM chunks WHERE path > $path OR (path = $path AND end_line > $line)
"""
SELECT_TEXT_WITH_REGEX = """
SELECT path, start_line, end_line, text FROM chunks
WHERE rowid BETWEEN $first AND $last
    AND regexp_matches(text, $pattern)
    AND (path > $path OR (path = $path AND end_line > $line))
    AND ($everything OR chunk_id IN (FROM selected))
ORDER BY path, start_line, end_line, chunk_id LIMIT $limit
"""
