"""In-memory stand-ins that keep the contracts of Searcher and Navigator, over a corpus small enough to read."""

from __future__ import annotations

import hashlib
import re
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from codeintel_rev.answer.library import Facts, FileFacts
from codeintel_rev.app.context import Opened
from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import unit_rows
from codeintel_rev.encoders.tokens import EncodedDocument, EncodedQuery
from codeintel_rev.errors import DeadlineExceeded, IndexUnavailable, InvalidArgument, NotFound
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.navigation.cursor import Cursor, check_served, decode, digest, encode
from codeintel_rev.navigation.files import FileLines, list_paths
from codeintel_rev.navigation.navigator import FoundText, ListedPaths, ReadLines
from codeintel_rev.navigation.text import TextQuery, find_lines, with_context
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.types import (
    BuildProgress,
    Contribution,
    Freshness,
    Hit,
    Limit,
    ModelFingerprint,
    Revision,
    Scope,
    SearchResult,
    ShardStatus,
    Stage,
    TokenMatch,
)

CORPUS = {
    "shop": {
        "src/cart.py": "def add(item):\n    '''Put an item into the cart.'''\n    return [item]\n",
        "src/pay.py": "def charge(card, amount):\n    '''Charge a card.'''\n    return amount\n",
        "README.md": "# Shop\n\nSells things.\n",
    },
    "org/tools": {"lib/retry.go": "// Retry calls f again.\nfunc Retry(f func() error) error {\n\treturn f()\n}\n"},
}
LANGUAGES = {"py": "python", "go": "go", "md": "markdown"}
NOT_ENCODED = Limit("vectors-partial", "dense", "40% of chunks have vectors.", "Wait for the build.")


def language(path: str) -> str:
    return LANGUAGES[path.rpartition(".")[2]]


class FakeSearcher:
    """Ranks files by how many of the query's words they hold.

    The query `gate FOLDER` writes FOLDER/entered and then waits for FOLDER/open, as long as its deadline allows; `boom`
    is a bug.
    """

    def __init__(self, *, generation: str = "01", limits: tuple[Limit, ...] = (), corpus: dict = CORPUS) -> None:
        self.generation = generation
        self.limits = limits
        self.corpus = corpus
        self.failure: BaseException | None = None
        self.building: BuildProgress | None = None
        self.state = "ready"
        self.closed = False
        self.asked: list[tuple[str, Scope, int, float]] = []
        self.options: list[Options] = []

    def search(
        self,
        query: str,
        scope: Scope,
        limit: int,
        *,
        deadline_ms: float,
        explained: range = NONE,
        options: Options = AS_SET,
    ) -> SearchResult:
        self.asked.append((query, scope, limit, deadline_ms))
        self.options.append(options)
        if self.failure:
            raise self.failure
        if not query.strip():
            raise InvalidArgument("query is empty.", "Ask something.")
        if query == "boom":
            raise RuntimeError("secret detail")
        if query.startswith("gate "):
            self._wait(Path(query.removeprefix("gate ")), deadline_ms)
        if not self.generation:
            raise IndexUnavailable("no generation is published.", "Index the repository first.")
        repos = scope.repos or tuple(sorted(self.corpus))
        if unknown := [repo for repo in repos if repo not in self.corpus]:
            raise NotFound(f"no repository {unknown[0]!r} is served.", "index_status names those that are.")
        hits = [hit for repo in repos for path in self.corpus[repo] if (hit := self._hit(query, repo, path))]
        chosen = [hit for hit in hits if not scope.languages or hit.language in scope.languages]
        found = sorted(chosen, key=lambda hit: (-hit.score, hit.chunk_id))[:limit]
        return SearchResult(
            hits=tuple(
                replace(hit, token_matches=(TokenMatch("a", "b", 0.5, 0.25, hit.path, 1, 5),) * (place in explained))
                for place, hit in enumerate(found)
            ),
            plan="words",
            channels=("lexical",),
            stages=(Stage("lexical", 1.5, "ok", 500.0),),
            limits=self.limits,
            scope=scope,
            generations=dict.fromkeys(repos, self.generation),
        )

    def status(self) -> tuple[ShardStatus, ...]:
        if self.failure:
            raise self.failure
        return tuple(self._status(repo) for repo in sorted(self.corpus))

    def close(self) -> None:
        self.closed = True

    def _wait(self, folder: Path, deadline_ms: float) -> None:
        (folder / "entered").touch()
        give_up = time.monotonic() + deadline_ms / 1000
        while not (folder / "open").exists():
            if time.monotonic() > give_up:
                raise DeadlineExceeded("the search took too long.", "Narrow the scope.")
            time.sleep(0.01)

    def _hit(self, query: str, repo: str, path: str) -> Hit | None:
        text = self.corpus[repo][path]
        score = float(sum(word in text.lower() for word in query.lower().split()))
        if not score:
            return None
        lines = text.rstrip("\n").split("\n")
        return Hit(
            chunk_id=sum(map(ord, repo + path)),
            repo=repo,
            path=path,
            start_line=1,
            end_line=len(lines),
            language=language(path),
            symbol=path.rpartition("/")[2].partition(".")[0],
            kind="function",
            snippet="\n".join(lines),
            score=score,
            freshness=Freshness.FRESH,
            commit="c0ffee",
            why=("lexical #1",),
            contributions={"lexical": Contribution(1, score, 1.0, score)},
        )

    def _status(self, repo: str) -> ShardStatus:
        return ShardStatus(
            repo=repo,
            state=self.state,
            generation=self.generation,
            parent="",
            published_at="2026-01-02T03:04:05Z",
            revision=Revision("c0ffee", "main", dirty=False),
            counts={"chunks": len(self.corpus[repo])},
            vector_coverage=1.0,
            model=None,
            building=self.building,
            limits=self.limits,
        )


class FakeNavigator:
    """Reads the corpus with the project's own pure functions."""

    def __init__(self, *, generation: str = "01", corpus: dict = CORPUS) -> None:
        self.generation = generation
        self.corpus = corpus

    def search_text(
        self,
        pattern: str,
        *,
        regex: bool,
        case_sensitive: bool,
        scope: Scope,
        limit: int,
        context_lines: int,
        cursor: str,
    ) -> FoundText:
        query = TextQuery(pattern, regex, case_sensitive)
        question = digest(pattern, regex, case_sensitive)
        start = int(self._after(cursor, question) or 0)
        found = [
            (repo, with_context(match, self.corpus[repo][match.path].splitlines(), context_lines))
            for repo in (scope.repos or sorted(self.corpus))
            for match in find_lines(self._rows(repo), query, 10_000, None).matches
        ]
        more = self._cursor(str(start + limit), question) if len(found) > start + limit else None
        return FoundText(tuple(found[start : start + limit]), more, dict.fromkeys(self.corpus, self.generation))

    def open_file(self, repo: str, path: str, start_line: int, end_line: int | None) -> ReadLines:
        lines = self._files(repo).get(path, "").rstrip("\n").split("\n")
        if path not in self._files(repo):
            raise NotFound(f"no file {path!r}.", "list_paths names the files there are.")
        last = min(end_line or len(lines), len(lines))
        text = "\n".join(lines[start_line - 1 : last])
        return ReadLines(FileLines(path, start_line, last, len(lines), Freshness.FRESH, False, text), self.generation)

    def list_paths(self, repo: str, under: str, scope: Scope, limit: int, cursor: str) -> ListedPaths:
        question = digest(repo, under)
        page = list_paths(
            [(path, language(path)) for path in self._files(repo)],
            under=under,
            matcher=PathMatcher(scope.paths),
            languages=scope.languages,
            limit=limit,
            after=self._after(cursor, question),
        )
        more = self._cursor(page.next_after, question) if page.next_after else None
        return ListedPaths(page, more, self.generation)

    def _files(self, repo: str) -> dict[str, str]:
        if repo not in self.corpus:
            raise NotFound(f"no repository {repo!r} is served.", "index_status names those that are.")
        return self.corpus[repo]

    def _rows(self, repo: str) -> list[tuple[str, int, str]]:
        return sorted((path, 1, text.rstrip("\n")) for path, text in self._files(repo).items())

    def _after(self, cursor: str, question: str) -> str:
        if not cursor:
            return ""
        decoded = decode(cursor, question=question)
        check_served(decoded, dict.fromkeys(self.corpus, self.generation))
        return decoded.position

    def _cursor(self, position: str, question: str) -> str:
        return encode(Cursor(position, question, dict.fromkeys(self.corpus, self.generation)))


class FakeTokens:
    """A TokenEncoder without a model: every word has a direction of its own. `read` are the texts it was given."""

    def __init__(self, name: str = "words") -> None:
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        self.fingerprint = self.dense_fingerprint = ModelFingerprint(name, "", 32, "tokens", "float32", 512, sha256)
        self.read: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> Iterator[EncodedDocument]:
        for text in texts:
            self.read.append(text)
            yield EncodedDocument(*self._encoded(text))

    def encode_query(self, text: str) -> EncodedQuery:
        return EncodedQuery(*self._encoded(text))

    def _encoded(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words = list(re.finditer(r"\w+", text))
        rows = [np.random.default_rng(zlib.crc32(word[0].encode())).standard_normal(32) for word in words]
        tokens = np.array(rows, np.float32).reshape(-1, 32)
        spans = np.array([word.span() for word in words], np.int64).reshape(-1, 2)
        return np.zeros(32, np.float32), unit_rows(tokens, len(words), self.fingerprint), spans


class FakeLibrary:
    """Knows the corpus and nothing else of it."""

    def facts(self, files: Iterable[tuple[str, str]], generations: Mapping[str, str]) -> Facts:
        return {(repo, path): self._facts(repo, path) for repo, path in files}

    def standing(self, repo: str, path: str) -> tuple[str, ...] | None:
        return self._facts(repo, path).lines

    def known_names(self, repos: Collection[str], names: Collection[str]) -> set[str]:
        return set()

    def _facts(self, repo: str, path: str) -> FileFacts:
        lines = tuple(CORPUS[repo][path].rstrip("\n").split("\n"))
        return FileFacts(Revision("c0ffee", "main", dirty=False), lines, ())


def opened_fakes(searcher: FakeSearcher | None = None) -> Opened:
    """Return a searcher with what goes with it."""
    searcher = searcher or FakeSearcher()
    return Opened(searcher, FakeNavigator(generation=searcher.generation), FakeLibrary())


def open_fakes(settings: Settings) -> Opened:
    """Stand in for opening the published generations."""
    return opened_fakes()
