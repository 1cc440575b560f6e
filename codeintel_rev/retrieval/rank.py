"""What is known about code, applied to a fused ranking: each signal a pure function with one weight and one phrase.

The fused score says how well a chunk's *words* fit. These signals say what an engineer would look at next: is the name
asked for defined here, does the file bear the name of the thing, do its neighbours match too, is it only a test?
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath

from codeintel_rev.io.code_tokens import tokenize
from codeintel_rev.retrieval.plan import FILE_SUFFIXES, Plan, QueryClass
from codeintel_rev.types import CALLABLES, Role


@dataclass(frozen=True, slots=True)
class Candidate:
    """What ranking needs to know of a fused chunk. `score` is the fused one, in [0, 1]."""

    chunk_id: int
    repo: str
    path: str
    role: Role
    kind: str
    defines: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate's place in the final order: its row in the fused ranking, final score and the reasons for it."""

    row: int
    score: float
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The query as the signals see it: content words folded as the lexical index folds them, names as written.

    `places` are what it writes of paths, part by part and without suffix.
    """

    words: frozenset[str]
    names: frozenset[str]
    roles: frozenset[Role]
    places: frozenset[tuple[str, ...]]


# Words that say how a question is put, not what it is about.
_FRAME_WORDS = frozenset(
    "a an and are as at be by can do does for from get how if in into is it its of on or so that the their them then"
    " there these this to used uses using was were what when where which who why will with work works you".split()
)
_ROLE_WORDS = {
    role: frozenset(tokenize(words))
    for role, words in {
        Role.TEST: "test testing spec fixture",
        Role.EXAMPLE: "example demo sample",
        Role.DOCS: "docs documentation readme changelog tutorial guide",
        Role.VENDORED: "vendor vendored third",
        Role.GENERATED: "generated",
    }.items()
}
_ROLE_FACTORS = {
    Role.TEST: 0.5,
    Role.EXAMPLE: 0.8,
    Role.DOCS: 0.9,
    Role.CONFIG: 0.9,
    Role.GENERATED: 0.7,
    Role.VENDORED: 0.6,
}


_WRITTEN = re.compile(r"[\w.@/\\-]+")
_PACKAGE_FILES = frozenset({"__init__", "index", "mod"})
_PARTS_WRITTEN = 3
_PARTS_READ = 8


def understand(plan: Plan) -> Asked:
    """Return what the query is about, of a report its title, and the roles of files it asks for by name."""
    words = frozenset(word for word in tokenize(plan.title or plan.query) if word not in _FRAME_WORDS)
    names = frozenset(name.replace("::", ".").rsplit(".", 1)[-1] for name in plan.names)
    roles = frozenset(role for role, asking in _ROLE_WORDS.items() if asking & words)
    return Asked(words, names, roles, frozenset(_places(plan.query)))


def _places(query: str) -> Iterator[tuple[str, ...]]:
    """Yield the ends of each path in the query, and the beginnings of each dotted name, of two parts or more.

    A traceback tells `src/app/main.py`, an import `app.main.run`.
    """
    for written in (word.strip(".-@/\\") for word in _WRITTEN.findall(query)):
        stem, _, suffix = written.rpartition(".")
        if stem and suffix in FILE_SUFFIXES:
            module = _module(written)
            yield from (module[-length:] for length in range(1, min(len(module), _PARTS_READ) + 1))
        elif stem:
            name = tuple(written.split(".", _PARTS_READ)[:_PARTS_READ])
            yield from (name[:length] for length in range(2, len(name) + 1))


def name_defined(asked: Asked, candidate: Candidate) -> float:
    """1 when a name written in the query is defined here, .7 when only its case differs."""
    defined = {name.rsplit(".", 1)[-1] for name in candidate.defines}
    if asked.names & defined:
        return 1.0
    folded = {name.casefold() for name in defined}
    return 0.7 if any(name.casefold() in folded for name in asked.names) else 0.0


def definition_words(asked: Asked, candidate: Candidate) -> float:
    """How well the words of the best fitting defined name and of the query cover each other, in [0, 1]."""
    return max((_agreement(asked.words, _words(name)) for name in candidate.defines), default=0.0)


def path_words(asked: Asked, candidate: Candidate) -> float:
    """How well the file's stem, or to half the degree its folders, and the query cover each other, in [0, 1]."""
    path = PurePosixPath(candidate.path)
    folder = max((_agreement(asked.words, _words(part)) for part in path.parts[:-1]), default=0.0)
    return max(_agreement(asked.words, _words(path.stem)), folder / 2)


def path_written(asked: Asked, candidate: Candidate) -> float:
    """How many parts of the file's path, from its name up, are written in the query as a path or dotted name, of 3."""
    module = _module(candidate.path)
    written = (length for length in range(1, len(module) + 1) if module[-length:] in asked.places)
    return min(max(written, default=0), _PARTS_WRITTEN) / _PARTS_WRITTEN


@lru_cache(maxsize=65_536)
def _module(path: str) -> tuple[str, ...]:
    """Return the parts of a path without its suffix; a package's own file is the package."""
    pure = PurePosixPath(path.replace("\\", "/").lstrip("/"))
    return pure.parts[:-1] if pure.stem in _PACKAGE_FILES else (*pure.parts[:-1], pure.stem)


def _agreement(asked: frozenset[str], name: frozenset[str]) -> float:
    """Return the geometric mean of the shares that two sets of words have in common."""
    common = len(asked & name)
    return common / (len(asked) * len(name)) ** 0.5 if common else 0.0


@lru_cache(maxsize=65_536)
def _words(name: str) -> frozenset[str]:
    return frozenset(tokenize(name))


def file_coherence(candidates: Sequence[Candidate]) -> list[float]:
    """Return per candidate the share of the best file's total that its own file gathered, in [0, 1]."""
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for candidate in candidates:
        totals[candidate.repo, candidate.path] += candidate.score
    best = max(totals.values(), default=0.0)
    return [totals[c.repo, c.path] / best if best else 0.0 for c in candidates]


@dataclass(frozen=True, slots=True)
class Emphasis:
    """How much each signal counts, on the scale of the fused score, [0, 1].

    `spread` is what each further hit of one file keeps of its score: below 1 an answer shows more files. `no_function`
    is what a chunk keeps that is no function's, `role_power` how often the factor of a file's role applies.
    """

    name_defined: float
    definition_words: float
    path_words: float
    path_written: float
    coherence: float
    spread: float
    no_function: float = 1.0
    role_power: int = 1


# Chosen on the bench sets, ablation in docs/quality.md. A topic is a file or more; what one function does is done by a
# function. A report names tests, pages and logs, but what must change is code.
_TOPIC = Emphasis(name_defined=0.6, definition_words=0.1, path_words=0.25, path_written=0.3, coherence=0.2, spread=0.5)
_EMPHASIS = {
    QueryClass.BEHAVIOUR: Emphasis(0.0, 0.0, 0.0, 0.0, 0.0, spread=1.0, no_function=0.6),
    QueryClass.REPORT: replace(_TOPIC, name_defined=0.0, role_power=2),
}
_WORTH_SAYING = 0.4


def rank(plan: Plan, candidates: Sequence[Candidate]) -> list[Ranked]:
    """Return every candidate in final order, best first, with its reasons; ties keep the fused order.

    The best chunk of a file carries what speaks for the file; the next ones stand for themselves, each keeping `spread`
    of what the one before it kept. REQUIRES: `candidates` in fused order.
    """
    emphasis = _EMPHASIS.get(plan.query_class, _TOPIC)
    asked = understand(plan)
    coherence = file_coherence(candidates)
    own = [_own_score(asked, emphasis, candidate) for candidate in candidates]
    ranked: list[Ranked] = []
    seen: Counter[tuple[str, str]] = Counter()
    for row in sorted(range(len(candidates)), key=lambda row: (-own[row][0], row)):
        candidate, (score, why) = candidates[row], own[row]
        place = candidate.repo, candidate.path
        if not seen[place]:
            bonus, reasons = _file_score(asked, emphasis, candidate, coherence[row])
            score, why = score + bonus, (*why, *reasons)
        ranked.append(Ranked(row, score * emphasis.spread ** seen[place], why))
        seen[place] += 1
    return sorted(ranked, key=lambda place: (-place.score, place.row))


def _own_score(asked: Asked, emphasis: Emphasis, candidate: Candidate) -> tuple[float, tuple[str, ...]]:
    """Return what speaks for the chunk itself, and why."""
    name, words = name_defined(asked, candidate), definition_words(asked, candidate)
    total = candidate.score + emphasis.name_defined * name + emphasis.definition_words * words
    why = []
    if emphasis.name_defined and name:
        why.append("defines the name asked for")
    elif emphasis.definition_words and words >= _WORTH_SAYING:
        why.append("defines a name made of the query's words")
    factor = _role_factor(asked, emphasis, candidate)
    if factor < 1.0:
        why.append(f"{candidate.role} file, counts {factor:.2g}")
    if not _holds_function(candidate) and candidate.role not in asked.roles:
        factor *= emphasis.no_function
    return total * factor, tuple(why)


def _holds_function(candidate: Candidate) -> bool:
    """Say whether the chunk is a function's, or a small type's with members in it."""
    return candidate.kind in CALLABLES or any("." in name for name in candidate.defines)


def _file_score(
    asked: Asked, emphasis: Emphasis, candidate: Candidate, coherence: float
) -> tuple[float, tuple[str, ...]]:
    """Return what speaks for the chunk's file, and why."""
    if not (emphasis.path_words or emphasis.path_written or emphasis.coherence):
        return 0.0, ()
    words, written = path_words(asked, candidate), path_written(asked, candidate)
    total = emphasis.path_words * words + emphasis.path_written * written + emphasis.coherence * coherence
    why = []
    if written >= _WORTH_SAYING:
        why.append("its path is written in the query")
    elif words >= _WORTH_SAYING:
        why.append("its path is made of the query's words")
    return total * _role_factor(asked, emphasis, candidate), tuple(why)


def _role_factor(asked: Asked, emphasis: Emphasis, candidate: Candidate) -> float:
    return 1.0 if candidate.role in asked.roles else _ROLE_FACTORS.get(candidate.role, 1.0) ** emphasis.role_power
